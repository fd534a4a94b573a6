"""Watches: the log of changes as a stream of JSON lines, until the time is up, the client goes or a fault strikes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import msgspec
from starlette.types import Receive, Scope, Send

from podidentity.emulator.kubernetes.errors import ApiError, Object
from podidentity.emulator.kubernetes.faults import Call, End, Stream
from podidentity.emulator.kubernetes.kinds import served_form
from podidentity.emulator.kubernetes.options import ListOptions
from podidentity.emulator.kubernetes.resources import Resource
from podidentity.emulator.kubernetes.state import Change, ClusterState, with_revision

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_HALF_A_LINE = b'{"type":"MODIFIED","object":{"kind":'


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """One watch request as an ASGI application; `show` turns an object into what the client accepts."""

    state: ClusterState
    resource: Resource
    namespace: str | None
    options: ListOptions
    call: Call
    show: Callable[[Object], Object]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send lines until the end; an aborted stream returns without finishing the response."""
        del scope
        stream = Stream(self.call, asyncio.Event())
        collection = self.state.collection(self.resource)
        collection.watchers.add(stream.wake)
        self.state.faults.streams.add(stream)
        try:
            async with asyncio.TaskGroup() as tasks:
                listener = tasks.create_task(_until_gone(receive, stream), name=f"watch {self.call.path}")
                await self._respond(stream, send)
                listener.cancel()
        finally:
            collection.watchers.discard(stream.wake)
            self.state.faults.streams.discard(stream)

    async def _respond(self, stream: Stream, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for line in self._lines(stream):
            await send({"type": "http.response.body", "body": line, "more_body": True})
        if stream.end is End.CLEANLY:
            await send({"type": "http.response.body", "body": b""})

    async def _lines(self, stream: Stream) -> AsyncIterator[bytes]:
        yield b""  # sends the headers now, as the real server does
        loop, settings = asyncio.get_running_loop(), self.state.settings
        deadline = loop.time() + (self.options.timeout or settings.watch_timeout)
        position, lines = self._first_lines()
        started_at = self.state.revision
        bookmark_at = self._next_bookmark(deadline)
        while stream.end is None:
            for line in lines:
                yield line
            for line in _drain(stream.injected):
                yield line
            if position is None or loop.time() >= deadline:
                stream.end = End.CLEANLY
                break
            if self.options.bookmarks and loop.time() >= bookmark_at:
                bookmark_at = self._next_bookmark(deadline)
                if position > started_at:  # a quiet cluster sends none, as the real watch cache
                    yield self._bookmark(position)
            await _wait(stream.wake, min(deadline, bookmark_at) if self.options.bookmarks else deadline)
            if stream.end is None:
                position, lines = self._new_lines(position, live=True)
        if stream.end is End.ABORTED:
            yield _HALF_A_LINE
        while stream.end is End.STALLED:
            await _wait(stream.wake, None)

    def _first_lines(self) -> tuple[int | None, list[bytes]]:
        if not self.options.starts_with_state:
            if self.options.revision:
                return self._new_lines(self.options.revision, live=False)
            return self.state.revision, []
        objects = self.state.collection(self.resource).objects
        chosen = [objects[key] for key in sorted(objects) if self._wants(objects[key])]
        lines = [self._line("ADDED", obj) for obj in chosen]
        if self.options.bookmarks:
            lines.append(self._bookmark(self.state.revision, ended=True))
        return self.state.revision, lines

    def _new_lines(self, position: int, *, live: bool) -> tuple[int | None, list[bytes]]:
        """Return the lines after a revision and the revision they lead to; None after an ERROR, which ends it."""
        try:
            changes = self.state.collection(self.resource).since(position, live=live)
        except ApiError as error:
            return None, [_encode("ERROR", error.status)]
        lines = [line for change in changes for line in self._event(change)]
        return max(position, self.state.revision), lines

    def _event(self, change: Change) -> Iterator[bytes]:
        """Translate a change: objects that begin or cease to match the selector are added or deleted."""
        before = change.before if change.before is not None and self._wants(change.before) else None
        after = change.after if change.after is not None and self._wants(change.after) else None
        if after is not None:
            yield self._line("ADDED" if before is None else "MODIFIED", after)
        elif before is not None:
            yield self._line("DELETED", with_revision(before, change.revision))

    def _wants(self, obj: Object) -> bool:
        inside = self.namespace is None or obj["metadata"].get("namespace") == self.namespace
        return inside and self.options.selects(obj)

    def _line(self, kind: str, obj: Object) -> bytes:
        return _encode(kind, self.show(served_form(self.resource, obj)))

    def _bookmark(self, revision: int, *, ended: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if ended:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        kind = {"kind": self.resource.kind, "apiVersion": self.resource.api_version}
        return _encode("BOOKMARK", kind | {"metadata": metadata})

    def _next_bookmark(self, deadline: float) -> float:
        """As `nextBookmarkTime` of the real watch cache: each minute, and shortly before the end."""
        now, settings = asyncio.get_running_loop().time(), self.state.settings
        regular, last = now + settings.bookmark_interval, deadline - settings.bookmark_before_end
        return last if now < last < regular else regular


def _encode(kind: str, obj: Object) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def _drain(lines: list[bytes]) -> list[bytes]:
    drained = [line.rstrip(b"\n") + b"\n" for line in lines]
    lines.clear()
    return drained


async def _wait(event: asyncio.Event, deadline: float | None) -> None:
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()


async def _until_gone(receive: Receive, stream: Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.stop(End.GONE)
