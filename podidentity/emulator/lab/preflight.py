"""Says before a lab is built what this machine lacks for it, and how to get that."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink import NETLINK_NETFILTER, NLMSG_ERROR
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETGEN

from podidentity.emulator.lab import isolation, netns, processes

_CLONE, _APPARMOR, _MAXIMUM = (
    "kernel.unprivileged_userns_clone",  # Debian
    "kernel.apparmor_restrict_unprivileged_userns",  # Ubuntu since 23.10
    "user.max_user_namespaces",
)
_FORBIDDING = {_CLONE: "0", _APPARMOR: "1", _MAXIMUM: "0"}
_ALLOWING = {_CLONE: "1", _APPARMOR: "0", _MAXIMUM: "10000"}


class Part(Enum):
    """What a lab needs, in the order of trying; the value completes "this machine cannot ..."."""

    NAMESPACES = "make namespaces"
    MOUNTS = "mount a file system in a namespace"
    NAMED_NETWORKS = "keep a named network namespace"
    VETH = "make a veth pair"
    BRIDGE = "make a bridge"
    FORWARDING = "change network settings below /proc/sys/net of a namespace"
    NFTABLES = "use nftables"


_MODULES = {Part.VETH: "veth", Part.BRIDGE: "bridge", Part.NFTABLES: "nf_tables"}


def explain_missing() -> list[str]:
    """Return what this machine lacks for a lab, one sentence each, and what to do; nothing when all is there.

    Finds out by trying in a child that leaves nothing behind. Call it like `run_isolated`: no threads yet.
    """
    failure = _first_failure()
    if failure is None:
        return []
    sysctls = {name: _sysctl(name) for name in _FORBIDDING}
    return explain(*failure, root=os.geteuid() == 0, sysctls=sysctls)


def explain(part: Part, number: int, *, root: bool, sysctls: Mapping[str, str]) -> list[str]:
    """Put into words that a part failed with an error number, given sysctls by name ("" when absent)."""
    missing = [f"this machine cannot {part.value}: {os.strerror(number)}"]
    if (module := _MODULES.get(part)) and number not in (errno.EPERM, errno.EACCES):
        return [*missing, f"load the kernel module {module}, or use a kernel that has it (CONFIG_{module.upper()})"]
    if root:
        return [
            *missing,
            "in a container: add the capabilities SYS_ADMIN and NET_ADMIN, or run it with --privileged",
        ]
    switches = [
        f"this kernel forbids it to ordinary users: sysctl -w {name}={_ALLOWING[name]}"
        for name, forbidding in _FORBIDDING.items()
        if sysctls.get(name) == forbidding
    ]
    return [*missing, *switches, "run it as root, in a container with --privileged"]


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""


def _first_failure() -> tuple[Part, int] | None:
    reader, writer = os.pipe()
    child = processes.fork(lambda: _try_all(writer))
    os.close(writer)
    with open(reader) as pipe:  # noqa: PTH123 - a descriptor, not a path
        words = pipe.read().split()
    os.waitpid(child, 0)
    return (Part[words[0]], int(words[1])) if words else None


def _try_all(writer: int) -> int:
    def inside() -> int:
        _try(writer, Part.MOUNTS, isolation.own_mounts)
        _try(writer, Part.NAMED_NETWORKS, lambda: netns.create("preflight"))
        _try(writer, Part.VETH, lambda: _link("veth", peer="preflight1"))
        _try(writer, Part.BRIDGE, lambda: _link("bridge"))
        _try(writer, Part.FORWARDING, lambda: netns.write_sysctl("ipv4/ip_forward", 1))
        _try(writer, Part.NFTABLES, _ask_nftables)
        return 0

    _try(writer, Part.NAMESPACES, isolation.enter_namespaces)
    os.waitpid(processes.fork(inside), 0)
    return 0


def _try(writer: int, part: Part, action: Callable[[], None]) -> None:
    """Do one part, or report it through the pipe and end this process."""
    try:
        action()
    except OSError as error:
        os.write(writer, f"{part.name} {error.errno}".encode())
        raise SystemExit(1) from error


def _link(kind: str, **settings: str) -> None:
    with IPRoute() as ip:
        try:
            ip.link("add", ifname=f"{kind}-check", kind=kind, **settings)
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error


def _ask_nftables() -> None:
    """Ask for the generation of the ruleset, the smallest question that nftables answers."""
    header = struct.pack("=IHHIIBBH", 20, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 1, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as kernel:
        kernel.settimeout(1)
        kernel.send(header)
        answer = kernel.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
        raise OSError(-struct.unpack_from("=i", answer, 16)[0], "nftables")
