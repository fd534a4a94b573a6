import random

from hypothesis import given
from hypothesis import strategies as st

from podidentity.kube.backoff import Backoff, BackoffSettings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class NoJitter(random.Random):
    def random(self) -> float:
        return 0.0


def sleeping_steps(backoff: Backoff, clock: Clock, count: int) -> list[float]:
    waits = []
    for _ in range(count):
        waits.append(backoff.step())
        clock.now += waits[-1]
    return waits


def test_waits_double_up_to_the_longest():
    clock = Clock()
    assert sleeping_steps(Backoff(clock, NoJitter()), clock, 8) == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_jitter_stretches_a_wait_by_up_to_itself():
    waits = [Backoff(Clock(), random.Random(seed)).step() for seed in range(200)]
    assert 0.8 <= min(waits) < 0.85
    assert 1.55 < max(waits) < 1.6


def test_a_loop_that_ran_two_minutes_starts_again_from_the_first_wait():
    clock = Clock()
    backoff = Backoff(clock, NoJitter())
    sleeping_steps(backoff, clock, 5)
    clock.now += 119.9
    assert backoff.step() == 25.6
    clock.now += 25.6 + 120.1
    assert backoff.step() == 0.8


def test_the_time_waited_is_no_time_without_trouble():
    clock, settings = Clock(), BackoffSettings(first=100.0, longest=200.0, reset_after=120.0)
    assert sleeping_steps(Backoff(clock, NoJitter(), settings), clock, 3) == [100.0, 200.0, 200.0]


def test_the_server_may_wish_for_longer_but_not_for_a_day():
    backoff = Backoff(Clock(), NoJitter())
    assert backoff.step(at_least=7.0) == 7.0
    assert backoff.step(at_least=0.1) == 1.6
    assert backoff.step(at_least=86_400.0) == 60.0


@given(st.lists(st.floats(0, 300)), st.integers())
def test_every_wait_is_between_the_first_and_twice_the_longest(pauses, seed):
    clock = Clock()
    backoff = Backoff(clock, random.Random(seed))
    for pause in pauses:
        clock.now += pause
        wait = backoff.step()
        assert 0.8 <= wait <= 60.0
        clock.now += wait
