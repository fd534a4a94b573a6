"""client-go's guarantees; the names of its tests are in brackets."""

import asyncio
import random
from contextlib import asynccontextmanager

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity.kube.errors import Throttled
from podidentity.kube.workqueue import QueueSettings, WorkQueue
from tests.virtual_time import VirtualTimeLoop, settle, virtual_time


def queue(**options: float) -> WorkQueue[str]:
    return WorkQueue(settings=QueueSettings(**options), rng=random.Random(0))


@asynccontextmanager
async def working(work: WorkQueue[str], reconcile, *, workers: int = 1):
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work.work(reconcile)) for _ in range(workers)]
        yield
        for worker in running:
            worker.cancel()


async def test_keys_come_in_order_of_arrival():
    work = queue()
    for key in "abc":
        work.add(key)
    assert [await work.get() for _ in range(3)] == ["a", "b", "c"]


async def test_many_additions_of_a_waiting_key_are_one():  # [TestCollapse]
    work = queue()
    for _ in range(3):
        work.add("a")
    assert await work.get() == "a"
    work.done("a")
    assert len(work) == 0


async def test_a_key_that_is_worked_on_is_not_handed_out_again():  # [TestAddWhileProcessing]
    work = queue()
    work.add("a")
    assert await work.get() == "a"
    work.add("a")
    work.add("b")
    assert await work.get() == "b"
    assert len(work) == 0


async def test_additions_while_a_key_is_worked_on_make_it_run_once_more():
    # As TestReinsert and TestCollapseWhileProcessing.
    work = queue()
    work.add("a")
    await work.get()
    for _ in range(3):
        work.add("a")
    work.done("a")
    assert await work.get() == "a"
    work.done("a")
    assert len(work) == 0


@virtual_time
async def test_a_delayed_key_comes_when_it_is_due():
    work, loop = queue(), asyncio.get_running_loop()
    work.add_after("a", 5.0)
    assert await work.get() == "a"
    assert loop.time() == 5.0


@virtual_time
async def test_of_two_delays_the_earlier_counts():  # [TestAddTwoFireEarly, TestDeduping]
    work, loop = queue(), asyncio.get_running_loop()
    work.add_after("a", 5.0)
    work.add_after("a", 1.0)
    work.add_after("a", 3.0)
    assert await work.get() == "a"
    assert loop.time() == 1.0
    work.done("a")
    await asyncio.sleep(10)
    assert len(work) == 0


@virtual_time
async def test_a_key_that_fails_waits_longer_each_time_up_to_the_longest():
    work = queue(first_retry=1.0, longest_retry=8.0)
    waits = [work.retry("a") for _ in range(1200)]
    for wait, full in zip(
        waits, [1, 2, 4, 8, *[8] * 1196], strict=True
    ):  # [TestItemExponentialFailureRateLimiterOverFlow]
        assert full / 2 <= wait <= full


@virtual_time
async def test_a_key_that_succeeded_starts_again_with_the_shortest_wait():
    work = queue(first_retry=1.0)
    for _ in range(5):
        work.retry("a")
    work.forget("a")
    assert work.retry("a") <= 1.0


@virtual_time
async def test_failures_of_one_key_do_not_delay_another():
    work = queue(first_retry=1.0)
    for _ in range(5):
        work.retry("a")
    assert work.retry("b") <= 1.0


@virtual_time
async def test_the_wish_of_the_server_is_kept():
    work, loop = queue(), asyncio.get_running_loop()
    assert work.retry("a", at_least=7.0) == 7.0
    await work.get()
    assert loop.time() == 7.0


@virtual_time
async def test_a_worker_that_is_cancelled_while_it_waits_takes_no_key_with_it():
    work = queue()
    waiting = asyncio.ensure_future(work.get())
    await settle()
    work.add("a")
    waiting.cancel()
    await settle()
    assert await work.get() == "a"


@virtual_time
async def test_an_exception_is_logged_and_the_key_tried_again():
    work, seen = queue(), []

    async def reconcile(key: str) -> None:
        seen.append(key)
        if len(seen) < 3:
            raise OSError("not yet")

    with structlog.testing.capture_logs() as logs:
        async with working(work, reconcile):
            work.add("a")
            await asyncio.sleep(60)
    assert seen == ["a", "a", "a"]
    assert [(entry["event"], entry["key"], entry["error"]) for entry in logs] == [
        ("reconcile_failed", "a", "not yet")
    ] * 2


@virtual_time
async def test_the_wish_of_an_error_is_kept():
    work, times, loop = queue(), [], asyncio.get_running_loop()

    async def reconcile(_key: str) -> None:
        times.append(loop.time())
        if len(times) == 1:
            raise Throttled(429, "TooManyRequests", "slow down", 9.0)

    async with working(work, reconcile):
        work.add("a")
        await asyncio.sleep(60)
    assert times == [0.0, 9.0]


@virtual_time
async def test_a_cancelled_worker_gives_its_key_back():
    work = queue()

    async def forever(_key: str) -> None:
        await asyncio.sleep(3600)

    async with working(work, forever):
        work.add("a")
        await settle()
        work.add("a")
        assert len(work) == 0
    assert len(work) == 1


@virtual_time
async def test_a_success_ends_the_failures_of_a_key():
    work, outcomes, times = queue(first_retry=1.0), iter([False] * 4 + [True, False, True]), []
    loop = asyncio.get_running_loop()

    async def reconcile(_key: str) -> None:
        times.append(loop.time())
        if not next(outcomes):
            raise OSError

    async with working(work, reconcile):
        work.add("a")
        await asyncio.sleep(60)
        work.add("a")
        await asyncio.sleep(60)
    assert len(times) == 7
    assert times[6] - times[5] <= 1.0


keys = st.sampled_from("abc")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), keys),
        st.tuples(st.just("later"), keys),
        st.tuples(st.just("pause"), st.floats(0, 2)),
    ),
    max_size=30,
)


@given(steps, st.integers(0, 1000), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_no_key_runs_twice_at_once_and_the_last_addition_is_always_followed_by_a_run(steps, seed, workers):
    async def story() -> None:
        loop, rng, work = asyncio.get_running_loop(), random.Random(seed), queue(longest_retry=1.0)
        running: set[str] = set()
        dirtied: dict[str, float] = {}
        finished: dict[str, float] = {}

        async def reconcile(key: str) -> None:
            assert key not in running
            running.add(key)
            started = loop.time()
            try:
                await asyncio.sleep(rng.random())
                if rng.random() < 0.3:
                    raise OSError
                finished[key] = started
            finally:
                running.discard(key)

        with structlog.testing.capture_logs():
            async with working(work, reconcile, workers=workers):
                for what, value in steps:
                    if what == "pause":
                        await asyncio.sleep(value)
                        continue
                    dirtied[value] = loop.time()
                    if what == "add":
                        work.add(value)
                    else:
                        work.add_after(value, 1.0)
                await asyncio.sleep(200)
        assert {key for key, since in dirtied.items() if finished.get(key, -1.0) < since - 1e-6} == set()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(story())
