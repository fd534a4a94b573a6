"""One nftables table of family inet, described as data, and replaced, removed and compared through netlink.

    Table ── Chain (a hook of the kernel) ── Rule (a comment) ── Expression (one step of the kernel's machine)

A table goes to the kernel as one transaction: all of it holds afterwards, or nothing of it. `nft` is not needed.

Errors are `NetfilterError` and its two special cases; each is one line that says what was being done.
Source of the numbers: linux/netfilter/nf_tables.h, linux/netfilter.h.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE
from pyroute2.netlink.nfnetlink import nftsocket

from podidentity.api.errors import PodIdentityError
from podidentity.node import nfnetlink
from podidentity.node.nfnetlink import Message, Refused, Report

_READS = 5  # somebody else's transaction each time would be no accident
_POLICY_ACCEPT = 1
_UNSUPPORTED = {errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
_NF_TABLES = "nf_tables with the inet family (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)"
_NAT_CHAINS = "NAT in inet tables (nft_chain_nat, CONFIG_NFT_NAT, Linux 5.2 or newer)"
# Expressions that may be modules of their own; the others are part of nf_tables.
_MODULES = {
    "counter": "nft_counter (CONFIG_NFT_COUNTER)",
    "ct": "nft_ct (CONFIG_NFT_CT)",
    "nat": "nft_nat (CONFIG_NFT_NAT)",
    "reject": "nft_reject_inet (CONFIG_NFT_REJECT_INET)",
}

# Numbers of attributes in what the kernel reports. The first is the table's name in every kind of message.
_TABLE_NAME, _TABLE_FLAGS = 1, 2
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2

_LIST_CHAINS = Message(nftsocket.NFT_MSG_GETCHAIN, nftsocket.nft_chain_msg, [])
_LIST_RULES = Message(nftsocket.NFT_MSG_GETRULE, nftsocket.nft_rule_msg, [])


class NetfilterError(PodIdentityError):
    """The kernel refused something of netfilter; says what was being done and why it failed."""


class NetfilterPermissionError(NetfilterError):
    """The process may not change netfilter: it lacks CAP_NET_ADMIN, or another process owns the table."""


class NetfilterUnsupportedError(NetfilterError):
    """The kernel lacks a part of nftables; says which module or option provides it."""


class Hook(IntEnum):
    """Where on a packet's way a chain is called."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3


