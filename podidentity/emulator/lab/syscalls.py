"""The system calls for namespaces, which Python has only since 3.12 or not at all. Failures are `OSError`."""

import ctypes
import os
import signal

# Source: linux/sched.h, linux/mount.h, linux/prctl.h.
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def unshare(flags: int) -> None:
    """Put this thread (of a CLONE_NEWUSER: this single-threaded process) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Put this thread into the namespace behind a descriptor."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system, or with MS_BIND a file or folder."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(result, f"mount {kind or source} on {target}")


def unmount(target: str) -> None:
    """Unmount, at the latest when the last user of the mount has gone."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"unmount {target}")


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as the thread that forked it has ended."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
