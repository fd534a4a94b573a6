"""Real packets through real rules, between the namespaces of a lab."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv6Address

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.emulator.lab import netns
from podidentity.emulator.lab.network import Attach, Lab
from podidentity.node import redirect as redirects
from podidentity.node.drift import drifts
from podidentity.node.nftables import NetfilterPermissionError
from podidentity.node.redirect import SELF_TEST_MARK, Redirect

METADATA, NODE, NODE6 = IPv4Address("169.254.169.254"), IPv4Address("10.240.0.4"), IPv6Address("fd00::4")
REDIRECT = Redirect(METADATA, 80, NODE, 2579)
PODS = {"addressless": IPv4Address("10.244.0.10"), "bridged": IPv4Address("10.244.0.11")}
AT_ONCE = 2.0  # seconds for what arrives in microseconds when it arrives
A_WHILE = 0.3  # seconds in which something that is dropped has not arrived

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="compares with nft's own words")


@contextmanager
def node_with_pods():
    """A node with a pod of each kind, the agent's listener on it, and a stand-in for the metadata service."""
    with (
        Lab() as lab,
        closing(netns.socket_in(None, socket.AF_INET, str(METADATA), 80)) as metadata,
    ):
        lab.add_node("node", NODE, ipv6=NODE6)
        lab.add_pod("node", "addressless", PODS["addressless"], ipv6=IPv6Address("fd01::10"))
        lab.add_pod("node", "bridged", PODS["bridged"], attach=Attach.BRIDGE, ipv6=IPv6Address("fd01::11"))
        with (
            closing(netns.socket_in("node", socket.AF_INET, "0.0.0.0", 2579)) as agent,
            closing(netns.socket_in("node", socket.AF_INET6, "::", 2579)),
        ):
            for listener in (metadata, agent):
                listener.settimeout(AT_ONCE)
            yield lab, metadata, agent


def apply():
    netns.run_in("node", lambda: redirects.apply(REDIRECT))


def installed():
    return netns.run_in("node", lambda: redirects.installed(REDIRECT))


def caller_seen_by(listener, origin, address=METADATA, port=80):
    with netns.connection_in(origin, str(address), port, seconds=AT_ONCE), listener.accept()[0] as accepted:
        return IPv4Address(accepted.getpeername()[0])


def reaches(origin, address, port):
    try:
        netns.connection_in(origin, str(address), port, seconds=A_WHILE).close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_an_address_that_no_packet_can_be_sent_on_to_is_refused(address):
    with pytest.raises(ConfigurationError, match="it has to be an address of the node"):
        Redirect(METADATA, 80, IPv4Address(address), 2579)


@pytest.mark.netns
def test_pods_of_every_kind_reach_the_agent_under_their_own_address(isolated):
    def scenario():
        with node_with_pods() as (_, metadata, agent):
            for pod, address in PODS.items():
                assert caller_seen_by(metadata, pod) == address
            apply()
            for pod, address in PODS.items():
                assert caller_seen_by(agent, pod) == address

    isolated(scenario)


@pytest.mark.netns
def test_other_ports_of_the_metadata_address_stay_as_they_are(isolated):
    def scenario():
        with node_with_pods(), closing(netns.socket_in(None, socket.AF_INET, str(METADATA), 32526)) as wire:
            apply()
            assert caller_seen_by(wire, "addressless", port=32526) == PODS["addressless"]

    isolated(scenario)


@pytest.mark.netns
def test_only_the_node_itself_may_call_the_listener_directly(isolated):
    def scenario():
        with node_with_pods():
            for origin in (*PODS, None):
                assert reaches(origin, NODE, 2579)
            for pod in PODS:
                assert reaches(pod, NODE6, 2579)
            apply()
            for origin in (*PODS, None):
                assert not reaches(origin, NODE, 2579)
            for pod in PODS:
                assert not reaches(pod, NODE6, 2579)
            for address in (NODE, NODE6, "127.0.0.1", "::1"):
                assert reaches("node", address, 2579)

    isolated(scenario)


@pytest.mark.netns
def test_of_the_host_only_the_marked_self_test_is_redirected(isolated):
    def call_marked():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, SELF_TEST_MARK)
            probe.settimeout(AT_ONCE)
            probe.connect((str(METADATA), 80))

    def scenario():
        with node_with_pods() as (_, metadata, agent):
            apply()
            assert caller_seen_by(metadata, "node") == NODE
            netns.run_in("node", call_marked)
            with agent.accept()[0] as accepted:
                assert accepted.getpeername()[0] == str(NODE)

    isolated(scenario)


