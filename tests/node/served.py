"""A node's server on real sockets. A client at 127.0.0.5 stands for the pod at 10.244.0.5, as behind a network."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from podidentity.node.protocol import PodProtocol
from podidentity.node.server import Server
from podidentity.telemetry.serving import listen, serving
from tests.node.objects import Object, assigned, binding, identity, pod
from tests.node.town import Town, town, wall_clock
from tests.node.wire import Answer, Wire, connected

READY = (pod(), binding(), identity(), assigned())
POD, HOST = "127.0.0.5", "127.0.0.1"


@dataclass
class Served:
    port: int
    town: Town
    ahead: float = 0.0
    """Seconds that the server's wall clock is ahead."""

    async def ask(self, data: bytes, *, source: str = POD) -> Answer:
        """Send one request on a connection of its own."""
        async with self.connection(source) as wire:
            wire.send(data)
            return await wire.answer()

    def connection(self, source: str = POD) -> AbstractAsyncContextManager[Wire]:
        return connected(self.port, source=source)


def pods_network(app: ASGIApp) -> ASGIApp:
    """Give each address of 127.0.0.0/8 but the host's own the pod's address that it stands for."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        address, port = scope["client"]
        if address != HOST:
            scope["client"] = (address.replace("127.0.0.", "10.244.0."), port)
        await app(scope, receive, send)

    return wrapped


@asynccontextmanager
async def node(*objects: Object, header_required: bool = True, **settings: Any) -> AsyncIterator[Served]:
    listener = listen("127.0.0.1", 0, flag="--nmi-port")
    port = listener.getsockname()[1]
    async with town(*objects, sockets=True, **settings) as place:
        served = Served(port, place)
        server = Server(
            place.issuer,
            metadata_header_required=header_required,
            metrics=place.metrics,
            wall_clock=lambda: wall_clock() + served.ahead,
        )
        place.own(identity())
        app = pods_network(server.app)
        async with serving(app, [listener], drain=1.0, keep_alive=30, protocol=PodProtocol):
            yield served
