"""Calls an ASGI application in the same event loop, without sockets: what the simulation and fast tests run on.

It behaves as a server behind a network does, which is where the errors are: the application goes on when its caller
has left, and one that returns in the middle of its answer has cut the connection.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from starlette.types import ASGIApp, Message, Scope

from podidentity.kube.errors import Unreachable, api_error
from podidentity.kube.transport import JSON, REQUEST_SECONDS

_CALLER = ("127.0.0.1", 50000)


class Cut(Exception):
    """The connection was closed in the middle of an answer, or before it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, with header names in lower case, and its body in pieces as they come."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncGenerator[bytes, None]

    async def read(self) -> bytes:
        """Return the whole body. Raises `Cut`."""
        return b"".join([piece async for piece in self.pieces])


class InProcess:
    """One application, called. `close` ends what still runs for callers who left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AsyncIterator[Answer]:
        """Send a request; the caller leaves at the end of the block. Raises `Cut`, TimeoutError."""
        exchange = _Exchange(body)
        task = asyncio.create_task(exchange.serve(self._app, _scope(method, path, query or {}, headers or {})))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                status, received = await exchange.head()
            async with aclosing(exchange.pieces()) as pieces:
                yield Answer(status, received, pieces)
        finally:
            exchange.gone.set()

    async def close(self) -> None:
        """Stop the applications' tasks that are left."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


class InProcessTransport:
    """The Kubernetes ring's `Transport` to a stand-in API server in the same process.

    While `refusing` is set nobody can connect, as while a server restarts.
    """

    def __init__(self, app: ASGIApp, *, token: str = "") -> None:
        self.refusing = False
        self._api = InProcess(app)
        self._headers = {"accept": JSON} | ({"authorization": f"Bearer {token}"} if token else {})

    async def close(self) -> None:
        """Stop what is left."""
        await self._api.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content: str = JSON,
    ) -> bytes:
        """Send one request and return the body of its success."""
        headers = self._headers | {"content-type": content}
        with _unreachable():
            async with (
                asyncio.timeout(REQUEST_SECONDS),
                self._answered(method, path, query, headers, body or b"") as answer,
            ):
                return await answer.read()

    @asynccontextmanager
    async def stream(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a GET and yield its body in pieces as they come, without a limit of time."""
        with _unreachable():
            async with self._answered("GET", path, query, self._headers, b"") as answer:
                yield _pieces(answer)

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, query: Mapping[str, str] | None, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        if self.refusing:
            raise Unreachable("the API server refuses connections")
        async with self._api.call(method, path, query=query, headers=headers, body=body) as answer:
            if answer.status >= 400:
                raise api_error(answer.status, await answer.read(), answer.headers.get("retry-after"))
            yield answer


async def _pieces(answer: Answer) -> AsyncIterator[bytes]:
    with _unreachable():
        async for piece in answer.pieces:
            yield piece


@contextmanager
def _unreachable() -> Iterator[None]:
    try:
        yield
    except (Cut, TimeoutError) as error:
        raise Unreachable(f"the API server does not answer: {error!r}") from error


class _Exchange:
    """One request and its answer, between the caller's task and the application's."""

    def __init__(self, body: bytes) -> None:
        self.gone = asyncio.Event()
        self._request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._answer: asyncio.Queue[Message | Exception] = asyncio.Queue()

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Run the application to its end. What it raises is raised at the caller."""
        try:
            await app(scope, self._receive, self._send)
            self._answer.put_nowait(Cut("the connection was closed"))
        except Exception as error:  # noqa: BLE001 - handed over
            self._answer.put_nowait(error)
        except asyncio.CancelledError:
            self._answer.put_nowait(Cut("the server stopped"))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Wait for the status and the headers."""
        message = await self._next()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]}
        return message["status"], headers

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes."""
        more = True
        while more:
            message = await self._next()
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def _next(self) -> Message:
        message = await self._answer.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def _receive(self) -> Message:
        if self._request:
            return self._request.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self.gone.is_set():
            self._answer.put_nowait(message)


def _scope(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Scope:
    raw = quote(path, safe="/%:@!$&'()*+,;=~")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": raw.encode(),
        "root_path": "",
        "query_string": urlencode(query).encode(),
        "headers": [
            (b"host", b"in-process"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ],
        "client": _CALLER,
        "server": ("in-process", 80),
    }
