"""The redirect: what pods send to the metadata service arrives at the node agent instead.

    prerouting  a pod's packet to METADATA:PORT          → NODE:LISTEN
    output      the same from the agent's own self-test, and from nothing else of the host
    forward     a connection to METADATA:PORT that is older than the rules is reset: it would bypass the agent
    input       LISTEN takes what came over loopback or was sent to METADATA; all else, IPv4 and IPv6, is dropped

The destination is the node's own address because the two obvious ways fail: 127.0.0.1 needs the sysctl
`route_localnet`, which kube-proxy no longer sets, and the `redirect` statement takes the address of the interface
that the packet came in on, which has none on many networks (Calico, Azure CNI in transparent mode). The price is
that every pod could call the listener directly, and lie about nothing but still skip the redirect: hence `input`.

The rules stay when the agent ends, so that pods are refused then rather than handed the identities of the VM.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from podidentity.api.errors import ConfigurationError
from podidentity.node import expressions as match
from podidentity.node import nftables
from podidentity.node.nftables import Chain, Hook, Rule, Table

# The mark of the agent's self-test. Others use the bits of a mark for themselves: kube-proxy 0x4000 and 0x8000,
# Cilium 0x0f00, Azure NPM 0x1000 and 0x2000, the AWS CNI 0x80, Calico the upper half. So: a value without any of
# those bits, compared under a mask that lets Calico do in the upper half what it likes.
SELF_TEST_MARK = 0x5A
SELF_TEST_MARK_MASK = 0xFFFF

# Before all that others do about destinations (kube-proxy, Docker, upstream's NMI: -100), and in `input` and
# `forward` where filters usually are.
_PRIORITY_DNAT, _PRIORITY_FILTER = -110, 0


@dataclass(frozen=True, slots=True)
class Redirect:
    """From where to where; `listen_address` is an address of the node itself, never loopback."""

    metadata_address: IPv4Address
    metadata_port: int
    listen_address: IPv4Address
    listen_port: int
    table: str = "podidentity"

    def __post_init__(self) -> None:
        if self.listen_address.is_loopback or self.listen_address.is_unspecified:
            raise ConfigurationError(
                f"pods cannot be redirected to {self.listen_address}: it has to be an address of the node"
            )


def ruleset(redirect: Redirect) -> Table:
    """Describe the rules of a redirect."""
    to_metadata = (
        *match.ipv4_destination(redirect.metadata_address),
        *match.tcp_destination(redirect.metadata_port),
        match.COUNTER,
    )
    to_agent = match.dnat(redirect.listen_address, redirect.listen_port)
    to_listener = match.tcp_destination(redirect.listen_port)
    marked = match.mark(SELF_TEST_MARK, SELF_TEST_MARK_MASK)
    redirected = match.original_ipv4_destination(redirect.metadata_address)
    return Table(
        redirect.table,
        (
            _nat("prerouting", Hook.PREROUTING, Rule("pods reach the node agent", (*to_metadata, *to_agent))),
            _nat("output", Hook.OUTPUT, Rule("the agent tests itself", (*marked, *to_metadata, *to_agent))),
            _filter("forward", Hook.FORWARD, Rule("older than the rules", (*to_metadata, match.RESET))),
            _filter(
                "input",
                Hook.INPUT,
                Rule("the node itself", (*to_listener, *match.OVER_LOOPBACK, match.ACCEPT)),
                Rule("redirected", (*to_listener, *redirected, match.ACCEPT)),
                Rule("no direct calls", (*to_listener, match.COUNTER, match.DROP)),
            ),
        ),
    )


def _nat(name: str, hook: Hook, *rules: Rule) -> Chain:
    return Chain(name=name, kind="nat", hook=hook, priority=_PRIORITY_DNAT, rules=rules)


def _filter(name: str, hook: Hook, *rules: Rule) -> Chain:
    return Chain(name=name, kind="filter", hook=hook, priority=_PRIORITY_FILTER, rules=rules)


def apply(redirect: Redirect) -> None:
    """Put the rules into the kernel, whatever was in our table before. Raises `NetfilterError`."""
    nftables.replace(ruleset(redirect))


def remove(table: str = "podidentity") -> None:
    """Take the rules away: pods reach the real metadata service again. Raises `NetfilterError`."""
    nftables.remove(table)


def installed(redirect: Redirect) -> bool:
    """Tell whether the kernel has exactly these rules. Raises `NetfilterError`."""
    return nftables.holds(ruleset(redirect))


def preflight(redirect: Redirect) -> None:
    """Have the kernel check the rules without using them.

    Raises `NetfilterPermissionError` or `NetfilterUnsupportedError` with what is missing.
    """
    nftables.try_out(ruleset(replace(redirect, table=f"{redirect.table}-preflight")))
