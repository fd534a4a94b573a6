"""Starting and stopping a mode as a process."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from podidentity.telemetry.protocol import raise_descriptor_limit

Result = TypeVar("Result")
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The program was asked to stop before it had started."""


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what a step of the start returns. Raises Stopped when `stop` is set first; the step is cancelled."""
    results: list[Result] = []

    async def step() -> None:
        results.append(await work)

    await run_until(stop, step())
    if not results:
        raise Stopped
    return results[0]


async def run_until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until it ends, fails, or `stop` is set; then it is cancelled and awaited."""
    task = asyncio.create_task(work, name="work")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def stopped_by_signals(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` with an event that SIGTERM or SIGINT sets. A second signal ends the process at once."""
    raise_descriptor_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave_to_the_system() -> None:
        for number in _STOPPING:
            loop.remove_signal_handler(number)

    def first() -> None:
        stop.set()
        leave_to_the_system()

    for number in _STOPPING:
        loop.add_signal_handler(number, first)
    try:
        with suppress(Stopped):
            await main(stop)
    finally:
        leave_to_the_system()
