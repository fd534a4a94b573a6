import os
from collections.abc import Callable
from functools import cache

import pytest

from podidentity.emulator.lab.isolation import run_isolated
from podidentity.emulator.lab.preflight import explain_missing


@cache
def missing_for_a_lab() -> str:
    return "; ".join(explain_missing())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") and (missing := missing_for_a_lab()):
        if os.environ.get("CI"):
            pytest.fail(f"CI skips nothing: {missing}")
        pytest.skip(missing)


@pytest.fixture
def isolated() -> Callable[[Callable[[], object]], None]:
    """Run a scenario, a function or coroutine function, in namespaces of its own; what it raises is in stderr."""

    def run(scenario: Callable[[], object]) -> None:
        def main(_outside: object) -> object:
            return scenario()

        assert run_isolated(main) == 0  # type: ignore[arg-type]

    return run
