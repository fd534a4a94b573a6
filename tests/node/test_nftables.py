import errno
import os
import socket
from ipaddress import IPv4Address

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_NEWTABLE, nft_table_msg

from podidentity.node import nfnetlink, nftables
from podidentity.node.expressions import ACCEPT, COUNTER, DROP, dnat, tcp_destination
from podidentity.node.nfnetlink import Message, Refused
from podidentity.node.nftables import (
    Chain,
    Hook,
    NetfilterError,
    NetfilterPermissionError,
    NetfilterUnsupportedError,
    Rule,
    Table,
)


def chain(*rules, name="input", priority=0):
    return Chain(name=name, kind="filter", hook=Hook.INPUT, priority=priority, rules=rules)


ALLOW = Rule("allow", (*tcp_destination(1), COUNTER, ACCEPT))
REFUSE = Rule("refuse", (*tcp_destination(1), DROP))
TABLE = Table("lab", (chain(ALLOW, REFUSE),))


@pytest.mark.netns
def test_a_table_is_there_after_replace_and_gone_after_remove(isolated):
    def scenario():
        assert not nftables.holds(TABLE)
        nftables.replace(TABLE)
        assert nftables.holds(TABLE)
        nftables.remove("lab")
        assert not nftables.holds(TABLE)
        nftables.remove("lab")

    isolated(scenario)


@pytest.mark.netns
def test_replace_takes_the_place_of_whatever_was_there(isolated):
    def scenario():
        other = Table("lab", (chain(REFUSE, name="other", priority=5), chain(ALLOW, priority=7)))
        nftables.replace(other)
        nftables.replace(TABLE)
        assert nftables.holds(TABLE)
        assert not nftables.holds(other)

    isolated(scenario)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((chain(REFUSE, ALLOW),), id="another order of the rules"),
        pytest.param((chain(ALLOW),), id="a rule less"),
        pytest.param((chain(ALLOW, REFUSE, REFUSE),), id="a rule more"),
        pytest.param((chain(ALLOW, Rule("refuse", (*tcp_destination(2), DROP))),), id="another port"),
        pytest.param((chain(ALLOW, Rule("refuse", (*tcp_destination(1), ACCEPT))),), id="another verdict"),
        pytest.param((chain(ALLOW, Rule("refuse", (DROP,))),), id="another condition"),
        pytest.param((chain(ALLOW, Rule("reject", REFUSE.expressions)),), id="another comment"),
        pytest.param((chain(ALLOW, REFUSE, priority=1),), id="another priority"),
        pytest.param((chain(ALLOW, REFUSE), chain(name="more")), id="a chain more"),
        pytest.param((), id="no chain"),
    ],
)
@pytest.mark.netns
def test_any_difference_is_noticed(other, isolated):
    def scenario():
        nftables.replace(Table("lab", other))
        assert nftables.holds(Table("lab", other))
        assert not nftables.holds(TABLE)

    isolated(scenario)


@pytest.mark.netns
def test_trying_out_leaves_nothing_and_touches_no_table_of_others(isolated):
    def scenario():
        nftables.replace(Table("neighbour", TABLE.chains))
        nftables.try_out(TABLE)
        assert not nftables.holds(TABLE)
        assert nftables.holds(Table("neighbour", TABLE.chains))

    isolated(scenario)


@pytest.mark.netns
def test_a_failure_in_the_middle_leaves_the_old_rules_and_names_the_rule(isolated):
    def scenario():
        nftables.replace(TABLE)
        wrong = Rule("no nat here", dnat(IPv4Address("192.0.2.1"), 1))  # a filter chain cannot rewrite
        with pytest.raises(NetfilterError, match="cannot add rule 'no nat here' to chain input: "):
            nftables.replace(Table("lab", (chain(REFUSE, ALLOW, wrong),)))
        assert nftables.holds(TABLE)

    isolated(scenario)


def test_an_expression_that_the_kernel_lacks_is_named_with_its_module(monkeypatch):
    def lack_the_rule(_messages):
        raise Refused(errno.ENOENT, 2)

    monkeypatch.setattr(nfnetlink, "transact", lack_the_rule)
    with pytest.raises(NetfilterUnsupportedError, match=r"the kernel has no nft_nat \(CONFIG_NFT_NAT\)"):
        nftables.try_out(Table("lab", (chain(Rule("nat", dnat(IPv4Address("192.0.2.1"), 1))),)))


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a second user to become")
def test_without_net_admin_every_call_says_so_at_once(isolated):
    def scenario():
        nftables.replace(TABLE)
        os.setresuid(65534, 65534, 65534)  # of all capabilities none is left
        for call in (nftables.replace, nftables.try_out, nftables.holds):
            with pytest.raises(NetfilterPermissionError, match="NET_ADMIN is missing"):
                call(TABLE)

    isolated(scenario)


def test_a_kernel_that_never_answers_is_given_up(monkeypatch):
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(0.01)
    monkeypatch.setattr(nfnetlink, "_open", lambda: ours)
    with kernel, pytest.raises(NetfilterError, match="cannot add table lab: the kernel did not answer"):
        nftables.replace(TABLE)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EPROTONOSUPPORT])
def test_a_kernel_without_nftables_is_named(monkeypatch, number):
    def refuse(_messages):
        raise Refused(number)

    monkeypatch.setattr(nfnetlink, "transact", refuse)
    with pytest.raises(NetfilterUnsupportedError, match="CONFIG_NF_TABLES"):
        nftables.replace(TABLE)


@pytest.mark.netns
def test_another_owner_of_the_table_is_no_missing_capability(isolated):
    def scenario():
        owned = ("NFTA_TABLE_FLAGS", 2)  # NFT_TABLE_F_OWNER: nobody else's while its socket is open
        change = Message(NFT_MSG_NEWTABLE, nft_table_msg, [("NFTA_TABLE_NAME", "lab"), owned], NLM_F_CREATE)
        with nfnetlink._open() as owner:
            owner.send(nfnetlink._mark(0x10, 0) + change.encode(1, NLM_F_ACK) + nfnetlink._mark(0x11, 2))
            assert nfnetlink.parse(owner.recv(4096))
            with pytest.raises(NetfilterPermissionError, match="another process owns the table"):
                nftables.replace(TABLE)

    isolated(scenario)
