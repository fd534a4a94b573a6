import asyncio
import signal
import socket

import aiohttp
import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.telemetry.serving import listen, serving


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def url_of(listener):
    return "http://{}:{}/".format(*listener.getsockname()[:2])


def test_a_taken_port_names_its_flag():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} is taken .*\(flag --http-probe-port\)"):
            listen("127.0.0.1", port, flag="--http-probe-port")


def test_an_address_that_is_not_ours_is_said():
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:8080 cannot be used: .*--prometheus-port"):
        listen("192.0.2.1", 8080, flag="--prometheus-port")


async def test_a_request_is_answered_on_every_socket():
    listeners = [listen("127.0.0.1", 0, flag="x") for _ in range(2)]
    async with serving(hello, listeners, drain=1, keep_alive=5), aiohttp.ClientSession() as session:
        for listener in listeners:
            async with session.get(url_of(listener)) as answer:
                assert await answer.text() == "hello"
                assert "server" not in answer.headers


async def test_answers_are_sent_at_once():
    listener = listen("127.0.0.1", 0, flag="x")
    assert listener.proto == socket.IPPROTO_TCP
    async with serving(hello, [listener], drain=1, keep_alive=5), aiohttp.ClientSession() as session:
        before = asyncio.get_running_loop().time()
        for _ in range(10):
            async with session.get(url_of(listener)) as answer:
                await answer.read()
        # With Nagle's algorithm each of them would wait 40 ms for the other side.
        assert asyncio.get_running_loop().time() - before < 0.3


async def test_a_request_under_way_is_finished_at_the_stop():
    started = asyncio.Event()

    async def slow(scope, receive, send):
        started.set()
        await asyncio.sleep(0.3)
        await hello(scope, receive, send)

    listener = listen("127.0.0.1", 0, flag="x")
    url = url_of(listener)
    async with aiohttp.ClientSession() as session:
        async with serving(slow, [listener], drain=5, keep_alive=5):
            answer = asyncio.create_task(session.get(url))
            await started.wait()
        async with await answer as finished:
            assert await finished.text() == "hello"
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_a_request_that_never_ends_does_not_hold_the_stop_for_longer_than_the_drain():
    started = asyncio.Event()

    async def hanging(scope, receive, send):
        started.set()
        await asyncio.Event().wait()

    listener = listen("127.0.0.1", 0, flag="x")
    async with aiohttp.ClientSession() as session:
        async with serving(hanging, [listener], drain=1, keep_alive=5):
            answer = asyncio.create_task(session.get(url_of(listener)))
            await started.wait()
            stopping = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopping < 3
        async with await answer as refused:
            assert refused.status == 500


async def test_idle_connections_do_not_hold_the_stop():
    listener = listen("127.0.0.1", 0, flag="x")
    async with aiohttp.ClientSession() as session:
        async with serving(hello, [listener], drain=5, keep_alive=60):
            async with session.get(url_of(listener)) as answer:
                await answer.read()
            stopping = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopping < 1


async def test_signals_stay_with_the_caller():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    async with serving(hello, [listen("127.0.0.1", 0, flag="x")], drain=1, keep_alive=5):
        assert {number: signal.getsignal(number) for number in before} == before


async def test_a_claim_of_another_address_is_not_believed():
    clients = []

    async def look(scope, receive, send):
        clients.append(scope["client"][0])
        await hello(scope, receive, send)

    listener = listen("127.0.0.1", 0, flag="x")
    claim = {"X-Forwarded-For": "10.0.0.9"}
    async with serving(look, [listener], drain=1, keep_alive=5), aiohttp.ClientSession(headers=claim) as session:
        await (await session.get(url_of(listener))).read()
    assert clients == ["127.0.0.1"]


async def test_an_ipv6_listener_leaves_ipv4_alone():
    with listen("::1", 0, flag="x") as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
