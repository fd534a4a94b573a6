"""Messages to and from the kernel's netfilter: one transaction, one query, or reports of changes.

Only the encoding of a message is pyroute2's. Its own transactions wait for ever where the process lacks
CAP_NET_ADMIN, cannot say which message failed, and leak a queue for each failure.

Source of the numbers: linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, nfgen_msg

# The kernel answers while it takes the request: a reply that is not there after this long never comes.
_REPLY_SECONDS = 5.0
_RECEIVE_BYTES = 1 << 18  # the kernel's own limit for one part of a dump is 32 KiB
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFPROTO_INET = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_FAMILY = struct.Struct("!BBH")  # nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_ATTRIBUTE_TYPE = 0x3FFF  # without the flags "nested" and "in network byte order"


class Refused(OSError):
    """The kernel's answer is an error number. `index` is the message it is about, -1 when it is about all."""

    def __init__(self, number: int, index: int = -1) -> None:
        super().__init__(number, errno.errorcode.get(number, ""))
        self.index = index


class InterruptedDump(Exception):
    """What was listed changed meanwhile: the list may be neither the old nor the new state."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of nftables for family inet: its number, pyroute2's class for it, and named attributes."""

    kind: int
    encoder: type[nfgen_msg]
    attributes: Sequence[tuple[str, Any]]
    flags: int = 0

    def encode(self, sequence: int, flags: int = 0) -> bytes:
        """Return the bytes for the kernel."""
        message = self.encoder()
        message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | self.kind
        message["header"]["flags"] = NLM_F_REQUEST | self.flags | flags
        message["header"]["sequence_number"] = sequence
        message["nfgen_family"] = _NFPROTO_INET
        message["attrs"] = list(self.attributes)
        message.encode()
        return bytes(message.data)


@dataclass(frozen=True, slots=True)
class Report:
    """A message from the kernel: `kind` as in nftables (NEWTABLE …), attributes by number, undecoded."""

    kind: int
    attributes: dict[int, bytes]


def transact(messages: Sequence[Message]) -> None:
    """Have all messages done, or none; raises `Refused` with the first that the kernel did not like."""
    last = len(messages)
    packets = [_mark(_BATCH_BEGIN, 0)]
    # An error is reported unasked, before the confirmation of the last message: one confirmation is enough.
    packets += [m.encode(n, NLM_F_ACK if n == last else 0) for n, m in enumerate(messages, 1)]
    packets.append(_mark(_BATCH_END, last + 1))
    with _open() as kernel:
        kernel.send(b"".join(packets))
        for number, sequence in _verdicts(kernel):
            if number:
                raise Refused(number, sequence - 1)
            if sequence == last:
                return


def query(message: Message, *, dump: bool = False) -> list[Report]:
    """Ask for one object, or with `dump` for all of a kind. Raises `Refused`, `InterruptedDump`."""
    reports: list[Report] = []
    with _open() as kernel:
        kernel.send(message.encode(0, NLM_F_DUMP if dump else NLM_F_ACK))
        for kind, flags, _, body in _stream(kernel):
            if flags & NLM_F_DUMP_INTR:
                raise InterruptedDump
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                if number := _error_number(body):
                    raise Refused(number)
                break
            reports.append(_report(kind, body))
    return reports


def subscribe() -> socket.socket:
    """Return a non-blocking socket on which the kernel reports each change of nftables in this network namespace.

    Needs no capability. Read it with `reports`; ENOBUFS from `recv` means that some were lost.
    """
    listener = _open()
    listener.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
    listener.setblocking(False)
    return listener


def reports(listener: socket.socket) -> list[Report]:
    """Return what has come in since. Raises what `recv` raises: BlockingIOError when nothing has."""
    return parse(listener.recv(_RECEIVE_BYTES))


def parse(data: bytes) -> list[Report]:
    """Split a run of messages."""
    return [_report(kind, body) for kind, _, _, body in _messages(data)]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a run of attributes into numbers and values, in the kernel's order; numbers may repeat in a list."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_TYPE, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _open() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    kernel.settimeout(_REPLY_SECONDS)
    return kernel


def _mark(kind: int, sequence: int) -> bytes:
    size = _HEADER.size + _FAMILY.size
    header = _HEADER.pack(size, kind, NLM_F_REQUEST, sequence, 0)
    return header + _FAMILY.pack(socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)


def _stream(kernel: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    while True:
        yield from _messages(kernel.recv(_RECEIVE_BYTES))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Split what one `recv` gave into (kind, flags, sequence, body)."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += _aligned(max(length, _HEADER.size))


def _verdicts(kernel: socket.socket) -> Iterator[tuple[int, int]]:
    return ((_error_number(body), seq) for kind, _, seq, body in _stream(kernel) if kind == NLMSG_ERROR)


def _error_number(body: bytes) -> int:
    return -int(struct.unpack_from("=i", body)[0]) if len(body) >= 4 else 0


def _report(kind: int, body: bytes) -> Report:
    return Report(kind & 0xFF, dict(attributes(body[_FAMILY.size :])))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
