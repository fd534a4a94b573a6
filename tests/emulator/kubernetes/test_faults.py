import asyncio

import aiohttp
import pytest

from podidentity.emulator.kubernetes import Call, ClusterState
from podidentity.emulator.kubernetes.incoming import WriteOptions
from podidentity.emulator.kubernetes.resources import CONFIG_MAPS as CONFIG_MAP_RESOURCE
from podidentity.emulator.kubernetes.resources import Target
from podidentity.emulator.kubernetes.writes import create
from tests.contract.client import Client

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def write(state: ClusterState, body: dict[str, dict[str, str]]) -> None:
    create(state, Target(CONFIG_MAP_RESOURCE, "default"), body, WriteOptions())


def named(name: str) -> dict[str, dict[str, str]]:
    return {"metadata": {"name": name}}


async def test_the_next_answers_are_the_error_and_then_all_is_well(state: ClusterState, api: Client):
    state.faults.answer(429, times=2, retry_after=7)
    first, second, third = [await api.get(CONFIG_MAPS) for _ in range(3)]
    assert (first.status, first.headers["Retry-After"], first.body["reason"]) == (429, "7", "TooManyRequests")
    assert (second.status, third.status) == (429, 200)


async def test_faults_hit_only_what_they_match(state: ClusterState, api: Client):
    state.faults.answer(410, times=None, match=lambda call: call.method == "GET" and not call.is_watch)
    assert (await api.post(CONFIG_MAPS, named("a"))).status == 201
    answer = await api.get(CONFIG_MAPS)
    assert (answer.status, answer.body["reason"]) == (410, "Expired")
    async with api.watch(CONFIG_MAPS) as stream:
        assert stream.status == 200
    state.faults.clear()
    assert (await api.get(CONFIG_MAPS)).status == 200


async def test_a_proxy_in_between_answers_in_its_own_words(state: ClusterState, api: Client):
    state.faults.answer(502, body=b"<html>")
    answer = await api.get(CONFIG_MAPS)
    assert (answer.status, answer.body) == (502, "<html>")


async def test_a_delay_waits_before_the_work(state: ClusterState, api: Client):
    state.faults.delay(0.1)
    begin = asyncio.get_running_loop().time()
    await api.get(CONFIG_MAPS)
    assert asyncio.get_running_loop().time() - begin >= 0.1


async def test_a_lost_answer_is_work_done(state: ClusterState, api: Client):
    state.faults.lose_answer(match=lambda call: call.method == "POST")
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.post(CONFIG_MAPS, named("a"))
    assert (await api.get(CONFIG_MAPS)).names == ["a"]


async def test_cut_streams_break_in_the_middle_of_a_line(state: ClusterState, session: aiohttp.ClientSession):
    async with session.get(CONFIG_MAPS, params={"watch": "1"}) as answer:
        state.faults.cut_streams()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_ended_streams_end_after_a_whole_line(state: ClusterState, api: Client):
    await api.post(CONFIG_MAPS, named("a"))
    async with api.watch(CONFIG_MAPS) as stream:
        await stream.take(1)
        state.faults.end_streams()
        assert await stream.rest() == []


async def test_stalled_streams_neither_speak_nor_end(state: ClusterState, api: Client):
    async with api.watch(CONFIG_MAPS, timeoutSeconds=1) as stream:
        state.faults.stall_streams()
        await api.post(CONFIG_MAPS, named("a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await stream.take(1)


async def test_only_the_streams_that_match_are_hit(state: ClusterState, api: Client):
    async with api.watch(CONFIG_MAPS) as one, api.watch("/api/v1/nodes") as other:
        state.faults.end_streams(lambda call: call.path == "/api/v1/nodes")
        assert await other.rest() == []
        await api.post(CONFIG_MAPS, named("a"))
        assert len(await one.take(1)) == 1


async def test_injected_lines_come_between_events(state: ClusterState, session: aiohttp.ClientSession):
    async with session.get(CONFIG_MAPS, params={"watch": "1"}) as answer:
        state.faults.inject(b"{garbage")
        assert await answer.content.readline() == b"{garbage\n"


async def test_a_compaction_leaves_open_watches_alone(state: ClusterState, api: Client):
    async with api.watch(CONFIG_MAPS) as stream:
        await api.post("/api/v1/nodes", named("moves-the-revision"))
        state.faults.compact()
        await api.post(CONFIG_MAPS, named("a"))
        [event] = await stream.take(1)
    assert event["type"] == "ADDED"


async def test_a_watch_that_missed_what_was_compacted_is_told_so(state: ClusterState, api: Client):
    async with api.watch(CONFIG_MAPS) as stream:
        write(state, named("a"))
        state.faults.compact()  # before the watch gets to run
        [event] = await stream.rest()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_after_a_restart_streams_are_gone_and_revisions_go_on(
    state: ClusterState, session: aiohttp.ClientSession
):
    before = state.revision
    async with session.get(CONFIG_MAPS, params={"watch": "1"}) as answer:
        state.faults.restart()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    async with session.post(CONFIG_MAPS, json=named("a")) as answer:
        assert (await answer.json())["metadata"]["resourceVersion"] == str(before + 1)


async def test_clients_that_leave_are_forgotten(state: ClusterState, api: Client):
    async with api.watch(CONFIG_MAPS):
        assert [stream.call.path for stream in state.faults.streams] == [CONFIG_MAPS]
    for _ in range(100):  # the server hears of it within some turns of the loop
        await asyncio.sleep(0.01)
        if not state.faults.streams:
            return
    pytest.fail("the stream is still there")


def test_rules_add_up_and_are_used_up_one_by_one(state: ClusterState):
    state.faults.delay(1.0, times=None)
    state.faults.delay(2.0)
    state.faults.lose_answer()
    call = Call("GET", "/", {})
    first, second = state.faults.plan(call), state.faults.plan(call)
    assert (first.delay, first.lose_answer) == (3.0, True)
    assert (second.delay, second.lose_answer) == (1.0, False)
