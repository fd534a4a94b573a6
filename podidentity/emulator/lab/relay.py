"""Makes a TCP server of the host's network reachable inside the lab, which has no way out.

The inside makes a listening socket and hands it to the process outside; that accepts its connections, because a
socket stays in the network where it was made, and joins each to a connection of its own.
"""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

_BUFFER_BYTES = 1 << 16
_MESSAGE_BYTES = 4096  # a host name and a port


class Outside:
    """The way out for a function that runs isolated."""

    def __init__(self, channel: socket.socket, holder: int) -> None:
        self._channel = channel
        self.holder = holder
        """PID, as the host sees it, of a process that is in the lab's user and mount namespaces."""

    def enter_command(self, network: str) -> str:
        """Return the beginning of a host's command line that runs the rest inside a node or a pod."""
        user = "" if os.geteuid() == 0 and not _in_user_namespace() else f"--target {self.holder} --user "
        keep = "--preserve-credentials " if user else ""
        return f"nsenter {user}{keep}--net=/proc/{self.holder}/root/run/netns/{network}"

    def present(self, listener: socket.socket, host: str, port: int) -> None:
        """Let what connects to this listening socket reach a server of the host's network, from now on.

        The socket is the caller's to close; the relay keeps a copy until the isolated function ends.
        """
        target = json.dumps({"host": host, "port": port}).encode()
        socket.send_fds(self._channel, [target], [listener.fileno()])


def _in_user_namespace() -> bool:
    """Whether root here is an ordinary user outside."""
    return Path("/proc/self/uid_map").read_text().split()[1:] != ["0", "4294967295"]


async def serve(channel: socket.socket) -> None:
    """Relay for each listener that comes through the channel; ends when the other end is closed."""
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    arrived: asyncio.Queue[tuple[bytes, list[int], int, Any]] = asyncio.Queue()
    loop.add_reader(channel, lambda: arrived.put_nowait(socket.recv_fds(channel, _MESSAGE_BYTES, 1)))
    try:
        async with asyncio.TaskGroup() as relays:
            while True:
                message, descriptors, _, _ = await arrived.get()
                if not message:
                    return
                target = json.loads(message)
                listener = socket.socket(fileno=descriptors[0])
                relays.create_task(relay(listener, target["host"], target["port"]), name="relay")
    finally:
        loop.remove_reader(channel)


async def relay(listener: socket.socket, host: str, port: int) -> None:
    """Join each connection that the listener accepts to a new one to host and port, until cancelled."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    with listener:
        async with asyncio.TaskGroup() as connections:
            while True:
                accepted, _ = await loop.sock_accept(listener)
                connections.create_task(_join(accepted, host, port), name="relayed connection")


async def _join(accepted: socket.socket, host: str, port: int) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(host, port)
    except OSError:
        accepted.close()  # it is too late to refuse the client: ending the connection is the nearest to it
        return
    near_reader, near_writer = await asyncio.open_connection(sock=accepted)
    try:
        async with asyncio.TaskGroup() as directions:
            directions.create_task(_copy(near_reader, far_writer))
            directions.create_task(_copy(far_reader, near_writer))
    except* OSError:
        pass  # one side has reset the connection: the other is closed like it
    finally:
        near_writer.close()
        far_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_BUFFER_BYTES):
        sink.write(data)
        await sink.drain()
    sink.write_eof()
