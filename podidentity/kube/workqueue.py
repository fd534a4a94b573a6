"""A queue of keys to reconcile, with client-go's guarantees.

One key is never worked on twice at once; any number of `add`s while it waits or is worked on make it run once more;
no `add` is lost; a failed key comes back later and later. Source: client-go util/workqueue.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from podidentity.kube.errors import Conflict

K = TypeVar("K", bound=Hashable)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Waits of keys that fail; seconds."""

    first_retry: float = 0.05
    """A conflict with another writer is usually over by then."""
    longest_retry: float = 60.0
    """A key that goes on failing is looked at each minute: users mend things and expect to see it."""


class WorkQueue(Generic[K]):
    """Keys in order of arrival; `get` waits for one, `done` gives it back."""

    def __init__(self, *, settings: QueueSettings | None = None, rng: random.Random | None = None) -> None:
        self._settings = settings or QueueSettings()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._queue: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: K) -> None:
        """Mark a key as dirty: it runs soon, once."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._queue.append(key)
            self._filled.set()

    def add_after(self, key: K, delay: float) -> None:
        """Mark a key as dirty in `delay` seconds; of several delays the earliest counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + delay:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        """Mark a failed key as dirty after its backoff; return the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = self._settings.longest_retry
        wait: float = min(self._settings.first_retry * 2 ** min(failures, 30), longest) * (
            0.5 + self._rng.random() / 2
        )
        wait = max(wait, at_least)
        self.add_after(key, wait)
        return wait

    def forget(self, key: K) -> None:
        """Reset the failures of a key that succeeded."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for a key and take it; `done` must follow."""
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        key = self._queue.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """Give a key back; if it became dirty meanwhile, it is queued again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._queue.append(key)
            self._filled.set()

    async def work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        """Reconcile keys for ever, one after the other; run several of these for more at once.

        An exception of `reconcile` is logged and the key retried; it never ends the worker.
        """
        while True:
            key = await self.get()
            try:
                await reconcile(key)
            except Exception as error:  # noqa: BLE001 - the loop outlives any bug or fault of one key
                wait = self.retry(key, at_least=getattr(error, "retry_after", None) or 0.0)
                # Somebody else wrote first: daily life, and the watch brings what they wrote.
                log = _log.debug if isinstance(error, Conflict) else _log.warning
                log("reconcile_failed", key=str(key), error=str(error) or repr(error), retry_in=round(wait, 2))
            else:
                self.forget(key)
            finally:
                self.done(key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
