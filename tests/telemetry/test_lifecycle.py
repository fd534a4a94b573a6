import asyncio
import os
import signal

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.telemetry.lifecycle import Stopped, run_until, stopped_by_signals, unless_stopped


async def test_work_is_cancelled_and_awaited_when_it_is_time_to_stop():
    stop, steps = asyncio.Event(), []

    async def work():
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    await run_until(stop, work())
    assert steps == ["cleaned up"]


async def test_work_that_fails_fails_the_caller():
    async def work():
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await run_until(asyncio.Event(), work())


async def test_work_that_fails_while_it_is_stopped_fails_the_caller():
    stop = asyncio.Event()

    async def work():
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await run_until(stop, work())


async def test_work_that_ends_by_itself_is_over():
    await run_until(asyncio.Event(), asyncio.sleep(0))


async def test_a_cancelled_caller_leaves_no_work_behind():
    started, ended = asyncio.Event(), asyncio.Event()

    async def work():
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(run_until(asyncio.Event(), work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sets_the_event_and_what_comes_after_runs(number):
    steps = []

    async def main(stop):
        os.kill(os.getpid(), number)
        await stop.wait()
        steps.append("stopped")

    await stopped_by_signals(main)
    assert steps == ["stopped"]


async def test_after_the_first_signal_the_next_one_ends_the_process():
    async def main(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    await stopped_by_signals(main)


async def test_handlers_are_taken_away_at_the_end():
    async def main(_stop):
        pass

    await stopped_by_signals(main)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_start_that_hangs_ends_with_the_stop():
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stop.set)
    with pytest.raises(Stopped):
        await unless_stopped(stop, asyncio.sleep(3600))


async def test_a_step_of_the_start_gives_its_result_or_its_error():
    async def broken() -> None:
        raise ConfigurationError("wrong")

    assert await unless_stopped(asyncio.Event(), asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ConfigurationError, match="wrong"):
        await unless_stopped(asyncio.Event(), broken())
