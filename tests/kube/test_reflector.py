"""The rules of client-go's reflector, on virtual time against the stand-in API server; `I4` and so on name them."""

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import parse_qs

import msgspec
import pytest
import structlog

from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import ClusterSettings, ClusterState, kubernetes_app
from podidentity.kube.reflector import Alive, Applied, Gone, Listed, ReflectorSettings
from tests.kube.cluster import ConfigMap, cluster, is_list, is_watch, put, reflector, remove
from tests.virtual_time import settle, virtual_time

LIST = "/api/v1/configmaps"


class Observed:
    """An API server, a reflector on it, what it asked and what it said; on virtual time."""

    def __init__(self, state: ClusterState, *, app=None, **options) -> None:
        self.transport = InProcessTransport(self._recorded(app or kubernetes_app(state)))
        self.reflector = reflector(self.transport, **options)
        self.asked: list[dict[str, str]] = []
        self.times: list[float] = []
        self.seen: list[object] = []

    def _recorded(self, app):
        async def recorded(scope, receive, send):
            query = parse_qs(scope["query_string"].decode())
            self.asked.append({name: values[0] for name, values in query.items()})
            self.times.append(asyncio.get_running_loop().time())
            await app(scope, receive, send)

        return recorded

    @asynccontextmanager
    async def running(self):
        async def collect() -> None:
            async with aclosing(self.reflector.run()) as happenings:
                async for happening in happenings:
                    self.seen.append(happening)

        with structlog.testing.capture_logs() as logs:
            self.logs = logs
            task = asyncio.create_task(collect())
            await settle()
            yield
            if task.done():
                task.result()
            task.cancel()
            await asyncio.wait([task])
            await self.transport.close()

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What was seen of objects, in short."""
        return [change for happening in self.seen for change in short(happening)]

    @property
    def kinds(self) -> list[str]:
        """Of each request whether it listed or watched."""
        return ["watch" if "watch" in query else "list" for query in self.asked]


def short(happening: object) -> list[tuple[str, str]]:
    match happening:
        case Listed(items):
            return [("listed", ",".join(sorted(item.metadata.name for item in items)))]
        case Applied(item):
            return [("applied", item.metadata.name)]
        case Gone(key):
            return [("gone", key.name)]
    return []


def answering(state: ClusterState, bodies: Iterator[bytes]):
    """An API server that answers its first requests with these bodies."""
    real = kubernetes_app(state)

    async def app(scope, receive, send):
        if (body := next(bodies, None)) is None:
            await real(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.fixture
def state() -> ClusterState:
    return cluster()


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
async def test_a_sick_server_that_ends_every_watch_is_not_hammered(state):
    async def ending(scope, receive, send):
        if b"watch" not in scope["query_string"]:
            await kubernetes_app(state)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    observed = Observed(state, app=ending)
    async with observed.running():
        await asyncio.sleep(600)
    assert 10 < len(observed.asked) < 30


@virtual_time
async def test_too_old_a_version_lists_again_at_once(state):  # I8, I1
    observed = Observed(state)
    async with observed.running():
        await asyncio.sleep(10)
        state.faults.stall_streams()
        put(state, "a")
        state.compact()
        await asyncio.sleep(70)
        relisted_at = asyncio.get_running_loop().time()
        await settle()
    assert observed.kinds == ["list", "watch", "watch", "list", "watch"]
    assert observed.changes == [("listed", ""), ("listed", "a")]
    assert observed.times[3] <= relisted_at
    assert observed.logs == []


@virtual_time
async def test_too_old_a_version_told_by_the_status_lists_again_at_once(state):  # I8
    observed = Observed(state)
    state.faults.answer(410, match=is_watch)
    async with observed.running():
        await asyncio.sleep(3)
    assert observed.kinds == ["list", "watch", "list", "watch"]


@virtual_time
async def test_a_server_whose_lists_are_too_old_at_once_is_not_hammered(state):
    observed = Observed(state)
    state.faults.answer(410, match=is_watch, times=None)
    async with observed.running():
        await asyncio.sleep(600)
    assert 20 < len(observed.asked) < 60


@virtual_time
async def test_too_many_requests_waits_as_asked_and_watches_again(state):
    # I8, TestReflectorNoRelistOnTooManyRequests, TestBackoffOnTooManyRequests
    observed = Observed(state)
    state.faults.answer(429, match=is_watch, retry_after=9)
    async with observed.running():
        await asyncio.sleep(20)
    assert observed.kinds == ["list", "watch", "watch"]
    assert observed.times[2] == 9.0


@virtual_time
async def test_a_refused_connection_waits_and_watches_again(state):  # I8, TestReflectorListAndWatchInitConnBackoff
    put(state, "a")
    observed = Observed(state)
    async with observed.running():
        await asyncio.sleep(5)
        observed.transport.refusing = True
        state.faults.cut_streams()
        put(state, "b")
        await asyncio.sleep(100)
        observed.transport.refusing = False
        await asyncio.sleep(60)
    assert observed.kinds == ["list", "watch", "watch"]
    assert observed.changes == [("listed", "a"), ("applied", "b")]


@virtual_time
async def test_a_refused_connection_at_the_start_is_tried_until_it_works(state):
    observed = Observed(state)
    observed.transport.refusing = True
    async with observed.running():
        await asyncio.sleep(300)
        assert observed.seen == []
        observed.transport.refusing = False
        await asyncio.sleep(60)
    assert observed.changes == [("listed", "")]


@virtual_time
async def test_a_stream_cut_in_the_middle_of_a_line_is_watched_again_without_a_list(state):  # I7
    observed = Observed(state)
    async with observed.running():
        put(state, "a")
        await settle()
        state.faults.cut_streams()
        put(state, "b")
        await asyncio.sleep(2)
    assert observed.kinds == ["list", "watch", "watch"]
    assert observed.changes == [("listed", ""), ("applied", "a"), ("applied", "b")]


@pytest.mark.parametrize("status", [500, 403, 404])
@virtual_time
async def test_any_other_refusal_of_a_watch_waits_and_lists_again(state, status):  # I8
    observed = Observed(state)
    state.faults.answer(status, match=is_watch)
    async with observed.running():
        await asyncio.sleep(5)
    assert observed.kinds == ["list", "watch", "list", "watch"]
    assert 0.8 <= observed.times[2] < 1.6


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"{}",
        b"[]",
        b'{"type":"ADDED"}',
        b'{"type":"ADDED","object":5}',
        b'{"type":"ADDED","object":{"metadata":{"name":5}}}',
        b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}',
        b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError","message":"etcd is away"}}',
        b'{"type":"ERROR","object":{"code":"x"}}',
        b'{"type":"ERROR","object":null}',
    ],
)
@virtual_time
async def test_a_line_that_is_no_event_waits_and_lists_again(state, line):  # I8
    observed = Observed(state)
    async with observed.running():
        state.faults.inject(line)
        await asyncio.sleep(5)
    assert observed.kinds == ["list", "watch", "list", "watch"]
    assert 0.8 <= observed.times[2] < 1.6


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"metadata":{}}', b'{"metadata":{"resourceVersion":"1"},"items":5}', b"<html>", b'"\xff"'],
)
@virtual_time
async def test_a_list_that_is_none_is_tried_again(state, body):
    observed = Observed(state, app=answering(state, iter([body])))
    async with observed.running():
        await asyncio.sleep(5)
    assert observed.kinds == ["list", "list", "watch"]
    assert observed.logs[0]["event"] == "watch_failed"


@virtual_time
async def test_an_empty_list_may_be_null(state):
    bodies = iter([b'{"metadata":{"resourceVersion":"1"},"items":null}'])
    observed = Observed(state, app=answering(state, bodies))
    async with observed.running():
        pass
    assert observed.seen[0] == Listed([])
    assert observed.kinds == ["list", "watch"]


@virtual_time
async def test_waits_grow_while_trouble_lasts_and_are_short_again_after_two_quiet_minutes(state):  # I9
    observed = Observed(state)
    async with observed.running():
        await asyncio.sleep(5)
        observed.transport.refusing = True
        state.faults.cut_streams()
        await asyncio.sleep(300)
        observed.transport.refusing = False
        await asyncio.sleep(300)
        before = asyncio.get_running_loop().time()
        state.faults.cut_streams()
        await asyncio.sleep(3)
    waits = [entry["retry_in"] for entry in observed.logs]
    assert all(30 <= wait <= 60 for wait in waits[6:-1])
    assert observed.times[-1] - before < 1.7


@virtual_time
async def test_agents_do_not_come_back_in_step(state):  # I9
    firsts = set()
    for seed in range(5):
        observed = Observed(state, seed=seed)
        async with observed.running():
            state.faults.cut_streams()
            await asyncio.sleep(3)
        firsts.add(round(observed.times[2] - observed.times[1], 3))
    assert len(firsts) == 5


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
async def test_a_watch_that_the_server_never_answers_is_given_up(state):  # I10
    observed = Observed(state)
    state.faults.delay(3600, match=is_watch)
    async with observed.running():
        await asyncio.sleep(40)
    assert observed.kinds == ["list", "watch", "watch"]


@virtual_time
async def test_a_list_that_the_server_never_answers_is_given_up(state):
    observed = Observed(state)
    state.faults.delay(3600, match=is_list)
    async with observed.running():
        await asyncio.sleep(40)
    assert observed.changes == [("listed", "")]


@virtual_time
async def test_objects_that_cannot_be_read_are_left_out_and_said(state):
    put(state, "good")
    put(state, "bad")

    def decode(raw: msgspec.Raw) -> ConfigMap:
        item = msgspec.json.decode(raw, type=ConfigMap)
        if item.data.get("readable") == "no" or item.metadata.name == "bad":
            raise msgspec.ValidationError("Expected `object`, got `str`")
        return item

    observed = Observed(state, decode=decode)
    async with observed.running():
        put(state, "good", readable="no")
        await settle()
        put(state, "good", readable="yes")
        await settle()
    # Fail closed: the last state that could be read is not the state now.
    assert observed.changes == [("listed", "good"), ("gone", "good"), ("applied", "good")]
    assert [entry["event"] for entry in observed.logs] == ["object_unreadable"] * 2


@virtual_time
async def test_an_object_nested_deeper_than_the_stack_does_not_blind_anybody(state):
    put(state, "before")
    deep: object = "x"
    for _ in range(400):
        deep = [deep]
    put(state, "after")
    text = json.dumps(deep)

    async def nesting(scope, receive, send):
        async def deeper(message):
            if message.get("body"):
                body = message["body"].replace(b'"name":"after"', b'"name":"after","managedFields":%s' % nested)
                message = message | {"body": body}
            await send(message)

        await kubernetes_app(state)(scope, receive, deeper)

    nested = (text.replace('"x"', text.replace('"x"', text.replace('"x"', text)))).encode()
    observed = Observed(state, app=nesting)
    async with observed.running():
        put(state, "after", k="v")
        await settle()
    assert observed.changes == [("listed", "after,before"), ("applied", "after")]


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
