"""One cluster in memory: objects, one resource version for all of them, and the log of changes that watches read.

Objects are plain dicts that are never changed in place: whoever holds one holds a snapshot. Nothing here awaits, so
every operation is atomic on the event loop.
"""

import asyncio
import random
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from podidentity.emulator.kubernetes.errors import GroupResource, Object, expired
from podidentity.emulator.kubernetes.faults import Faults
from podidentity.emulator.kubernetes.kinds import defaulted
from podidentity.emulator.kubernetes.resources import NAMESPACES, Registry, Resource, key_for

FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSettings:
    """Numbers of the cluster; durations in seconds of the event loop's clock."""

    bookmark_interval: float = 60.0
    """Between bookmarks on a quiet watch: what the real server does."""
    bookmark_before_end: float = 2.0
    """A last bookmark that long before `timeoutSeconds` runs out, as in the real watch cache."""
    watch_timeout: float = 1800.0
    """For watches without `timeoutSeconds`: the lower bound of the real `--min-request-timeout`."""
    freshness_wait: float = 3.0
    """How long a read waits for a resource version still to come, as the real watch cache."""
    pod_termination: float = 0.0
    """From deletion to the end of a pod on a node; 0 is at once, as there is no kubelet."""
    log_limit: int = 20_000
    """Changes kept for each resource before the older half is compacted: memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log; an object that came to be has no `before`, one that went has no `after`."""

    revision: int
    before: Object | None
    after: Object | None


@dataclass(slots=True)
class Collection:
    """All objects of one resource, by the etcd key `namespace/name` or `name`."""

    objects: dict[str, Object] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    compacted: int = 0
    """New reads and watches from before this revision are refused."""
    dropped: int = 0
    """The last change that really is forgotten: an open watch that has seen it goes on after a compaction."""
    watchers: set[asyncio.Event] = field(default_factory=set)

    def since(self, revision: int, *, live: bool = False) -> list[Change]:
        """Return the changes after a revision, for a new reader or for a `live` one.

        Raises:
            ApiError: 410 when they have been compacted.

        """
        if revision < (self.dropped if live else self.compacted):
            raise expired(f"too old resource version: {revision} ({self.compacted})")
        return self.log[bisect_right(self.log, revision, key=lambda change: change.revision) :]

    def at(self, revision: int) -> dict[str, Object]:
        """Return the objects as they stood at a revision, by undoing what came later.

        Raises:
            ApiError: 410 when that is too long ago.

        """
        objects = dict(self.objects)
        for change in reversed(self.since(revision)):
            key = key_of(change.after or change.before or {})
            if change.before is None:
                del objects[key]
            else:
                objects[key] = change.before
        return objects

    def record(self, change: Change) -> None:
        """Append to the log and wake the watches."""
        self.log.append(change)
        for watcher in self.watchers:
            watcher.set()

    def compact(self, revision: int) -> None:
        """Forget the changes up to a revision."""
        kept = bisect_right(self.log, revision, key=lambda change: change.revision)
        if kept:
            self.dropped = self.log[kept - 1].revision
            del self.log[:kept]
        self.compacted = max(self.compacted, revision)


class ClusterState:
    """A cluster. `tokens` maps bearer tokens to user names; None lets everybody in."""

    def __init__(
        self,
        *,
        tokens: Mapping[str, str] | None = None,
        settings: ClusterSettings | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.tokens = tokens
        self.settings = settings or ClusterSettings()
        self.rng = rng or random.Random()
        self.registry = Registry()
        self.faults = Faults(compact=self.compact)
        self.revision = 0
        self._clock = clock
        self._collections: dict[GroupResource, Collection] = {}
        for name in FIRST_NAMESPACES:
            namespace = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, **self.new_metadata()}}
            self.commit(NAMESPACES, name, defaulted(NAMESPACES, namespace))

    def collection(self, resource: Resource) -> Collection:
        """Return the objects of a resource, whatever version is asked for."""
        return self._collections.setdefault(resource.storage, Collection())

    def commit(self, resource: Resource, key: str, obj: Object | None) -> Object:
        """Write an object (None removes it) as the next revision; return it with that resource version."""
        collection = self.collection(resource)
        self.revision += 1
        before = collection.objects.get(key)
        written = with_revision(obj or before or {}, self.revision)
        if obj is None:
            del collection.objects[key]
        else:
            collection.objects[key] = written
        collection.record(Change(self.revision, before, None if obj is None else written))
        if len(collection.log) > self.settings.log_limit:
            collection.compact(collection.log[len(collection.log) // 2].revision)
        return written

    def compact(self) -> None:
        """Forget all history: older resource versions are answered with 410 from now on."""
        for collection in self._collections.values():
            collection.compact(self.revision)

    def new_metadata(self) -> Object:
        """Make the metadata that every new object gets."""
        return {"uid": self.new_uid(), "creationTimestamp": self.timestamp()}

    def new_uid(self) -> str:
        """Draw a uid."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def now(self) -> datetime:
        """Read the wall clock."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def timestamp(self, after: float = 0.0) -> str:
        """Write the time (some seconds from now) as metav1.Time."""
        return datetime.fromtimestamp(self._clock() + after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(obj: Object) -> str:
    """Return the etcd key of an object below its resource."""
    metadata = obj["metadata"]
    return key_for(metadata.get("namespace"), metadata["name"])


def with_revision(obj: Object, revision: int) -> Object:
    """Copy an object with another resource version."""
    return obj | {"metadata": obj["metadata"] | {"resourceVersion": str(revision)}}
