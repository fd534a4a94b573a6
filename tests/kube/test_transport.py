import asyncio
import socket

import aiohttp
import pytest

from podidentity.emulator.serving import serve
from podidentity.kube import errors
from podidentity.kube import transport as transport_module
from podidentity.kube.transport import connect
from tests.kube.cluster import COLLECTION, is_watch, kubeconfig, put
from tests.kube.recording import Recorder

EVERYTHING = {"watch": "true", "resourceVersion": "1"}


@pytest.fixture
async def recorder(listener):
    recorder = Recorder()
    async with serve(recorder, sockets=[listener]):
        yield recorder


@pytest.fixture
async def to_recorder(recorder, url, tmp_path):
    transport = await connect(kubeconfig(tmp_path, url))
    yield transport
    await transport.close()


async def test_a_request_brings_the_body_of_its_answer(state, transport):
    put(state, "a")
    assert b'"name":"a"' in await transport.request("GET", COLLECTION)


async def test_a_request_says_what_it_sends_and_what_it_takes(recorder, to_recorder):
    await to_recorder.request("PATCH", "/x", query={"q": "a=b,c"}, body=b"{}", content="application/merge-patch+json")
    [asked] = recorder.asked
    assert (asked["method"], asked["path"], asked["query"], asked["body"]) == ("PATCH", "/x", "q=a%3Db,c", "{}")
    assert (asked["accept"], asked["content-type"]) == ("application/json", "application/merge-patch+json")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, errors.NotFound), (409, errors.Conflict), (410, errors.Expired), (429, errors.Throttled)],
)
async def test_a_refusal_is_typed_by_its_status(state, transport, status, expected):
    state.faults.answer(status)
    with pytest.raises(expected, match="injected") as raised:
        await transport.request("GET", COLLECTION)
    assert raised.value.code == status


async def test_any_other_refusal_is_an_api_error(state, transport):
    state.faults.answer(500)
    with pytest.raises(errors.ApiError, match="500 InternalError: injected"):
        await transport.request("GET", COLLECTION)


async def test_the_wish_of_the_server_to_be_left_alone_is_kept(state, transport):
    state.faults.answer(429, retry_after=7)
    with pytest.raises(errors.Throttled) as raised:
        await transport.request("GET", COLLECTION)
    assert raised.value.retry_after == 7.0


async def test_a_refusal_of_a_watch_is_typed_as_well(state, transport):
    state.faults.answer(429, match=is_watch, retry_after=3)
    with pytest.raises(errors.Throttled) as raised:
        async with transport.stream(COLLECTION, query=EVERYTHING):
            pass
    assert raised.value.retry_after == 3.0


async def test_a_page_of_a_proxy_is_an_error_too(state, transport):
    state.faults.answer(502, body=b"<html>Bad Gateway</html>")
    with pytest.raises(errors.ApiError, match="502 Unknown: <html>Bad Gateway</html>"):
        await transport.request("GET", COLLECTION)


async def test_a_redirect_is_not_followed(recorder, to_recorder):
    recorder.status, recorder.headers = 302, {"location": "/elsewhere"}
    await to_recorder.request("GET", "/here")
    assert [asked["path"] for asked in recorder.asked] == ["/here"]


async def test_a_lost_answer_is_unreachable(state, transport):
    state.faults.lose_answer()
    with pytest.raises(errors.Unreachable):
        await transport.request("GET", COLLECTION)


async def test_a_server_that_does_not_listen_is_unreachable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    transport = await connect(kubeconfig(tmp_path, f"http://127.0.0.1:{address[1]}"))
    with pytest.raises(errors.Unreachable, match=f"http://127.0.0.1:{address[1]} does not answer"):
        await transport.request("GET", COLLECTION)
    await transport.close()


async def test_a_name_that_nobody_knows_is_unreachable(tmp_path):
    transport = await connect(kubeconfig(tmp_path, "http://nowhere.invalid"))
    with pytest.raises(errors.Unreachable):
        await transport.request("GET", COLLECTION)
    await transport.close()


async def request(transport):
    await transport.request("GET", "/x")


async def open_stream(transport):
    async with transport.stream("/x", query={}):
        pass


@pytest.mark.parametrize("ask", [request, open_stream])
async def test_a_server_that_takes_the_request_and_says_nothing_is_unreachable(
    recorder, to_recorder, monkeypatch, ask
):
    monkeypatch.setattr(transport_module, "REQUEST_SECONDS", 0.05)
    recorder.silent = True
    with pytest.raises(errors.Unreachable):
        await ask(to_recorder)


async def test_a_stream_has_no_limit_of_time(state, transport, monkeypatch):
    monkeypatch.setattr(transport_module, "REQUEST_SECONDS", 0.05)
    async with transport.stream(COLLECTION, query=EVERYTHING) as pieces:
        await asyncio.sleep(0.1)
        put(state, "late")
        assert b'"late"' in await anext(pieces)


async def test_a_stream_that_is_cut_is_unreachable(state, transport):
    async with transport.stream(COLLECTION, query=EVERYTHING) as pieces:
        state.faults.cut_streams()
        assert await anext(pieces)
        with pytest.raises(errors.Unreachable):
            await anext(pieces)


async def test_leaving_a_stream_closes_its_connection(state, transport, server):
    async with transport.stream(COLLECTION, query=EVERYTHING):
        assert len(state.faults.streams) == 1
    async with asyncio.timeout(5):
        while state.faults.streams:
            await asyncio.sleep(0.01)


async def test_the_proxy_of_the_environment_is_not_for_the_api_server(recorder, url, tmp_path, environment):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        environment.delenv(name, raising=False)
    transport = await connect(kubeconfig(tmp_path, url))
    await transport.request("GET", "/x")
    await transport.close()
    assert len(recorder.asked) == 1


async def test_the_proxy_of_the_kubeconfig_is_used(recorder, url, tmp_path):
    transport = await connect(kubeconfig(tmp_path, "http://apiserver.invalid", **{"proxy-url": url}))
    await transport.request("GET", "/x")
    await transport.close()
    assert recorder.asked[0]["host"] == "apiserver.invalid"


async def test_no_error_of_the_http_library_gets_out(state, transport):
    for fault in (lambda: state.faults.answer(418), state.faults.lose_answer):
        fault()
        try:
            await transport.request("GET", COLLECTION)
        except aiohttp.ClientError:  # pragma: no cover
            pytest.fail("an error of aiohttp")
        except errors.KubernetesError:
            pass
