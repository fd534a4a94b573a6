"""The rules of client-go's reflector, on virtual time; `I4` and so on name them."""

import asyncio
import random

import pytest

from podidentity.emulator.kubernetes import ClusterSettings, ClusterState
from podidentity.kube.reflector import Alive, Listed, ReflectorSettings
from tests.kube.cluster import put, remove
from tests.kube.observed import Observed
from tests.virtual_time import settle, virtual_time


@virtual_time
async def test_the_collection_is_listed_and_then_followed(state):
    put(state, "a")
    observed = Observed(state)
    async with observed.running():
        put(state, "b")
        put(state, "a", k="v")
        remove(state, "b")
        await settle()
    assert observed.changes == [("listed", "a"), ("applied", "b"), ("applied", "a"), ("gone", "b")]


@virtual_time
async def test_lists_come_in_pages_of_one_quorum_read(state):  # I1, I2
    for name in "abcde":
        put(state, name)
    observed = Observed(state, settings=ReflectorSettings(page=2))
    async with observed.running():
        pass
    lists = [query for query in observed.asked if "watch" not in query]
    assert [query["limit"] for query in lists] == ["2", "2", "2"]
    assert [("resourceVersion" in query, "continue" in query) for query in lists] == [
        (False, False),
        (False, True),
        (False, True),
    ]
    assert observed.changes == [("listed", "a,b,c,d,e")]


@virtual_time
async def test_pages_that_expire_become_one_list_of_everything(state):  # I2, TestReflectorFullListIfExpired
    for name in "abcde":
        put(state, name)
    state.faults.answer(410, match=lambda call: "continue" in call.query)
    observed = Observed(state, settings=ReflectorSettings(page=2))
    async with observed.running():
        pass
    assert [sorted(query) for query in observed.asked[:3]] == [["limit"], ["continue", "limit"], []]
    assert observed.changes == [("listed", "a,b,c,d,e")]
    assert observed.times[2] == 0.0


@virtual_time
async def test_a_watch_begins_at_the_version_of_the_list_not_of_an_object(state):  # I3
    put(state, "a")
    put(state, "other", namespace="kube-system")
    observed = Observed(state, namespace="default")
    async with observed.running():
        pass
    assert observed.asked[1]["resourceVersion"] == str(state.revision)


@virtual_time
async def test_a_watch_asks_for_bookmarks_and_for_an_end_at_a_random_time(state):  # I4
    ends = []
    for seed in range(40):
        observed = Observed(state, seed=seed)
        async with observed.running():
            pass
        assert observed.asked[1]["allowWatchBookmarks"] == "true"
        ends.append(int(observed.asked[1]["timeoutSeconds"]))
    assert 300 <= min(ends) < 330
    assert 570 < max(ends) <= 600


@virtual_time
async def test_selectors_go_with_lists_and_watches(state):
    put(state, "red", color="red")
    put(state, "blue", color="blue")
    observed = Observed(state, label_selector="color=red", field_selector="metadata.name!=x", namespace="default")
    async with observed.running():
        put(state, "red", color="blue")
        put(state, "blue", color="red")
        await settle()
    assert observed.changes == [("listed", "red"), ("gone", "red"), ("applied", "blue")]


@virtual_time
async def test_a_watch_goes_on_at_the_last_version_that_it_was_told(state):  # I5, I7
    observed = Observed(state)
    async with observed.running():
        put(state, "a")
        remove(state, "a")
        deleted_at = str(state.revision)
        await settle()
        state.faults.end_streams()
        await settle()
    assert observed.kinds == ["list", "watch", "watch"]
    assert observed.asked[2]["resourceVersion"] == deleted_at
    assert observed.times[2] == 0.0


@virtual_time
async def test_a_bookmark_moves_the_version_and_nothing_else(state):  # I5
    observed = Observed(state, namespace="default")
    async with observed.running():
        put(state, "elsewhere", namespace="kube-system")
        await asyncio.sleep(61)
        seen = [item for item in observed.seen if isinstance(item, Alive)]
        state.faults.end_streams()
        await settle()
    assert observed.changes == [("listed", "")]
    assert len(seen) == 2
    assert observed.asked[-1]["resourceVersion"] == str(state.revision)


