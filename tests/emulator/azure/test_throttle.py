from podidentity.emulator.azure.throttle import Throttle


def test_only_so_many_requests_are_admitted_within_any_second():
    throttle = Throttle(per_second=2, concurrent=None)
    assert [throttle.enter(now) for now in (0.0, 0.9, 0.95, 1.0, 1.5, 2.0)] == [True, True, False, True, False, True]


def test_only_so_many_requests_run_at_a_time():
    throttle = Throttle(per_second=None, concurrent=1)
    assert throttle.enter(0.0)
    assert not throttle.enter(5.0)
    throttle.leave()
    assert throttle.enter(5.0)


def test_without_limits_everything_is_admitted():
    throttle = Throttle(per_second=None, concurrent=None)
    assert all(throttle.enter(0.0) for _ in range(100))
