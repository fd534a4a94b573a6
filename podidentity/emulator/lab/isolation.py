"""Runs a function in namespaces of its own, from which nothing can stay behind.

    the caller ── relays for `Outside`, passes SIGINT, SIGTERM and SIGHUP on
    └── outer: enters new user (unless root), mount, network and PID namespaces
        └── init: process 1 in there; own /run and /proc; reaps orphans
            └── the function

Each dies with the one above it, and with `init` the kernel kills every process inside and frees what only they
held: namespaces, links, rules, mounts. This needs no cleaning up, so it works after `kill -9` as well.

What is open before stays usable inside: a listening socket of the caller belongs to the network where it was made.
The other way round, `Outside.present` makes something of the host's network reachable inside.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from podidentity.emulator.lab import processes, relay, syscalls
from podidentity.emulator.lab.relay import Outside

Main = Callable[[Outside], int | None] | Callable[[Outside], Coroutine[Any, Any, int | None]]


def run_isolated(main: Main) -> int:
    """Run a function or coroutine function isolated and return its exit code (None counts as 0).

    Call it from the main thread, where no event loop runs, before threads are started. An exception inside is
    printed there and gives 1; a signal that ends the function gives 128 + its number, as in a shell.
    """
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, processes.signals_held() as mask:
        child = processes.fork(lambda: _outer(main, there, mask))
        there.close()
        try:
            asyncio.run(_supervise(child, here, mask))
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(child, 0)
    return processes.exit_code(status)


async def _supervise(child: int, channel: socket.socket, mask: set[signal.Signals]) -> None:
    """Relay and pass signals on until the child has ended."""
    loop = asyncio.get_running_loop()
    for number in processes.PASSED_ON:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started with nohup
        loop.add_signal_handler(number, os.kill, child, number)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ended = asyncio.Event()
    handle = os.pidfd_open(child)
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            relays = tasks.create_task(relay.serve(channel), name="relays")
            await ended.wait()
            relays.cancel()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _outer(main: Main, channel: socket.socket, mask: set[signal.Signals]) -> int:
    os.setsid()  # Ctrl-C goes to the caller alone, which passes it on: inside it must not arrive twice
    enter_namespaces()
    outside = Outside(channel, os.getpid())
    init = processes.fork(lambda: _init(main, outside, channel, mask))
    channel.close()
    return processes.wait_passing_signals_on(init, mask)


def _init(main: Main, outside: Outside, channel: socket.socket, mask: set[signal.Signals]) -> int:
    own_mounts()
    child = processes.fork(lambda: _call(main, outside, mask))
    channel.close()
    return processes.wait_passing_signals_on(child, mask)


def _call(main: Main, outside: Outside, mask: set[signal.Signals]) -> int:
    processes.with_default_signals(mask)
    result = main(outside)
    return (result if isinstance(result, int | None) else asyncio.run(result)) or 0


def enter_namespaces() -> None:
    """Move this process into new namespaces; only the children that it forks from now on are in the PID namespace.

    An ordinary user becomes root of a user namespace first. Raises `OSError` where that is not allowed.
    """
    user, group = os.geteuid(), os.getegid()
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWPID
    if user == 0:
        syscalls.unshare(flags)
        return
    syscalls.unshare(flags | syscalls.CLONE_NEWUSER)
    process = Path("/proc/self")
    process.joinpath("setgroups").write_text("deny")  # the kernel's condition for mapping a group
    process.joinpath("uid_map").write_text(f"0 {user} 1")
    process.joinpath("gid_map").write_text(f"0 {group} 1")


def own_mounts() -> None:
    """Give this mount namespace its own /run, where named network namespaces are kept, and /proc where possible."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    # In a container that hides parts of /proc the kernel refuses. Then /proc shows the PIDs of outside, which nothing
    # here looks at; /proc/sys/net and /proc/thread-self are right all the same.
    with contextlib.suppress(OSError):
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