@virtual_time
async def test_events_of_unknown_types_are_logged_and_passed_over(state):  # I5
    observed = Observed(state)
    async with observed.running():
        state.faults.inject(b'{"type":"PARTY","object":{"metadata":{"name":"a","resourceVersion":"999"}}}')
        await settle()
        put(state, "b")
        await settle()
        state.faults.end_streams()
        await settle()
    assert observed.changes == [("listed", ""), ("applied", "b")]
    assert [(entry["event"], entry["type"]) for entry in observed.logs] == [("watch_event_unknown", "PARTY")]
    assert observed.asked[-1]["resourceVersion"] == str(state.revision)


@virtual_time
async def test_a_watch_that_ends_at_its_time_is_opened_again_at_once_without_a_list(
    state,
):  # I7, TestReflectorWatchTimeout
    observed = Observed(state, settings=ReflectorSettings(shortest_watch=100, longest_watch=100))
    async with observed.running():
        for number in range(3):
            await asyncio.sleep(1)
            put(state, "a", k=str(number))  # or there would be no bookmarks
            await asyncio.sleep(99)
        await settle()
    assert observed.kinds == ["list", *["watch"] * 4]
    assert observed.logs == []
    assert observed.times[1:] == pytest.approx([0, 100, 200, 300])


@virtual_time
async def test_a_watch_that_ends_at_once_and_brings_nothing_is_a_failure(state):  # I7, VeryShortWatchError
    observed = Observed(state)
    async with observed.running():
        for _ in range(5):
            state.faults.end_streams()
            await settle()
            await asyncio.sleep(0.5)
    assert observed.times[2] >= 0.8
    assert len(observed.asked) <= 4
    assert "brought nothing" in observed.logs[0]["error"]


@virtual_time
async def test_a_stalled_stream_is_opened_again_at_the_last_version(state):  # I10
    observed = Observed(state)
    async with observed.running():
        put(state, "a")
        await settle()
        state.faults.stall_streams()
        put(state, "b")
        await asyncio.sleep(69)
        assert len(observed.asked) == 2
        await asyncio.sleep(2)
    assert observed.kinds == ["list", "watch", "watch"]
    assert observed.changes == [("listed", ""), ("applied", "a"), ("applied", "b")]
    assert observed.times[2] == pytest.approx(70)


@virtual_time
async def test_bookmarks_keep_a_quiet_stream_open(state):  # I10
    observed = Observed(
        state, namespace="default", settings=ReflectorSettings(shortest_watch=3600, longest_watch=3600)
    )
    async with observed.running():
        for number in range(10):
            put(state, "elsewhere", namespace="kube-system", k=str(number))
            await asyncio.sleep(60)
    assert observed.kinds == ["list", "watch"]


@virtual_time
async def test_a_cluster_in_which_nothing_happens_is_no_failure(state):
    # A real API server sends no bookmark either while nothing of a kind changes.
    observed = Observed(state)
    async with observed.running():
        await asyncio.sleep(600)
    assert observed.logs == []
    assert observed.kinds == ["list", *["watch"] * 9]
    assert [type(happening) for happening in observed.seen] == [Listed, *[Alive] * 9]


@virtual_time
async def test_the_end_of_the_reader_closes_the_stream(state):
    observed = Observed(state)
    async with observed.running():
        assert len(state.faults.streams) == 1
    await settle()
    assert state.faults.streams == set()


@virtual_time
async def test_one_seed_gives_one_history(state):
    histories = []
    for _ in range(2):
        again = ClusterState(clock=lambda: 0.0, rng=random.Random(1), settings=ClusterSettings())
        observed = Observed(again, seed=7)
        async with observed.running():
            start = asyncio.get_running_loop().time()
            for number in range(20):
                put(again, "a", k=str(number))
                (again.faults.cut_streams, again.faults.end_streams, again.faults.stall_streams)[number % 3]()
                await asyncio.sleep(30)
        histories.append(
            [(round(at - start, 6), kind) for at, kind in zip(observed.times, observed.kinds, strict=True)]
        )
    assert histories[0] == histories[1]
