"""A reflector on virtual time, with everything that it asked and said."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import parse_qs

import structlog

from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.kube.reflector import Applied, Gone, Listed
from tests.kube.cluster import reflector
from tests.virtual_time import settle


class Observed:
    """An API server, a reflector on it, what it asked and what it said; on virtual time."""

    def __init__(self, state: ClusterState, *, app=None, **options) -> None:
        self.transport = InProcessTransport(self._recorded(app or kubernetes_app(state)))
        self.reflector = reflector(self.transport, **options)
        self.asked: list[dict[str, str]] = []
        self.times: list[float] = []
        self.seen: list[object] = []

    def _recorded(self, app):
        async def recorded(scope, receive, send):
            query = parse_qs(scope["query_string"].decode())
            self.asked.append({name: values[0] for name, values in query.items()})
            self.times.append(asyncio.get_running_loop().time())
            await app(scope, receive, send)

        return recorded

    @asynccontextmanager
    async def running(self):
        async def collect() -> None:
            async with aclosing(self.reflector.run()) as happenings:
                async for happening in happenings:
                    self.seen.append(happening)

        with structlog.testing.capture_logs() as logs:
            self.logs = logs
            task = asyncio.create_task(collect())
            await settle()
            yield
            if task.done():
                task.result()
            task.cancel()
            await asyncio.wait([task])
            await self.transport.close()

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What was seen of objects, in short."""
        return [change for happening in self.seen for change in short(happening)]

    @property
    def kinds(self) -> list[str]:
        """Of each request whether it listed or watched."""
        return ["watch" if "watch" in query else "list" for query in self.asked]


def short(happening: object) -> list[tuple[str, str]]:
    match happening:
        case Listed(items):
            return [("listed", ",".join(sorted(item.metadata.name for item in items)))]
        case Applied(item):
            return [("applied", item.metadata.name)]
        case Gone(key):
            return [("gone", key.name)]
    return []


def answering(state: ClusterState, bodies: Iterator[bytes]):
    """An API server that answers its first requests with these bodies."""
    real = kubernetes_app(state)

    async def app(scope, receive, send):
        if (body := next(bodies, None)) is None:
            await real(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app
