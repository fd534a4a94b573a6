import asyncio
import logging
import signal
import socket
import ssl

import aiohttp
import pytest

from podidentity.emulator.serving import serve, start
from podidentity.emulator.tls import CertificateAuthority


def _listener():
    return socket.create_server(("127.0.0.1", 0))


def _url(listener, scheme="http"):
    return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"


async def _answer(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def echo_client(scope, receive, send):
    await _answer(send, scope["client"][0].encode())


async def endless_stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
    await asyncio.Event().wait()


async def stubborn(scope, receive, send):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise


async def test_several_applications_are_served_in_one_loop():
    first, second = _listener(), _listener()
    urls = [_url(first), _url(second)]
    async with (
        serve(echo_client, sockets=[first]),
        serve(echo_client, sockets=[second]),
        aiohttp.ClientSession() as session,
    ):
        for url in urls:
            async with session.get(url) as response:
                assert await response.text() == "127.0.0.1"


async def test_one_application_is_served_on_several_sockets():
    listeners = [_listener(), _listener()]
    urls = [_url(listener) for listener in listeners]
    async with serve(echo_client, sockets=listeners), aiohttp.ClientSession() as session:
        for url in urls:
            async with session.get(url) as response:
                assert response.status == 200


async def test_answers_do_not_wait_for_delayed_acknowledgements():
    listener = _listener()
    url = _url(listener)
    loop = asyncio.get_running_loop()
    async with serve(echo_client, sockets=[listener]), aiohttp.ClientSession() as session:
        before = loop.time()
        for _ in range(10):
            async with session.get(url) as response:
                await response.read()
        # Ten answers with Nagle's algorithm take at least 0.36 s.
        assert loop.time() - before < 0.3


async def test_tls_is_served_with_the_given_certificate(tmp_path):
    authority = CertificateAuthority()
    certificate = authority.issue(tmp_path, "127.0.0.1")
    listener = _listener()
    url = _url(listener, "https")
    context = ssl.create_default_context(cadata=authority.pem.decode())
    async with (
        serve(echo_client, sockets=[listener], tls=certificate),
        aiohttp.ClientSession() as session,
        session.get(url, ssl=context) as response,
    ):
        assert response.status == 200


async def test_a_peer_on_loopback_cannot_claim_another_address_by_header():
    listener = _listener()
    url = _url(listener)
    async with (
        serve(echo_client, sockets=[listener]),
        aiohttp.ClientSession() as session,
        session.get(url, headers={"X-Forwarded-For": "10.244.9.9"}) as response,
    ):
        assert await response.text() == "127.0.0.1"
        assert "server" not in response.headers


@pytest.mark.parametrize("application", [endless_stream, stubborn])
async def test_a_stop_takes_less_than_a_second_with_requests_open(application, caplog):
    caplog.set_level(logging.INFO, "uvicorn")
    listener = _listener()
    url = _url(listener)
    server = await start(application, sockets=[listener])
    async with aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.get(url))
        await asyncio.sleep(0.05)
        assert server.connection_count == 1
        loop = asyncio.get_running_loop()
        before = loop.time()
        await server.stop()
        assert loop.time() - before < 1.0
        with pytest.raises(aiohttp.ClientError):
            await (await request).read()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_stop_lets_a_request_under_way_finish():
    asked = asyncio.Event()

    async def slow(scope, receive, send):
        asked.set()
        await asyncio.sleep(0.1)
        await _answer(send, b"done")

    listener = _listener()
    url = _url(listener)
    server = await start(slow, sockets=[listener])
    async with aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.get(url))
        await asked.wait()
        await server.stop()
        assert await (await request).text() == "done"


async def test_after_a_stop_nothing_listens():
    listener = _listener()
    address = listener.getsockname()
    server = await start(echo_client, sockets=[listener])
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


async def test_aborting_connections_cuts_streams_and_keeps_the_listener():
    listener = _listener()
    url = _url(listener)
    async with serve(endless_stream, sockets=[listener]) as server, aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert await response.content.readline() == b"first\n"
            server.abort_connections()
            with pytest.raises(aiohttp.ClientError):
                await response.content.readline()
        async with session.get(url) as again:
            assert again.status == 200


async def test_signal_handlers_of_the_process_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    async with serve(echo_client, sockets=[_listener()]):
        assert signal.getsignal(signal.SIGTERM) is before


async def test_a_socket_that_cannot_listen_is_an_error_of_the_caller():
    closed = _listener()
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await start(echo_client, sockets=[closed])
