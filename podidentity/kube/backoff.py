"""Waiting longer after each failure, for loops that never give up.

Source of the numbers: client-go's reflector. (stamina and tenacity end after some attempts; a watch must not.)
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BackoffSettings:
    """How long to wait; seconds."""

    first: float = 0.8
    """The first wait: longer than a restart of one API server behind a balancer."""
    longest: float = 30.0
    """The cap, before jitter: a cluster that comes back is noticed within a minute."""
    longest_wish: float = 60.0
    """The cap of what the server asks for: a proxy's maintenance page may ask for a day."""
    reset_after: float = 120.0
    """A loop that ran this long without a wait starts from `first` again."""


@dataclass(slots=True)
class Backoff:
    """The state of one loop. A wait of d is stretched by a random part of d: many agents do not march in step."""

    clock: Callable[[], float]
    rng: random.Random
    settings: BackoffSettings = field(default_factory=BackoffSettings)
    _next: float = 0.0
    _last_step: float = float("-inf")

    def step(self, at_least: float | None = None) -> float:
        """Return the seconds to wait now; `at_least` is the server's own wish (`Retry-After`)."""
        now = self.clock()
        if now - self._last_step > self.settings.reset_after:
            self._next = self.settings.first
        wish = min(at_least or 0.0, self.settings.longest_wish)
        wait = max(self._next * (1 + self.rng.random()), wish)
        self._next = min(self._next * 2, self.settings.longest)
        self._last_step = now + wait
        return wait
