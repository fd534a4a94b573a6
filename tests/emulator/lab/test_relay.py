import asyncio
import socket
import subprocess
import sys
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from podidentity.emulator.lab import netns, relay
from podidentity.emulator.lab.isolation import run_isolated
from podidentity.emulator.lab.network import Lab

SOON = 5.0


@pytest.fixture
async def upper_caser():
    """A server that answers all of a request in capitals once the client has ended its side."""

    async def serve(reader, writer):
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


async def start(target):
    listener = socket.create_server(("127.0.0.1", 0))
    return listener.getsockname(), asyncio.create_task(relay.relay(listener, *target))


async def stop(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_directions_are_copied_and_each_ends_on_its_own(upper_caser):
    address, task = await start(upper_caser)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"a" * 1_000_000)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), SOON) == b"A" * 1_000_000
    writer.close()
    await stop(task)


async def test_connections_do_not_wait_for_each_other(upper_caser):
    address, task = await start(upper_caser)
    _, idle = await asyncio.open_connection(*address)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"second")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), SOON) == b"SECOND"
    for each in (idle, writer):
        each.close()
    await stop(task)


async def test_a_target_that_is_down_ends_the_connection_and_the_relay_goes_on(unused_tcp_port):
    address, task = await start(("127.0.0.1", unused_tcp_port))
    for _ in range(2):
        reader, writer = await asyncio.open_connection(*address)
        assert await asyncio.wait_for(reader.read(), SOON) == b""
        writer.close()
    await stop(task)


GREETER = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as server, server.accept()[0] as accepted:
    accepted.sendall(b"the host says " + accepted.recv(100))
"""


@pytest.mark.netns
def test_a_server_of_the_host_s_network_is_presented_inside_a_lab():
    def main(outside):
        with Lab() as lab:
            lab.add_node("node", IPv4Address("10.240.0.4"))
            with closing(netns.socket_in(None, socket.AF_INET, str(lab.gateway), 6443)) as listener:
                outside.present(listener, *address)
            with closing(netns.connection_in("node", str(lab.gateway), 6443)) as client:
                client.sendall(b"hello")
                assert client.recv(100) == b"the host says hello"

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address, descriptor = server.getsockname(), server.fileno()
        command = [sys.executable, "-c", GREETER, str(descriptor)]
        with subprocess.Popen(command, pass_fds=[descriptor]) as greeter:
            assert run_isolated(main) == 0
            assert greeter.wait(SOON) == 0
