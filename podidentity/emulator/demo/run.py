"""From the command line to the story: checks the machine, isolates the run, and removes what is left of it."""

import asyncio
import signal
import socket
import tempfile
from pathlib import Path

from podidentity.api.errors import ConfigurationError, PodIdentityError
from podidentity.emulator.demo.kubeconfigs import given
from podidentity.emulator.demo.screen import Screen, StepFailed
from podidentity.emulator.demo.story import Options, Story
from podidentity.emulator.lab.isolation import run_isolated
from podidentity.emulator.lab.preflight import explain_missing
from podidentity.emulator.lab.relay import Outside

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130
"""What a shell reports for Ctrl-C."""


def run(*, keep: bool, kubeconfig: str, operation_seconds: float) -> int:
    """Run the demo and return the exit code. Raises ConfigurationError when it cannot start."""
    if missing := explain_missing():
        raise ConfigurationError("the demo makes network namespaces, and here it cannot:\n  " + "\n  ".join(missing))
    real = given(Path(kubeconfig)) if kubeconfig else None
    with tempfile.TemporaryDirectory(prefix="podidentity-demo-") as folder:
        options = Options(
            folder=Path(folder),
            given=real,
            host_listener=None if real else socket.create_server(("127.0.0.1", 0)),
            operation_seconds=operation_seconds,
            keep=keep,
        )
        return run_isolated(lambda outside: _inside(options, outside))


def _inside(options: Options, outside: Outside) -> int:
    """Play the story in the isolated process."""
    screen = Screen()
    try:
        asyncio.run(_interruptible(Story(options, screen, outside)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.print("interrupted: everything has been taken back")
        return _INTERRUPTED
    except (StepFailed, PodIdentityError, OSError, ExceptionGroup) as error:
        if not screen.failed:
            screen.print(f"podidentity: {error}")
        screen.summary()
        return 1
    screen.summary()
    return 0


async def _interruptible(story: Story) -> None:
    """Treat SIGTERM and a closed terminal like Ctrl-C: each cancels the story, which then takes everything back."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def first() -> None:
        for number in _ENDING:  # a terminal that closes sends it twice: the second must not cut the end short
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in _ENDING:
        loop.add_signal_handler(number, first)
    await story.run()
