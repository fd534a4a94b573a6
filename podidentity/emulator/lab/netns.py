"""Named network namespaces, as `ip netns` keeps them: a file in /run/netns keeps each alive without a process."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from podidentity.emulator.lab import syscalls

_FOLDER = Path("/run/netns")
_OWN_NETWORK = "/proc/thread-self/ns/net"

Result = TypeVar("Result")


def create(name: str) -> None:
    """Make a network namespace and give it a name. Its `lo` is down."""
    _FOLDER.mkdir(exist_ok=True)
    place = _FOLDER / name
    place.touch(exist_ok=False)

    def make() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        syscalls.mount(_OWN_NETWORK, str(place), "", syscalls.MS_BIND)

    try:
        _in_thread(make)
    except OSError:
        place.unlink()
        raise


def delete(name: str) -> None:
    """Take the name away; the namespace goes with its last process."""
    place = _FOLDER / name
    syscalls.unmount(str(place))
    place.unlink()


def enter(name: str) -> None:
    """Put this thread into a named network namespace, for the rest of its life."""
    with (_FOLDER / name).open("rb") as place:
        syscalls.setns(place.fileno(), syscalls.CLONE_NEWNET)


def run_in(name: str | None, function: Callable[[], Result]) -> Result:
    """Run a short function inside a named network namespace (None: the present one) and return what it returns.

    It runs in a thread of its own, which is the unit that has a network namespace, and which ends with it.
    """

    def inside() -> Result:
        if name is not None:
            enter(name)
        return function()

    return _in_thread(inside)


def socket_in(name: str | None, family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    """Return a TCP socket that listens inside a named network namespace; port 0 picks a free one."""

    def listen() -> socket.socket:
        return socket.create_server((address, port), family=family)

    return run_in(name, listen)


def connection_in(name: str | None, address: str, port: int, *, seconds: float = 5.0) -> socket.socket:
    """Return a TCP connection made from inside a named network namespace, for at most that long."""
    return run_in(name, lambda: socket.create_connection((address, port), timeout=seconds))


def write_sysctl(path: str, value: int) -> None:
    """Set a sysctl of this thread's network namespace; `path` is below /proc/sys/net, such as `ipv4/ip_forward`."""
    # The kernel shows each thread the /proc/sys/net of its own network namespace.
    Path("/proc/sys/net", path).write_text(str(value))


def _in_thread(function: Callable[[], Result]) -> Result:
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - carried over to the caller
            failure.append(error)

    thread = threading.Thread(target=work, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
