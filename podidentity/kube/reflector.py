"""List and watch one collection for ever, as an async generator of what happened.

    Listed     the whole collection, all pages; replaces whatever was known
    Applied    one object was created or changed
    Gone       one object was deleted
    Alive      a watch that was opened, a bookmark: nothing changed, but the server lives and knows where we are

The rules are client-go's: a stream that ends is watched again from the last resourceVersion without a list; 410
lists again; 429, a refused connection and a cut stream wait and watch again; whatever else is strange waits and
lists again; nothing is fatal. Lists are quorum reads in pages (as kube-rs does it), so a list never goes back in
time. A stream that is silent for longer than bookmarks allow is opened anew: HTTP/1.1 has no ping. (A cluster in
which nothing of a kind changes sends no bookmarks either, so this is not a failure.)
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
import structlog

from podidentity.api.decoding import decode
from podidentity.api.meta import Key, Meta
from podidentity.kube.backoff import Backoff, BackoffSettings
from podidentity.kube.errors import (
    ApiError,
    Expired,
    KubernetesError,
    MalformedAnswer,
    Throttled,
    Unreachable,
    api_error,
)
from podidentity.kube.lines import lines
from podidentity.kube.resources import Resource
from podidentity.kube.store import Record
from podidentity.kube.transport import JSON, Transport

T = TypeVar("T", bound=Record)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorSettings:
    """Numbers of the loop; seconds unless said."""

    page: int = 500
    """Objects a page of a list: client-go's; bounds the memory of a list of any size."""
    shortest_watch: float = 300.0
    longest_watch: float = 600.0
    """The server ends a watch at a random time between the two, which spreads reconnects."""
    silence: float = 70.0
    """Bookmarks come each minute; a stream without a byte for longer may be dead, whatever TCP believes."""
    short_watch: float = 1.0
    """A watch that ends sooner and brought nothing counts as a failure, else a sick server is hammered."""
    backoff: BackoffSettings = field(default_factory=BackoffSettings)


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """The whole collection."""

    items: list[T]


@dataclass(frozen=True, slots=True)
class Applied(Generic[T]):
    """One object as it is now."""

    item: T


@dataclass(frozen=True, slots=True)
class Gone:
    """One object that is no more."""

    key: Key


@dataclass(frozen=True, slots=True)
class Alive:
    """The stream lives."""


Happening = Listed[T] | Applied[T] | Gone | Alive


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[T]):
    """What to watch: a resource, a part of it, and how one object is decoded from its bytes."""

    resource: Resource
    decode: Callable[[msgspec.Raw], T]
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""

    @property
    def path(self) -> str:
        """The collection's path."""
        return self.resource.path(self.namespace)

    @property
    def query(self) -> dict[str, str]:
        """The selectors as query parameters."""
        selectors = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in selectors.items() if value}


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    cont: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None
    """Go writes an empty list as null in places."""


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()


_PAGE = msgspec.json.Decoder(_Page)
_EVENT = msgspec.json.Decoder(_Event)
_VERSIONED = msgspec.json.Decoder(_Versioned)


class Reflector(Generic[T]):
    """One collection, followed. Clock and randomness are injected; the clock must be the loop's kind of time."""

    def __init__(
        self,
        transport: Transport,
        source: Source[T],
        *,
        settings: ReflectorSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._transport = transport
        self._source = source
        self._settings = settings or ReflectorSettings()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._version = ""
        """The resourceVersion to watch from; empty: list first. Opaque: never compared, only handed back."""

    async def run(self) -> AsyncGenerator[Happening[T], None]:
        """Yield what happens, for ever."""
        clock = asyncio.get_running_loop().time
        backoff = Backoff(clock, self._rng, self._settings.backoff)
        while True:
            wait: float | None = None
            fresh = not self._version
            try:
                if fresh:
                    yield Listed(await self._list())
                async with aclosing(self._watch()) as happenings:
                    async for happening in happenings:
                        yield happening
            except Expired:
                self._version = ""
                if fresh:  # a list that is too old at once: the server is ill, do not hammer it
                    wait = backoff.step()
            except KubernetesError as error:
                wait = backoff.step(error.retry_after if isinstance(error, ApiError) else None)
                if not isinstance(error, Throttled | Unreachable):
                    self._version = ""
                _log.warning("watch_failed", path=self._source.path, error=str(error), retry_in=round(wait, 1))
            if wait is not None:
                await asyncio.sleep(wait)

    async def _list(self) -> list[T]:
        """Read all pages. When the pages expire under us, read everything at once, as client-go does."""
        items: list[T] = []
        query = {**self._source.query, "limit": str(self._settings.page)}
        while True:
            try:
                page = await self._page(query)
            except Expired:
                if "limit" not in query:
                    raise
                query, items = dict(self._source.query), []
                continue
            items += [item for item in map(self._decoded, page.items or ()) if item is not None]
            if not page.metadata.cont:
                self._version = page.metadata.resource_version
                return items
            query["continue"] = page.metadata.cont

    async def _page(self, query: Mapping[str, str]) -> _Page:
        body = await self._transport.request("GET", self._source.path, query=query, content=JSON)
        try:
            page = decode(_PAGE, body)
        except msgspec.DecodeError as error:
            raise MalformedAnswer(f"the list of {self._source.path} cannot be read: {error}") from error
        if not page.metadata.resource_version:
            raise MalformedAnswer(f"the list of {self._source.path} has no resourceVersion")
        return page

    async def _watch(self) -> AsyncGenerator[Happening[T], None]:
        settings, clock = self._settings, asyncio.get_running_loop().time
        query = {
            **self._source.query,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._rng.uniform(settings.shortest_watch, settings.longest_watch))),
        }
        brought_something = False
        async with self._transport.stream(self._source.path, query=query) as pieces:
            opened = clock()
            yield Alive()
            async with aclosing(lines(pieces, silence=settings.silence)) as whole:
                async for line in whole:
                    brought_something = True
                    yield self._happening(line)
        if not brought_something and clock() - opened < settings.short_watch:
            raise Unreachable("the watch ended at once and brought nothing")

    def _happening(self, line: bytes) -> Happening[T]:
        """Understand one line, and remember the resourceVersion it brings."""
        try:
            event = decode(_EVENT, line)
            if event.type == "ERROR":
                raise api_error(0, event.object)
            version = decode(_VERSIONED, event.object).metadata
        except msgspec.DecodeError as error:
            raise MalformedAnswer(f"a line of the watch of {self._source.path} cannot be read: {error}") from error
        happening: Happening[T] = Alive()
        match event.type:
            case "ADDED" | "MODIFIED":
                item = self._decoded(event.object)
                # What can no longer be read must not live on in its last readable state.
                happening = Gone(version.key) if item is None else Applied(item)
            case "DELETED":
                happening = Gone(version.key)
            case "BOOKMARK":
                pass
            case unknown:
                _log.warning("watch_event_unknown", path=self._source.path, type=unknown[:40])
                return happening
        self._version = version.resource_version or self._version
        return happening

    def _decoded(self, raw: msgspec.Raw) -> T | None:
        """Decode one object, or say why it is left out: one bad object never stops the rest."""
        try:
            return self._source.decode(raw)
        except msgspec.DecodeError as error:
            _log.warning("object_unreadable", path=self._source.path, error=str(error))
            return None
