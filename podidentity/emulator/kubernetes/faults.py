"""Faults on demand: wrong answers, delays, lost answers, broken watch streams, compaction, restarts.

All hooks are plain calls on `state.faults` and work the same over sockets and in-process, where an application that
returns without finishing its response stands for an aborted connection.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from podidentity.emulator.kubernetes.errors import REASONS, ApiError


@dataclass(frozen=True, slots=True)
class Call:
    """What a fault can be matched against."""

    method: str
    path: str
    query: Mapping[str, str]

    @property
    def is_watch(self) -> bool:
        """Whether this opens a watch stream."""
        return self.query.get("watch") in ("1", "true")


Match: TypeAlias = Callable[[Call], bool]


def every(_: Call) -> bool:
    """Match all calls."""
    return True


class End(Enum):
    """How a watch stream is made to end or not to end."""

    CLEANLY = "cleanly"
    """After a whole line, with the end of the response."""
    ABORTED = "aborted"
    """In the middle of a line, the connection closed."""
    STALLED = "stalled"
    """No more bytes, and no close either."""
    GONE = "gone"
    """The client went away."""


@dataclass(eq=False, slots=True)
class Stream:
    """An open watch stream, as faults see it."""

    call: Call
    wake: asyncio.Event
    end: End | None = None
    injected: list[bytes] = field(default_factory=list)

    def stop(self, end: End) -> None:
        """Make the stream end that way at its next step."""
        self.end = end
        self.wake.set()

    def inject(self, line: bytes) -> None:
        """Send a line as it is."""
        self.injected.append(line)
        self.wake.set()


@dataclass(slots=True)
class Plan:
    """What is to happen to one request: wait, then answer this instead, or do the work and lose the answer."""

    delay: float = 0.0
    error: ApiError | None = None
    body: bytes | None = None
    lose_answer: bool = False


@dataclass(slots=True)
class _Rule:
    match: Match
    times: int | None
    apply: Callable[[Plan], None]


class Faults:
    """The faults of one cluster. Rules hold for the next `times` matching requests; `times=None` is until `clear`."""

    def __init__(self, *, compact: Callable[[], None]) -> None:
        self.streams: set[Stream] = set()
        self._compact = compact
        self._rules: list[_Rule] = []

    def answer(
        self,
        status: int,
        *,
        times: int | None = 1,
        match: Match = every,
        retry_after: int | None = None,
        body: bytes | None = None,
    ) -> None:
        """Answer with an error Status (or with `body`, as a proxy in between would) and do nothing.

        `retry_after` is in seconds.
        """
        details = {} if retry_after is None else {"retryAfterSeconds": retry_after}
        error = ApiError(status, f"injected {REASONS.get(status, status)}", details=details)

        def apply(plan: Plan) -> None:
            plan.error, plan.body = error, body

        self._rules.append(_Rule(match, times, apply))

    def delay(self, seconds: float, *, times: int | None = 1, match: Match = every) -> None:
        """Wait before the work; with more than one matching rule the waits add up."""

        def apply(plan: Plan) -> None:
            plan.delay += seconds

        self._rules.append(_Rule(match, times, apply))

    def lose_answer(self, *, times: int | None = 1, match: Match = every) -> None:
        """Do the work, then abort the connection: the client cannot know whether it was done."""

        def apply(plan: Plan) -> None:
            plan.lose_answer = True

        self._rules.append(_Rule(match, times, apply))

    def clear(self) -> None:
        """Drop all rules."""
        self._rules.clear()

    def plan(self, call: Call) -> Plan:
        """Decide what happens to a request, using up the rules that match."""
        plan = Plan()
        for rule in [rule for rule in self._rules if rule.match(call)]:
            rule.apply(plan)
            if rule.times is not None:
                rule.times -= 1
        self._rules = [rule for rule in self._rules if rule.times != 0]
        return plan

    def cut_streams(self, match: Match = every) -> None:
        """Abort the open watches in the middle of a line."""
        self._stop(End.ABORTED, match)

    def end_streams(self, match: Match = every) -> None:
        """End the open watches as a timeout would."""
        self._stop(End.CLEANLY, match)

    def stall_streams(self, match: Match = every) -> None:
        """Silence the open watches for ever, without closing them."""
        self._stop(End.STALLED, match)

    def inject(self, line: bytes, match: Match = every) -> None:
        """Send a line (garbage, or an event of a type nobody knows) on the open watches."""
        for stream in self._matching(match):
            stream.inject(line)

    def compact(self) -> None:
        """Compact the log now: older resource versions are gone (410)."""
        self._compact()

    def restart(self) -> None:
        """Drop all streams, as a restart of the server does; objects and resource versions go on."""
        self.cut_streams()

    def _matching(self, match: Match) -> Iterable[Stream]:
        return [stream for stream in self.streams if match(stream.call)]

    def _stop(self, end: End, match: Match) -> None:
        for stream in self._matching(match):
            stream.stop(end)
