import asyncio
import json

import pytest

from podidentity.emulator.inprocess import Cut, InProcess, InProcessTransport
from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.kube import errors
from tests.virtual_time import settle, virtual_time

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
WATCH = {"watch": "true", "resourceVersion": "1"}


async def mirror(scope, receive, send):
    """Answer with what was asked."""
    message = await receive()
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "body": message["body"].decode(),
    }
    await send({"type": "http.response.start", "status": 207, "headers": [(b"X-Kind", b"mirror")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


@pytest.fixture
def state() -> ClusterState:
    return ClusterState(clock=lambda: 0.0)


@pytest.fixture
def transport(state) -> InProcessTransport:
    return InProcessTransport(kubernetes_app(state))


@virtual_time
async def test_an_application_sees_the_request_as_a_server_would_hand_it_over():
    async with InProcess(mirror).call(
        "PUT", "/a b", query={"q": "1,2"}, headers={"X-Me": "you"}, body=b"text"
    ) as answer:
        said = json.loads(await answer.read())
    assert (answer.status, answer.headers) == (207, {"x-kind": "mirror"})
    assert (said["method"], said["path"], said["query"], said["body"]) == ("PUT", "/a b", "q=1%2C2", "text")
    assert said["headers"] == {"host": "in-process", "x-me": "you"}


@virtual_time
async def test_objects_are_written_and_read(transport):
    body = b'{"metadata":{"name":"a"}}'
    await transport.request("POST", CONFIG_MAPS, body=body, content="application/json")
    read = json.loads(await transport.request("GET", f"{CONFIG_MAPS}/a", content="application/json"))
    assert read["metadata"]["name"] == "a"
    await transport.close()


@virtual_time
async def test_refusals_are_the_same_errors_as_over_sockets(state, transport):
    with pytest.raises(errors.NotFound):
        await transport.request("GET", f"{CONFIG_MAPS}/none", content="application/json")
    state.faults.answer(429, retry_after=5)
    with pytest.raises(errors.Throttled) as raised:
        async with transport.stream(CONFIG_MAPS, query=WATCH):
            pass
    assert raised.value.retry_after == 5.0
    await transport.close()


@virtual_time
async def test_the_token_is_sent(state):
    state.tokens = {"good": "me"}
    await InProcessTransport(kubernetes_app(state), token="good").request("GET", CONFIG_MAPS)
    with pytest.raises(errors.ApiError, match="401"):
        await InProcessTransport(kubernetes_app(state), token="bad").request("GET", CONFIG_MAPS)


@virtual_time
async def test_a_lost_answer_is_unreachable_but_the_work_is_done(state, transport):
    state.faults.lose_answer()
    with pytest.raises(errors.Unreachable):
        await transport.request("POST", CONFIG_MAPS, body=b'{"metadata":{"name":"a"}}')
    await transport.request("GET", f"{CONFIG_MAPS}/a")
    await transport.close()


@virtual_time
async def test_a_server_goes_on_when_its_caller_has_left(state, transport):
    state.faults.delay(40)
    with pytest.raises(errors.Unreachable, match="TimeoutError"):
        await transport.request("POST", CONFIG_MAPS, body=b'{"metadata":{"name":"a"}}')
    assert asyncio.get_running_loop().time() == 30
    with pytest.raises(errors.NotFound):
        await transport.request("GET", f"{CONFIG_MAPS}/a")
    await asyncio.sleep(15)
    await transport.request("GET", f"{CONFIG_MAPS}/a")
    await transport.close()


@virtual_time
async def test_a_stream_comes_piece_by_piece_and_is_left_at_the_end_of_the_block(state, transport):
    async with transport.stream(CONFIG_MAPS, query=WATCH) as pieces:
        await transport.request("POST", CONFIG_MAPS, body=b'{"metadata":{"name":"a"}}')
        assert b'"name":"a"' in await anext(pieces)
        assert len(state.faults.streams) == 1
    await settle()
    assert state.faults.streams == set()
    await transport.close()


@virtual_time
async def test_a_cut_stream_is_unreachable_and_an_ended_one_is_not(state, transport):
    async with transport.stream(CONFIG_MAPS, query=WATCH) as pieces:
        state.faults.end_streams()
        assert [piece async for piece in pieces] == []
    async with transport.stream(CONFIG_MAPS, query=WATCH) as pieces:
        state.faults.cut_streams()
        assert await anext(pieces)
        with pytest.raises(errors.Unreachable):
            await anext(pieces)
    await transport.close()


@virtual_time
async def test_while_connections_are_refused_nobody_gets_in(state, transport):
    transport.refusing = True
    with pytest.raises(errors.Unreachable):
        await transport.request("GET", CONFIG_MAPS)
    with pytest.raises(errors.Unreachable):
        async with transport.stream(CONFIG_MAPS, query=WATCH):
            pass
    transport.refusing = False
    await transport.request("GET", CONFIG_MAPS)
    await transport.close()


@virtual_time
async def test_an_application_that_ends_without_an_answer_has_cut_the_connection():
    async def nothing(_scope, _receive, _send):
        return

    with pytest.raises(Cut):
        async with InProcess(nothing).call("GET", "/"):
            pass


@virtual_time
async def test_a_bug_of_an_application_is_not_hidden():
    async def broken(_scope, _receive, _send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await InProcessTransport(broken).request("GET", "/")


@virtual_time
async def test_the_close_of_a_transport_stops_what_is_left(state, transport):
    state.faults.delay(10_000)
    asking = asyncio.create_task(transport.request("GET", CONFIG_MAPS))
    await settle()
    await transport.close()
    with pytest.raises(errors.Unreachable, match="the server stopped"):
        await asking
    assert len(asyncio.all_tasks()) == 1
