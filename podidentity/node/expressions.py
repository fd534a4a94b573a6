"""The steps of which our rules consist, in the kernel's terms: what to match, and what to do then.

A matcher loads something of the packet into a register and compares it; what does not compare equal ends the rule.
In a table of family inet each matcher of IPv4 or of TCP asks for the protocol first.

Source of the numbers: linux/netfilter/nf_tables.h.
"""

import socket
import struct
from ipaddress import IPv4Address

from podidentity.node.nftables import Expression

_REGISTER_VERDICT, _REGISTER_1, _REGISTER_2 = 0, 1, 2
_META_MARK, _META_IIF, _META_NFPROTO, _META_L4PROTO = 3, 4, 15, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_IPV4_DESTINATION, _TCP_DESTINATION = 16, 2  # offsets in bytes
_CT_DST_IP, _CT_ORIGINAL = 0x14, 0
_NFPROTO_IPV4 = 2
_CMP_EQ = 0
_NAT_DNAT = 1
_REJECT_TCP_RESET = 1
_DROP, _ACCEPT = 0, 1
_LOOPBACK_INDEX = 1  # of `lo`, in every network namespace


def ipv4_destination(address: IPv4Address) -> tuple[Expression, ...]:
    """Match IPv4 packets that are on their way to an address, as the packet says it at this hook."""
    return (
        _meta(_META_NFPROTO),
        _equals(bytes([_NFPROTO_IPV4])),
        _payload(_NETWORK_HEADER, _IPV4_DESTINATION, length=4),
        _equals(address.packed),
    )


def tcp_destination(port: int) -> tuple[Expression, ...]:
    """Match TCP to a port, over IPv4 and IPv6."""
    return (
        _meta(_META_L4PROTO),
        _equals(bytes([socket.IPPROTO_TCP])),
        _payload(_TRANSPORT_HEADER, _TCP_DESTINATION, length=2),
        _equals(struct.pack("!H", port)),
    )


def mark(value: int, mask: int) -> tuple[Expression, ...]:
    """Match packets whose mark (`SO_MARK` of their socket), under the mask, is the value."""
    masked = Expression(
        "bitwise",
        (
            ("NFTA_BITWISE_SREG", _REGISTER_1),
            ("NFTA_BITWISE_DREG", _REGISTER_1),
            ("NFTA_BITWISE_LEN", 4),
            ("NFTA_BITWISE_MASK", _data(struct.pack("=I", mask))),
            ("NFTA_BITWISE_XOR", _data(bytes(4))),
        ),
    )
    return _meta(_META_MARK), masked, _equals(struct.pack("=I", value))


def original_ipv4_destination(address: IPv4Address) -> tuple[Expression, ...]:
    """Match connections that were made to an address, whatever has rewritten it since; never those of IPv6."""
    destination = Expression(
        "ct",
        (("NFTA_CT_KEY", _CT_DST_IP), ("NFTA_CT_DREG", _REGISTER_1), ("NFTA_CT_DIRECTION", _CT_ORIGINAL)),
    )
    return destination, _equals(address.packed)


def dnat(address: IPv4Address, port: int) -> tuple[Expression, ...]:
    """Send the connection to another address and port. Ends the rule."""
    rewrite = Expression(
        "nat",
        (
            ("NFTA_NAT_TYPE", _NAT_DNAT),
            ("NFTA_NAT_FAMILY", _NFPROTO_IPV4),
            ("NFTA_NAT_REG_ADDR_MIN", _REGISTER_1),
            ("NFTA_NAT_REG_PROTO_MIN", _REGISTER_2),
        ),
    )
    return _load(_REGISTER_1, address.packed), _load(_REGISTER_2, struct.pack("!H", port)), rewrite


def _meta(key: int) -> Expression:
    return Expression("meta", (("NFTA_META_KEY", key), ("NFTA_META_DREG", _REGISTER_1)))


def _payload(header: int, offset: int, *, length: int) -> Expression:
    return Expression(
        "payload",
        (
            ("NFTA_PAYLOAD_DREG", _REGISTER_1),
            ("NFTA_PAYLOAD_BASE", header),
            ("NFTA_PAYLOAD_OFFSET", offset),
            ("NFTA_PAYLOAD_LEN", length),
        ),
    )


def _equals(value: bytes) -> Expression:
    return Expression(
        "cmp",
        (("NFTA_CMP_SREG", _REGISTER_1), ("NFTA_CMP_OP", _CMP_EQ), ("NFTA_CMP_DATA", _data(value))),
    )


def _load(register: int, value: bytes) -> Expression:
    return Expression("immediate", (("NFTA_IMMEDIATE_DREG", register), ("NFTA_IMMEDIATE_DATA", _data(value))))


def _verdict(code: int) -> Expression:
    verdict = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code)]})]}
    return Expression("immediate", (("NFTA_IMMEDIATE_DREG", _REGISTER_VERDICT), ("NFTA_IMMEDIATE_DATA", verdict)))


def _data(value: bytes) -> dict[str, list[tuple[str, bytes]]]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


COUNTER = Expression("counter")
ACCEPT = _verdict(_ACCEPT)
DROP = _verdict(_DROP)
RESET = Expression("reject", (("NFTA_REJECT_TYPE", _REJECT_TCP_RESET),))
OVER_LOOPBACK = (_meta(_META_IIF), _equals(struct.pack("=I", _LOOPBACK_INDEX)))
