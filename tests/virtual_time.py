"""An event loop whose clock jumps: hours of waiting pass in no time, and always in the same order."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from selectors import SelectSelector
from typing import Any, NoReturn

_MOST_STEPS = 100_000
"""Of the loop without any time passing; beyond that some task runs in circles."""


class _TimeSkipper(SelectSelector):
    """A selector that never waits: where it would, the clock jumps instead."""

    now = 0.0
    steps = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "every task waits for something that nobody will do"
        self.steps = 0 if timeout else self.steps + 1
        assert self.steps < _MOST_STEPS, "time stands still while tasks run"
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For code that meets neither sockets nor threads; a thread would bring real time back in."""

    def __init__(self) -> None:
        self._skipper = _TimeSkipper()
        super().__init__(self._skipper)

    def time(self) -> float:
        return self._skipper.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> NoReturn:  # type: ignore[override]
        raise AssertionError(f"a thread on virtual time: {func}")


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on virtual time; its fixtures must be plain ones."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def settle() -> None:
    """Let everything that is ready run, without any time passing."""
    for _ in range(50):
        await asyncio.sleep(0)
