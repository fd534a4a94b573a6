"""Serve ASGI applications on sockets that are already open, several of them in one event loop.

uvicorn's own `Server.serve` captures signals and raises them again after the stop, and turns a failed bind into
`sys.exit(3)`. Only its `startup` and `main_loop` are used here, on sockets that the caller opened: a failure is an
exception in the caller, and signals stay with whoever runs the loop.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from podidentity.emulator.tls import Certificate

_log = logging.getLogger(__name__)

_FINISH_SECONDS = 0.2
"""What a request under way gets to finish at a stop: an answer is sent within that, a stream never ends anyway."""

_CLOSE_SECONDS = 0.3
"""What an application gets to notice that its connection is gone before its task is cancelled."""

_KEEP_ALIVE_SECONDS = 75
"""Longer than any client here keeps an idle connection (aiohttp 15 s, Go 90 s but it retries): no races at 5 s."""


class RunningServer:
    """One application being served. Made by `start`; `stop` ends it and closes the sockets."""

    def __init__(self, server: "_Server", sockets: list[socket.socket]) -> None:
        self._server = server
        self._sockets = sockets
        self._loop = asyncio.create_task(server.main_loop(), name="uvicorn main loop")

    @property
    def connection_count(self) -> int:
        """How many connections are open at this moment."""
        return len(self._server.server_state.connections)

    def abort_connections(self) -> None:
        """Reset every open connection, without a TLS or HTTP goodbye; the listeners stay open."""
        self._server.abort_connections()

    async def stop(self) -> None:
        """Close the listeners, let short requests finish, cut what is left. Takes less than a second."""
        # Cancelled, not asked: uvicorn looks only every 0.1 s whether it should exit.
        self._loop.cancel()
        await asyncio.wait([self._loop])
        await self._server.shutdown(sockets=self._sockets)


async def start(app: ASGIApp, *, sockets: Sequence[socket.socket], tls: Certificate | None = None) -> RunningServer:
    """Serve `app` on bound sockets (which the server then owns), with TLS where `tls` is given.

    Returns when connections are accepted. Raises OSError where a socket cannot listen, ssl.SSLError for a bad key.
    """
    server = _Server(_config(app, tls))
    owned = list(sockets)
    for listener in owned:
        _send_at_once(listener)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=owned)
    return RunningServer(server, owned)


@asynccontextmanager
async def serve(
    app: ASGIApp, *, sockets: Sequence[socket.socket], tls: Certificate | None = None
) -> AsyncIterator[RunningServer]:
    """Serve `app` for the length of a `with` block; see `start`."""
    running = await start(app, sockets=sockets, tls=tls)
    try:
        yield running
    finally:
        await running.stop()


def _send_at_once(listener: socket.socket) -> None:
    """Switch Nagle's algorithm off for every connection that `listener` will accept.

    asyncio does that itself only where the socket was made with an explicit IPPROTO_TCP; without it each answer of
    two writes (head and body) waits 40 ms for the peer's delayed acknowledgement.
    """
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _config(app: ASGIApp, tls: Certificate | None) -> uvicorn.Config:
    return uvicorn.Config(
        _ending_quietly(app),
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        # A stand-in must see the peer's address itself, also when that peer claims another.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls.server_context(),
    )


def _ending_quietly(app: ASGIApp) -> ASGIApp:
    """Wrap `app` so that uvicorn does not log a traceback for a request that we cancel at the stop."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            _log.debug("request cancelled at the stop", extra={"path": scope.get("path")})

    return wrapped


class _Server(uvicorn.Server):
    """uvicorn's server with a stop that never waits for streams."""

    def abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for opened in sockets or []:
            opened.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_for_requests(_FINISH_SECONDS)
        self.abort_connections()
        await self._wait_for_requests(_CLOSE_SECONDS)
        for request in list(self.server_state.tasks):
            request.cancel()
        await self._wait_for_requests(_CLOSE_SECONDS)

    async def _wait_for_requests(self, seconds: float) -> None:
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=seconds)