@pytest.mark.netns
def test_without_an_agent_pods_are_refused_and_never_reach_the_metadata_service(isolated):
    def scenario():
        with node_with_pods() as (_, metadata, agent):
            apply()
            agent.close()
            for pod in PODS:
                with pytest.raises(ConnectionRefusedError):
                    netns.connection_in(pod, str(METADATA), 80, seconds=AT_ONCE)
            metadata.setblocking(False)
            with pytest.raises(BlockingIOError):
                metadata.accept()

    isolated(scenario)


@pytest.mark.netns
def test_a_connection_older_than_the_rules_is_reset_instead_of_bypassing_the_agent(isolated):
    def scenario():
        # With rules of others, as kube-proxy has them, the kernel has long decided where an old connection goes.
        others = Redirect(METADATA, 81, NODE, 2580, table="others")
        with node_with_pods() as (_, metadata, agent):
            netns.run_in("node", lambda: redirects.apply(others))
            for pod, address in PODS.items():
                with netns.connection_in(pod, str(METADATA), 80) as old, metadata.accept()[0] as far:
                    apply()
                    old.send(b"GET /metadata/identity/oauth2/token")
                    with pytest.raises(ConnectionResetError):
                        old.recv(1)
                    far.settimeout(A_WHILE)
                    with pytest.raises(TimeoutError):
                        far.recv(1)
                assert caller_seen_by(agent, pod) == address
                netns.run_in("node", redirects.remove)

    isolated(scenario)


