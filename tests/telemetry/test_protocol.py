"""What a connection may cost, whoever opens it: pods reach the probe and metrics ports, too."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry

from podidentity.telemetry import protocol
from podidentity.telemetry.endpoints import Endpoints
from podidentity.telemetry.serving import listen, serving

REQUEST = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = listen("127.0.0.1", 0, flag="--http-probe-port")
    app = Endpoints(registry=CollectorRegistry(), ready=lambda: "", active=lambda: True)
    async with serving(app, [listener], drain=1.0, keep_alive=30):
        yield int(listener.getsockname()[1])


async def connection(
    stack: AsyncExitStack, port: int, source: str = "127.0.0.5"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    stack.callback(writer.close)
    return reader, writer


async def answered(stack: AsyncExitStack, port: int, source: str) -> bool:
    reader, writer = await connection(stack, port, source)
    writer.write(REQUEST)
    try:
        async with asyncio.timeout(10):
            return (await reader.read(100)).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


async def test_an_endless_head_is_cut_on_every_listener(port: int):
    async with AsyncExitStack() as stack:
        reader, writer = await connection(stack, port)
        writer.write(REQUEST.rstrip() + b"\r\nx: " + b"y" * 40_000)
        assert (await reader.read(100)).startswith(b"HTTP/1.1 400")


async def test_an_address_with_too_many_connections_gets_no_more_and_others_do(
    port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "_LARGEST_SHARE", 5)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            assert await answered(stack, port, "127.0.0.5")
        assert not await answered(stack, port, "127.0.0.5")
        assert await answered(stack, port, "127.0.0.6")
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        while not await answered(stack, port, "127.0.0.5"):  # closed connections count no more
            await asyncio.sleep(0.01)


async def test_all_together_leave_descriptors_to_the_program(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "_most_connections", lambda: 3)
    async with AsyncExitStack() as stack:
        for number in range(3):
            assert await answered(stack, port, f"127.0.0.{number + 5}")
        assert not await answered(stack, port, "127.0.0.9")


def test_the_descriptor_limit_is_raised_as_far_as_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        protocol.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