@dataclass(frozen=True, slots=True)
class Expression:
    """One step of a rule: the kernel's name for it, and attributes as pyroute2 encodes them."""

    name: str
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Steps that run from left to right until one does not match. `nft list` shows the comment."""

    comment: str
    expressions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Rules at a hook; what no rule decides is accepted. `kind` is "nat" or "filter"; lower priorities go first."""

    name: str
    kind: str
    hook: Hook
    priority: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of family inet, that is of IPv4 and IPv6 together."""

    name: str
    chains: tuple[Chain, ...]


def replace(table: Table) -> None:
    """Put the table in the place of whatever has its name; no packet sees anything between the two."""
    _commit([_add_table(table.name), _delete_table(table.name), *_create(table)])


def remove(name: str) -> None:
    """Remove a table with all that is in it; one that is not there is fine."""
    _commit([_add_table(name), _delete_table(name)])


def try_out(table: Table) -> None:
    """Let the kernel check a table without ever using it: it is made and removed in one transaction."""
    _commit([*_create(table), _delete_table(table.name)])


def holds(table: Table) -> bool:
    """Tell whether the kernel has this very table: its chains, its rules in their order, and not dormant.

    Counters make no difference, nor do attributes that the kernel adds by itself.
    """
    try:
        for _ in range(_READS):
            try:
                return _compare(table)
            except nfnetlink.InterruptedDump:
                continue
    except OSError as error:
        _fail(f"read table {table.name}", error, needs=_NF_TABLES)
    raise NetfilterError(f"cannot read table {table.name}: it changed during each of {_READS} reads")


def table_of(report: Report) -> str | None:
    """Return the name of the table that a report of a change is about; None at the end of a transaction."""
    if report.kind == nftsocket.NFT_MSG_NEWGEN:
        return None
    return _text(report.attributes.get(_TABLE_NAME, b""))


@dataclass(frozen=True, slots=True)
class _Change:
    """A message of a transaction. `does` completes "cannot …"; `needs` is what a kernel may lack for it."""

    does: str
    message: Message
    needs: str = ""


def _add_table(name: str) -> _Change:
    message = _about_table(nftsocket.NFT_MSG_NEWTABLE, name, NLM_F_CREATE)
    return _Change(f"add table {name}", message, _NF_TABLES)


def _delete_table(name: str) -> _Change:
    return _Change(f"remove table {name}", _about_table(nftsocket.NFT_MSG_DELTABLE, name))


def _about_table(kind: int, name: str, flags: int = 0) -> Message:
    return Message(kind, nftsocket.nft_table_msg, [("NFTA_TABLE_NAME", name)], flags)


def _create(table: Table) -> Iterator[_Change]:
    yield _add_table(table.name)
    for chain in table.chains:
        yield _add_chain(table.name, chain)
        for rule in chain.rules:
            yield _add_rule(table.name, chain.name, rule)


def _add_chain(table: str, chain: Chain) -> _Change:
    message = Message(
        nftsocket.NFT_MSG_NEWCHAIN,
        nftsocket.nft_chain_msg,
        [("NFTA_CHAIN_TABLE", table), ("NFTA_CHAIN_NAME", chain.name), *_chain_attributes(chain)],
        NLM_F_CREATE,
    )
    needs = _NAT_CHAINS if chain.kind == "nat" else _NF_TABLES
    return _Change(f"add chain {chain.name} to table {table}", message, needs)


def _chain_attributes(chain: Chain) -> list[tuple[str, Any]]:
    hook = [("NFTA_HOOK_HOOKNUM", int(chain.hook)), ("NFTA_HOOK_PRIORITY", chain.priority)]
    return [
        ("NFTA_CHAIN_HOOK", {"attrs": hook}),
        ("NFTA_CHAIN_TYPE", chain.kind),
        ("NFTA_CHAIN_POLICY", _POLICY_ACCEPT),
    ]


def _add_rule(table: str, chain: str, rule: Rule) -> _Change:
    message = Message(
        nftsocket.NFT_MSG_NEWRULE,
        nftsocket.nft_rule_msg,
        [("NFTA_RULE_TABLE", table), ("NFTA_RULE_CHAIN", chain), *_rule_attributes(rule)],
        NLM_F_CREATE | NLM_F_APPEND,
    )
    modules = [_MODULES[step.name] for step in rule.expressions if step.name in _MODULES]
    return _Change(f"add rule {rule.comment!r} to chain {chain}", message, " or ".join(modules))


def _rule_attributes(rule: Rule) -> list[tuple[str, Any]]:
    expressions = [
        {"attrs": [("NFTA_EXPR_NAME", step.name), ("NFTA_EXPR_DATA", {"attrs": list(step.attributes)})]}
        for step in rule.expressions
    ]
    return [("NFTA_RULE_EXPRESSIONS", expressions), ("NFTA_RULE_USERDATA", {"value": rule.comment})]


def _compare(table: Table) -> bool:
    if not _active(table.name):
        return False
    chains = {_text(report.attributes[_CHAIN_NAME]): report for report in _all_of(table.name, _LIST_CHAINS)}
    rules: dict[str, list[Report]] = {name: [] for name in chains}
    for report in _all_of(table.name, _LIST_RULES):
        rules[_text(report.attributes[_RULE_CHAIN])].append(report)
    return chains.keys() == {chain.name for chain in table.chains} and all(
        _same_chain(chain, chains[chain.name]) and _same_rules(chain.rules, rules[chain.name])
        for chain in table.chains
    )


def _active(table: str) -> bool:
    """Tell whether the table is there, with no flag: a dormant one is there, and does nothing."""
    try:
        [report] = nfnetlink.query(_about_table(nftsocket.NFT_MSG_GETTABLE, table))
    except Refused as refusal:
        if refusal.errno == errno.ENOENT:
            return False
        raise
    return not any(report.attributes[_TABLE_FLAGS])


def _all_of(table: str, listing: Message) -> list[Report]:
    """Return the chains or rules of one table: the kernel lists those of every table."""
    return [report for report in nfnetlink.query(listing, dump=True) if table_of(report) == table]


def _same_chain(chain: Chain, report: Report) -> bool:
    [wanted] = nfnetlink.parse(_add_chain("", chain).message.encode(0))
    hooks = [dict(nfnetlink.attributes(r.attributes.get(_CHAIN_HOOK, b""))) for r in (wanted, report)]
    return hooks[0] == hooks[1] and all(
        wanted.attributes[number] == report.attributes.get(number) for number in (_CHAIN_TYPE, _CHAIN_POLICY)
    )


def _same_rules(rules: Sequence[Rule], found: Sequence[Report]) -> bool:
    wanted = [nfnetlink.parse(_add_rule("", "", rule).message.encode(0))[0] for rule in rules]
    return len(wanted) == len(found) and all(map(_same_rule, wanted, found))


def _same_rule(wanted: Report, found: Report) -> bool:
    steps, others = list(_steps(wanted)), list(_steps(found))
    return (
        wanted.attributes[_RULE_USERDATA] == found.attributes.get(_RULE_USERDATA)
        and len(steps) == len(others)
        and all(a == b and x.items() <= y.items() for (a, x), (b, y) in zip(steps, others, strict=True))
    )


def _steps(rule: Report) -> Iterator[tuple[str, dict[int, bytes]]]:
    for _, expression in nfnetlink.attributes(rule.attributes.get(_RULE_EXPRESSIONS, b"")):
        parts = dict(nfnetlink.attributes(expression))
        name, data = parts.get(_EXPRESSION_NAME, b""), parts.get(_EXPRESSION_DATA, b"")
        yield _text(name), dict(nfnetlink.attributes(data))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _commit(changes: Sequence[_Change]) -> None:
    try:
        nfnetlink.transact([change.message for change in changes])
    except Refused as refusal:
        failed = changes[max(refusal.index, 0)]
        _fail(failed.does, refusal, needs=failed.needs)
    except OSError as error:
        _fail(changes[0].does, error, needs=_NF_TABLES)


def _fail(does: str, error: OSError, *, needs: str) -> NoReturn:
    if isinstance(error, TimeoutError):
        raise NetfilterError(f"cannot {does}: the kernel did not answer") from error
    number = error.errno or 0
    if number == errno.EPERM and getattr(error, "index", -1) < 0:
        message = f"cannot {does}: the capability NET_ADMIN is missing (securityContext.capabilities.add)"
        raise NetfilterPermissionError(message) from error
    if number == errno.EPERM:
        raise NetfilterPermissionError(f"cannot {does}: another process owns the table") from error
    if needs and number in _UNSUPPORTED:
        raise NetfilterUnsupportedError(f"cannot {does}: the kernel has no {needs}") from error
    raise NetfilterError(f"cannot {does}: {os.strerror(number)}") from error