@pytest.mark.netns
def test_no_request_slips_through_while_the_rules_are_replaced(isolated):
    async def scenario():
        with node_with_pods() as (_, metadata, agent):
            apply()
            counts = {"agent": 0, "metadata": 0}
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for name, listener in (("agent", agent), ("metadata", metadata)):
                    listener.setblocking(False)
                    listener.listen(1024)
                    tasks.create_task(count(listener, name, counts, stop))
                await asyncio.gather(
                    *(asyncio.to_thread(netns.run_in, pod, lambda: call_for(1.0)) for pod in PODS),
                    asyncio.to_thread(netns.run_in, "node", lambda: replace_for(1.0)),
                )
                stop.set()
            assert counts["metadata"] == 0
            assert counts["agent"] > 100

    async def count(listener, name, counts, stop):
        loop = asyncio.get_running_loop()
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await asyncio.wait({accepting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not accepting.done():
                accepting.cancel()
                return
            accepting.result()[0].close()
            counts[name] += 1

    def call_for(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            socket.create_connection((str(METADATA), 80), timeout=AT_ONCE).close()

    def replace_for(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            redirects.apply(REDIRECT)

    isolated(scenario)


@pytest.mark.netns
@needs_nft
@pytest.mark.parametrize(
    "command",
    [
        "delete table inet podidentity",
        "flush ruleset",
        "flush table inet podidentity",
        "flush chain inet podidentity prerouting",
        "delete chain inet podidentity output",
        "insert rule inet podidentity input accept",
        "add rule inet podidentity prerouting drop",
        "add table inet podidentity { flags dormant; }",
        "add chain inet podidentity input { policy drop; }",
    ],
)
def test_foreign_changes_are_noticed_and_repaired_at_once(isolated, command):
    async def scenario():
        with node_with_pods() as (_, _, agent):
            await asyncio.to_thread(netns.run_in, "node", lambda: asyncio.run(in_node()))
            assert caller_seen_by(agent, "addressless") == PODS["addressless"]

    async def in_node():
        noticed: list[str] = []
        async with asyncio.timeout(AT_ONCE):
            async for _ in drifts(REDIRECT, 60.0):
                if noticed:
                    break
                noticed.append("nothing was there")
                redirects.apply(REDIRECT)
                asyncio.get_running_loop().call_later(0.15, lambda: subprocess.run(["nft", command], check=True))
        assert not redirects.installed(REDIRECT)
        redirects.apply(REDIRECT)
        assert redirects.installed(REDIRECT)

    isolated(scenario)


@pytest.mark.netns
def test_a_replaced_rule_is_noticed_even_under_the_same_comment(isolated):
    def scenario():
        with node_with_pods():
            apply()
            assert installed()
            other = Redirect(METADATA, 80, NODE, 2580)
            netns.run_in("node", lambda: redirects.apply(other))
            assert not installed()

    isolated(scenario)


@pytest.mark.netns
def test_own_changes_do_not_count_as_drift(isolated):
    async def scenario():
        times = 0
        try:
            async with asyncio.timeout(0.5):
                async for _ in drifts(REDIRECT, 60.0):
                    times += 1
                    redirects.apply(REDIRECT)
        except TimeoutError:
            pass
        assert times == 1

    isolated(scenario)


@pytest.mark.netns
def test_a_drift_that_nobody_repairs_is_told_again_but_not_all_the_time(isolated):
    async def scenario():
        times = 0
        try:
            async with asyncio.timeout(0.5):
                async for _ in drifts(REDIRECT, 60.0):
                    times += 1
        except TimeoutError:
            pass
        assert 3 <= times <= 6

    isolated(scenario)


@pytest.mark.netns
def test_removal_gives_the_metadata_service_back_and_leaves_other_tables(isolated):
    def scenario():
        with node_with_pods() as (_, metadata, _):
            apply()
            netns.run_in("node", lambda: redirects.apply(Redirect(METADATA, 81, NODE, 2580, table="other")))
            netns.run_in("node", redirects.remove)
            assert caller_seen_by(metadata, "addressless") == PODS["addressless"]
            assert netns.run_in(
                "node", lambda: redirects.installed(Redirect(METADATA, 81, NODE, 2580, table="other"))
            )

    isolated(scenario)


@pytest.mark.netns
def test_the_preflight_checks_without_a_trace(isolated):
    def scenario():
        redirects.preflight(REDIRECT)
        assert not redirects.installed(REDIRECT)

    isolated(scenario)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a second user to become")
def test_the_preflight_names_a_missing_capability(isolated):
    def scenario():
        os.setresuid(65534, 65534, 65534)  # of all capabilities none is left
        with pytest.raises(NetfilterPermissionError, match="NET_ADMIN"):
            redirects.preflight(REDIRECT)

    isolated(scenario)


@pytest.mark.netns
@needs_nft
def test_nft_shows_who_owns_which_rule(isolated):
    def scenario():
        with node_with_pods():
            apply()
            command = ["nft", "--stateless", "list", "table", "inet", "podidentity"]
            listed = netns.run_in("node", lambda: subprocess.check_output(command, text=True))
            assert [line.strip() for line in listed.splitlines() if line.strip()] == LISTED

    isolated(scenario)


@pytest.mark.netns
@needs_nft
def test_the_rules_of_others_keep_working_and_do_not_get_in_between(isolated):
    def scenario():
        with node_with_pods() as (_, _, agent), closing(netns.socket_in("node", socket.AF_INET, "", 2590)) as service:
            netns.run_in("node", lambda: subprocess.run(["nft", "-f", "-"], input=OTHERS, text=True, check=True))
            apply()
            for pod, address in PODS.items():
                assert caller_seen_by(agent, pod) == address
                assert caller_seen_by(service, pod, "10.0.0.1", 443) == address

    isolated(scenario)


# What iptables-nft makes of the rules of upstream's NMI, of a Service as kube-proxy has it, and of a host's firewall.
OTHERS = f"""
table ip nat {{
  chain PREROUTING {{
    type nat hook prerouting priority dstnat;
    ip saddr != 127.0.0.1 ip daddr {METADATA} tcp dport 80 dnat to 127.0.0.1:2579
    ip daddr 10.0.0.1 tcp dport 443 dnat to {NODE}:2590
  }}
  chain OUTPUT {{ type nat hook output priority -100; ip daddr {METADATA} meta mark set mark or 0x4000; }}
  chain POSTROUTING {{ type nat hook postrouting priority srcnat; mark and 0x4000 == 0x4000 masquerade; }}
}}
table ip filter {{
  chain INPUT {{ type filter hook input priority filter; ct state established,related accept; }}
  chain FORWARD {{ type filter hook forward priority filter; policy drop; ct state established,related accept; }}
}}
"""

LISTED = """
table inet podidentity {
chain prerouting {
type nat hook prerouting priority dstnat - 10; policy accept;
ip daddr 169.254.169.254 tcp dport 80 counter dnat ip to 10.240.0.4:2579 comment "pods reach the node agent"
}
chain output {
type nat hook output priority -110; policy accept;
meta mark & 0x0000ffff == 0x0000005a ip daddr 169.254.169.254 tcp dport 80 counter \
dnat ip to 10.240.0.4:2579 comment "the agent tests itself"
}
chain forward {
type filter hook forward priority filter; policy accept;
ip daddr 169.254.169.254 tcp dport 80 counter reject with tcp reset comment "older than the rules"
}
chain input {
type filter hook input priority filter; policy accept;
tcp dport 2579 iif "lo" accept comment "the node itself"
tcp dport 2579 ct original ip daddr 169.254.169.254 accept comment "redirected"
tcp dport 2579 counter drop comment "no direct calls"
}
}
""".strip().splitlines()
