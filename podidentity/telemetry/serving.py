"""The HTTP servers of both modes: uvicorn on sockets that we opened, under signals that stay ours.

uvicorn's own `serve` raises a captured SIGTERM again after its stop, so nothing after it would run, and it ends the
process inside the library when a port is taken. Here a taken port is a ConfigurationError and a stop is a stop.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from podidentity.api.errors import ConfigurationError
from podidentity.telemetry.protocol import BoundedProtocol


def listen(address: str, port: int, *, flag: str) -> socket.socket:
    """Open a listening socket; `flag` is what the user can change when it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # With the protocol spelled out: asyncio sets TCP_NODELAY only then, and without it each answer takes 40 ms.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(1024)
    except OSError as error:
        opened.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program, or by another flag" if taken else f"cannot be used: {error.strerror}"
        raise ConfigurationError(f"{address}:{port} {reason} (flag {flag})") from error
    opened.setblocking(False)
    return opened


@asynccontextmanager
async def serving(
    app: Any,
    sockets: Sequence[socket.socket],
    *,
    drain: float,
    keep_alive: int,
    protocol: type[asyncio.Protocol] = BoundedProtocol,
) -> AsyncIterator[None]:
    """Serve an ASGI application for the length of the block.

    At its end new connections are refused and requests under way get `drain` seconds. Idle connections are closed
    after `keep_alive` seconds. `protocol` is the class of one connection.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # it would believe X-Forwarded-For from loopback: nothing trusts a header here
            server_header=False,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=max(1, int(drain)),
        )
    )
    # The three steps of uvicorn's `serve`, without its capture of signals.
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=list(sockets))
    loop = asyncio.create_task(server.main_loop(), name="uvicorn")
    try:
        yield
    finally:
        server.should_exit = True
        await loop
        await server.shutdown(sockets=list(sockets))
