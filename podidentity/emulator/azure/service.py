"""What every service of the emulated Azure has: an ASGI entry, a log of requests, a latency, and faults.

The order for each request: logged as it came, delayed, broken where a fault says so, otherwise answered. The log is
what tests read to prove that something was, or was not, asked.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

Span: TypeAlias = tuple[float, float]
"""Seconds from the least to the most; each use draws one value evenly in between."""

AT_ONCE: Span = (0.0, 0.0)


class Json(JSONResponse):
    """JSON with the content type that Azure's services send."""

    media_type = "application/json; charset=utf-8"


@dataclass(kw_only=True)
class LoggedRequest:
    """One request as it arrived; `status` follows when it was answered (None: not yet, or never)."""

    at: float
    """Time of the event loop, seconds."""
    method: str
    raw_path: str
    """The path as it was on the wire: nothing decoded, nothing normalised."""
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order of arrival."""
    client: str
    """Address of the peer, without its port; empty for a call inside the process."""
    base_url: str
    """Scheme and host that the caller used: `https://host:port`."""
    body: bytes
    status: int | None = None

    def header(self, name: str) -> str | None:
        """Return the first header of that (lower-case) name."""
        return next((value for header, value in self.headers if header == name), None)

    def parameter(self, name: str) -> str | None:
        """Return the first query parameter of that name."""
        return next((value for parameter, value in self.query if parameter == name), None)


@dataclass(frozen=True)
class Hang:
    """Fault: never answer; the request ends when its caller leaves."""


@dataclass(frozen=True)
class Delay:
    """Fault: answer as usual, this many seconds late."""

    seconds: float


Fault: TypeAlias = Response | Hang | Delay
FaultSource: TypeAlias = Callable[[LoggedRequest], Fault | None]


class Faults:
    """Which requests go wrong, and how. Sources are asked in the order they were added; the first fault counts."""

    def __init__(self) -> None:
        self._sources: list[FaultSource] = []

    def add(self, fault: Fault, *, method: str | None = None, path: str = "*", times: int | None = None) -> None:
        """Break the next `times` requests (None: all) of `method` (None: any) whose path matches the glob `path`.

        Paths are compared in lower case.
        """
        left = times

        def source(request: LoggedRequest) -> Fault | None:
            nonlocal left
            wanted = method in (None, request.method) and fnmatchcase(request.path.lower(), path.lower())
            if not wanted or left == 0:
                return None
            left = None if left is None else left - 1
            return fault

        self.add_source(source)

    def add_source(self, source: FaultSource) -> None:
        """Let `source` decide for each request: a simulation draws faults from its seed this way."""
        self._sources.append(source)

    def clear(self) -> None:
        """Forget every fault."""
        self._sources.clear()

    def pick(self, request: LoggedRequest) -> Fault | None:
        """Return the fault for this request, or None where it is to be answered."""
        return next((fault for source in self._sources if (fault := source(request)) is not None), None)


class Service(ABC):
    """An ASGI application with a log, a latency and faults; a subclass answers."""

    def __init__(self, *, rng: random.Random) -> None:
        self.log: list[LoggedRequest] = []
        self.faults = Faults()
        self.latency: Span = AT_ONCE
        self._rng = rng

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        body = await _read_body(receive)
        if body is None:
            return
        request = _logged(scope, body)
        self.log.append(request)
        response = await self.respond(request, receive)
        if response is None:
            return
        request.status = response.status_code
        await response(scope, receive, send)

    async def respond(self, request: LoggedRequest, receive: Receive) -> Response | None:
        """Wait the latency, then answer or break; None means that the caller left unanswered."""
        await self._wait(self._rng.uniform(*self.latency))
        match self.faults.pick(request):
            case Hang():
                await _until_disconnect(receive)
                return None
            case Delay(seconds):
                await self._wait(seconds)
            case Response() as broken:
                return broken
        return self.answer(request)

    @abstractmethod
    def answer(self, request: LoggedRequest) -> Response:
        """Return what the real service would."""

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)


async def _read_body(receive: Receive) -> bytes | None:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _logged(scope: Scope, body: bytes) -> LoggedRequest:
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    host = dict(headers).get("host", "localhost")
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    return LoggedRequest(
        at=asyncio.get_running_loop().time(),
        method=scope["method"],
        raw_path=raw_path.decode("latin-1"),
        path=scope["path"],
        query=tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers=headers,
        client=(scope.get("client") or ("", 0))[0],
        base_url=f"{scope.get('scheme', 'http')}://{host}",
        body=body,
    )
