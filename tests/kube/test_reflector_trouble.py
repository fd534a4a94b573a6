"""What the reflector does when the server is ill, away, or says strange things; on virtual time."""

import asyncio
import json

import msgspec
import pytest

from podidentity.emulator.kubernetes import kubernetes_app
from podidentity.kube.reflector import Listed
from tests.kube.cluster import ConfigMap, is_list, is_watch, put
from tests.kube.observed import Observed, answering
from tests.virtual_time import settle, virtual_time


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
