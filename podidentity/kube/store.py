"""The objects of one resource in memory, with indexes. Plain data, no I/O: the informer fills it, others read it."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from podidentity.api.meta import Key, Meta


class Record(Protocol):
    """What the cache must know of an object."""

    @property
    def metadata(self) -> Meta:
        """The trimmed ObjectMeta."""
        ...


T = TypeVar("T", bound=Record)
Indexer = Callable[[T], Iterable[Hashable]]


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One object before and after. `old` None: it is new. `new` None: it is gone (`old` may be a stale last sight).

    An object that was deleted and created again between two looks may come as one change: compare the UIDs.
    """

    key: Key
    old: T | None
    new: T | None


class Store(Generic[T]):
    """Objects by key, and by each index; `indexers` maps an index's name to the values of an object under it."""

    def __init__(self, indexers: Mapping[str, Indexer[T]] | None = None) -> None:
        self._indexers = dict(indexers or {})
        self._objects: dict[Key, T] = {}
        self._indexes: dict[str, dict[Hashable, dict[Key, None]]] = {name: {} for name in self._indexers}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def keys(self) -> Iterable[Key]:
        """All keys."""
        return self._objects.keys()

    def get(self, key: Key) -> T | None:
        """The object of that key, or None."""
        return self._objects.get(key)

    def by(self, index: str, value: Hashable) -> list[T]:
        """The objects that have this value under this index, in the order they came."""
        return [self._objects[key] for key in self._indexes[index].get(value, ())]

    def values(self, index: str) -> Iterable[Hashable]:
        """All values that some object has under this index."""
        return self._indexes[index].keys()

    def put(self, item: T) -> Change[T] | None:
        """Add or replace; None when nothing changed (the same UID and resourceVersion as held)."""
        key = item.metadata.key
        old = self._objects.get(key)
        if old is not None and _same_version(old, item):
            return None
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = item
        for name, indexer in self._indexers.items():
            for value in indexer(item):
                self._indexes[name].setdefault(value, {})[key] = None
        return Change(key, old, item)

    def drop(self, key: Key) -> Change[T] | None:
        """Remove; None when it was not held."""
        old = self._objects.pop(key, None)
        if old is None:
            return None
        self._unindex(key, old)
        return Change(key, old, None)

    def replace(self, items: Iterable[T]) -> list[Change[T]]:
        """Become exactly these objects, and say what that changed: first what is gone, then what came."""
        fresh = {item.metadata.key: item for item in items}
        changes = [self.drop(key) for key in [key for key in self._objects if key not in fresh]]
        changes += [self.put(item) for item in fresh.values()]
        return [change for change in changes if change]

    def _unindex(self, key: Key, item: T) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            for value in indexer(item):
                if keys := index.get(value):
                    keys.pop(key, None)
                    if not keys:
                        del index[value]


def _same_version(old: Record, new: Record) -> bool:
    version = new.metadata.resource_version
    return bool(version) and old.metadata.resource_version == version and old.metadata.uid == new.metadata.uid
