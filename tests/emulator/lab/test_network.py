import socket
import time
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from podidentity.emulator.lab import netns
from podidentity.emulator.lab.network import METADATA_ADDRESS, Attach, Lab

pytestmark = pytest.mark.netns

NODES = {"node-a": IPv4Address("10.240.0.4"), "node-b": IPv4Address("10.240.0.5")}
PODS = {
    "pod-1": ("node-a", IPv4Address("10.244.0.10"), Attach.ADDRESSLESS),
    "pod-2": ("node-a", IPv4Address("10.244.0.11"), Attach.BRIDGE),
    "pod-3": ("node-a", IPv4Address("10.244.0.12"), Attach.BRIDGE),
    "pod-4": ("node-b", IPv4Address("10.244.1.10"), Attach.ADDRESSLESS),
    "pod-5": ("node-b", IPv4Address("10.244.1.11"), Attach.BRIDGE),
}
ADDRESSES = NODES | {name: address for name, (_, address, _) in PODS.items()}


def fill(lab):
    for name, address in NODES.items():
        lab.add_node(name, address)
    for name, (node, address, attach) in PODS.items():
        lab.add_pod(node, name, address, attach=attach)


def links():
    with IPRoute() as ip:
        return {link.get("ifname") for link in ip.get_links()}


def caller_seen_at(listener, origin, address, port):
    with netns.connection_in(origin, str(address), port), listener.accept()[0] as accepted:
        return accepted.getpeername()[0]


def test_everybody_reaches_the_metadata_address_under_the_own_address(isolated):
    def scenario():
        with Lab() as lab, closing(netns.socket_in(None, socket.AF_INET, str(METADATA_ADDRESS), 80)) as listener:
            fill(lab)
            seen = {name: caller_seen_at(listener, name, METADATA_ADDRESS, 80) for name in ADDRESSES}
            assert seen == {name: str(address) for name, address in ADDRESSES.items()}

    isolated(scenario)


def test_everybody_reaches_everybody(isolated):
    def scenario():
        with Lab() as lab:
            fill(lab)
            for server, address in ADDRESSES.items():
                with closing(netns.socket_in(server, socket.AF_INET, "0.0.0.0", 99)) as listener:
                    for client in ADDRESSES.keys() - {server}:
                        seen = caller_seen_at(listener, client, address, 99)
                        # A node calls its own pods behind a bridge under the bridge's address, as nodes do.
                        assert seen == str(ADDRESSES[client]) or (client in NODES and seen.endswith(".1"))

    isolated(scenario)


def test_the_base_calls_under_the_gateway_s_address(isolated):
    def scenario():
        with Lab() as lab:
            fill(lab)
            for name, address in ADDRESSES.items():
                with closing(netns.socket_in(name, socket.AF_INET, "0.0.0.0", 99)) as listener:
                    assert caller_seen_at(listener, None, address, 99) == str(lab.gateway)

    isolated(scenario)


def test_the_host_side_of_an_addressless_pod_has_no_address(isolated):
    def addresses(link):
        with IPRoute() as ip:
            [index] = ip.link_lookup(ifname=link)
            return list(ip.get_addr(index=index, family=socket.AF_INET))

    def scenario():
        with Lab() as lab:
            fill(lab)
            assert netns.run_in("node-a", lambda: addresses(lab.pods["pod-1"].link)) == []

    isolated(scenario)


def test_pods_and_their_node_talk_ipv6_without_waiting(isolated):
    def scenario():
        with Lab() as lab:
            lab.add_node("node", NODES["node-a"], ipv6=IPv6Address("fd00::4"))
            with closing(netns.socket_in("node", socket.AF_INET6, "::", 99)) as listener:
                for number, attach in enumerate(Attach, 10):
                    address = IPv4Address(f"10.244.0.{number}")
                    pod = lab.add_pod(
                        "node", attach.value, address, attach=attach, ipv6=IPv6Address(f"fd01::{number}")
                    )
                    assert caller_seen_at(listener, pod.name, "fd00::4", 99) == str(pod.ipv6)

    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("the kernel has no IPv6")
    isolated(scenario)


def test_a_removed_pod_is_gone_and_its_address_is_free_again(isolated):
    def scenario():
        with Lab() as lab:
            fill(lab)
            before = netns.run_in("node-a", links)
            for name in ("pod-1", "pod-2"):
                node, address, attach = PODS[name]
                removed = lab.pods[name].link
                lab.remove_pod(name)
                with pytest.raises(FileNotFoundError):
                    netns.run_in(name, links)
                assert netns.run_in("node-a", links) == before - {removed}
                lab.add_pod(node, name, address, attach=attach)
                before = netns.run_in("node-a", links)
            with closing(netns.socket_in("pod-1", socket.AF_INET, "0.0.0.0", 99)) as listener:
                assert caller_seen_at(listener, "pod-5", ADDRESSES["pod-1"], 99) == str(ADDRESSES["pod-5"])

    isolated(scenario)


def test_leaving_the_lab_takes_nodes_and_pods_down(isolated):
    def scenario():
        with Lab() as lab:
            fill(lab)
        assert links() == {"lo"}
        assert list(Path("/run/netns").iterdir()) == []

    isolated(scenario)


def test_two_namespaces_cannot_have_one_name(isolated):
    def scenario():
        with Lab() as lab:
            fill(lab)
            with pytest.raises(FileExistsError):
                lab.add_pod("node-b", "pod-1", IPv4Address("10.244.1.99"))
            with pytest.raises(FileExistsError):
                lab.add_node("pod-1", IPv4Address("10.240.0.99"))

    isolated(scenario)


def test_a_pod_that_cannot_be_set_up_leaves_nothing(isolated):
    def scenario():
        with Lab() as lab:
            fill(lab)
            before = netns.run_in("node-a", links)
            with pytest.raises(NetlinkError, match="File exists"):
                lab.add_pod("node-a", "double", ADDRESSES["pod-1"])
            with pytest.raises(FileNotFoundError):
                netns.run_in("double", links)
            while netns.run_in("node-a", links) != before:  # the kernel tears namespaces down a little later
                time.sleep(0.01)

    isolated(scenario)
