"""The request limit that IMDS keeps for each VM: pure, the caller brings the time."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Throttle:
    """At most `per_second` requests in any second and `concurrent` at a time; None switches a limit off.

    `enter` and `leave` come in pairs; a request that `enter` refused does not count and must not `leave`.
    """

    per_second: int | None
    concurrent: int | None
    _recent: deque[float] = field(default_factory=deque)
    _running: int = 0

    def enter(self, now: float) -> bool:
        """Admit a request at `now` (seconds of a monotonic clock), or refuse it."""
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        if self.per_second is not None and len(self._recent) >= self.per_second:
            return False
        if self.concurrent is not None and self._running >= self.concurrent:
            return False
        self._recent.append(now)
        self._running += 1
        return True

    def leave(self) -> None:
        """Note that an admitted request is over."""
        self._running -= 1
