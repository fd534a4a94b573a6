"""A collection of the API server kept in memory: reflector, store and handlers in one.

Handlers are told after the store and its indexes have changed, one change at a time, in order for each object. They
must return at once: they mark keys as dirty and nothing else.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Generic, TypeVar

from podidentity.kube.reflector import Applied, Gone, Happening, Listed, Reflector
from podidentity.kube.store import Change, Indexer, Record, Store

T = TypeVar("T", bound=Record)
Handler = Callable[[Change[T]], None]


class Informer(Generic[T]):
    """The cache of one collection. Run `run()` in a task; read `store` from anywhere in the same event loop."""

    def __init__(self, reflector: Reflector[T], indexers: Mapping[str, Indexer[T]] | None = None) -> None:
        self.store: Store[T] = Store(indexers)
        self._reflector = reflector
        self._handlers: list[Handler[T]] = []
        self._synced = asyncio.Event()
        self._heard_at = float("-inf")

    @property
    def has_synced(self) -> bool:
        """Whether the first list is in the store and the handlers know of it."""
        return self._synced.is_set()

    @property
    def age(self) -> float:
        """Seconds since the API server last showed a sign of life on this collection; infinite before the first."""
        return asyncio.get_running_loop().time() - self._heard_at

    async def wait_synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def add_handler(self, handler: Handler[T]) -> None:
        """Tell `handler` of every change from now on, and of what is there already as if it were new."""
        self._handlers.append(handler)
        for item in list(self.store):
            handler(Change(item.metadata.key, None, item))

    async def run(self) -> None:
        """Follow the API server for ever."""
        async with aclosing(self._reflector.run()) as happenings:
            async for happening in happenings:
                self._heard_at = asyncio.get_running_loop().time()
                self._take(happening)

    def _take(self, happening: Happening[T]) -> None:
        match happening:
            case Listed(items):
                for change in self.store.replace(items):
                    self._tell(change)
                self._synced.set()
            case Applied(item):
                self._tell(self.store.put(item))
            case Gone(key):
                self._tell(self.store.drop(key))

    def _tell(self, change: Change[T] | None) -> None:
        if change is not None:
            for handler in self._handlers:
                handler(change)
