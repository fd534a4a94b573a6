"""Processes that fork: children that cannot outlive their parent, and parents that pass signals on."""

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from podidentity.emulator.lab import syscalls

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def fork(run: Callable[[], int]) -> int:
    """Return the process ID of a child that runs a function and exits with what it returns.

    The kernel kills the child when the calling thread ends, however it ends: call this in the main thread.
    """
    parent = os.pidfd_open(os.getpid())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child would write it once more
    child = os.fork()
    if not child:
        syscalls.die_with_parent()
        if select.select([parent], [], [], 0)[0]:  # it has ended before we asked to be told
            os._exit(os.EX_UNAVAILABLE)
        os.close(parent)
        _exit_with(run)
    os.close(parent)
    return child


@contextlib.contextmanager
def signals_held() -> Iterator[set[signal.Signals]]:
    """Hold back the signals that are passed on until both sides of a fork know what to do with them.

    Gives the mask from before, for the child to set.
    """
    before = {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)}
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_passing_signals_on(child: int, mask: set[signal.Signals]) -> int:
    """Wait for a child, pass signals on to it, and return its exit code as a shell would.

    Other children are reaped as they end: process 1 of a PID namespace inherits every orphan.
    """

    def pass_on(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    while True:
        ended, status = os.wait()
        if ended == child:
            return exit_code(status)


def with_default_signals(mask: set[signal.Signals]) -> None:
    """Let signals do again what they do in any Python program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def exit_code(status: int) -> int:
    """Return the exit code for a wait status; 128 + the signal where one ended the process."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _exit_with(run: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - there is no caller: this is the bottom of a process
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
