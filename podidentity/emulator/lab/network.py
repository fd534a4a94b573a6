"""The lab's network: an Azure with its metadata address, nodes in it, and pods on the nodes.

    base (this process)                 node                                    pod
    lo: METADATA, GATEWAY
    node0  ───────────── veth ──────── eth0: NODE                               addressless:
      route NODE dev node0              default via GATEWAY                       eth0: POD/32
      route POD via NODE                veth0 (no address, proxy ARP) ── veth ──  default via 169.254.1.1
                                        cni0: first address of the /24 ─ veth ──  bridge: eth0: POD/24

Nothing rewrites addresses: without a redirect on its node a pod reaches the metadata address, and what listens there
sees the pod's own address. Meant to run isolated (`isolation.run_isolated`): it changes the network it is in.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute

from podidentity.emulator.lab import netns

METADATA_ADDRESS = IPv4Address("169.254.169.254")
GATEWAY = IPv4Address("10.240.0.1")  # of the nodes; Azure takes the first address of a subnet too
# The gateway that Calico and Azure CNI (transparent mode) give to a pod: it exists nowhere, proxy ARP answers.
_NO_GATEWAY = IPv4Address("169.254.1.1")
_LINK_LOCAL = IPv6Address("fe80::1")
_BRIDGE = "cni0"
_POD_PREFIX = 24  # of a node's pods behind a bridge, as kubenet and most others have it
_ONLINK = ["onlink"]
# Without the second that IPv6 otherwise waits before it uses an address. New interfaces copy `default`.
_HOST = {"ipv6/conf/default/accept_dad": 0, "ipv6/conf/all/accept_dad": 0}
# Forward, and look at the sender's address loosely as the Ubuntu of AKS nodes does (2): several routes are normal.
_ROUTER = {
    **_HOST,
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 2,
    "ipv4/conf/default/rp_filter": 2,
    "ipv6/conf/all/forwarding": 1,
}


class Attach(Enum):
    """How a pod hangs on its node."""

    ADDRESSLESS = "addressless"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine: the network namespace of its name, and its addresses there. `link` is its veth in the base."""

    name: str
    address: IPv4Address
    ipv6: IPv6Address | None
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod: the network namespace of its name, and its addresses there. `link` is its veth on the node."""

    name: str
    node: Node
    address: IPv4Address
    ipv6: IPv6Address | None
    attach: Attach
    link: str


class Lab:
    """Nodes and pods around the present network namespace, which is made into the base.

    Names of nodes and pods share one namespace. Failures are pyroute2's `NetlinkError` and `OSError`.
    """

    def __init__(
        self,
        *,
        metadata_address: IPv4Address = METADATA_ADDRESS,
        gateway: IPv4Address = GATEWAY,
    ) -> None:
        self.metadata_address = metadata_address
        self.gateway = gateway
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self._links = 0

    def __enter__(self) -> Self:
        _in(None, self._make_base)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pod in list(self.pods.values()):
            self.remove_pod(pod.name)
        for node in list(self.nodes.values()):
            self.remove_node(node.name)

    def add_node(self, name: str, address: IPv4Address, *, ipv6: IPv6Address | None = None) -> Node:
        """Add a node with a route to everything in the base, and one for each of its pods to come."""
        node = Node(name=name, address=address, ipv6=ipv6, link=self._next_link("node"))
        with _new_namespace(name, _ROUTER):
            _in(None, lambda ip: self._connect_node(ip, node))
            _in(name, lambda ip: self._set_up_node(ip, node))
        self.nodes[name] = node
        return node

    def add_pod(
        self,
        node: str,
        name: str,
        address: IPv4Address,
        *,
        attach: Attach = Attach.ADDRESSLESS,
        ipv6: IPv6Address | None = None,
    ) -> Pod:
        """Add a pod to a node. Its address must be free in the whole lab, as in a cluster."""
        host = self.nodes[node]
        pod = Pod(name=name, node=host, address=address, ipv6=ipv6, attach=attach, link=self._next_link("veth"))
        with _new_namespace(name, _HOST):
            _in(host.name, lambda ip: _attach_pod(ip, pod))
            _in(name, lambda ip: _set_up_pod(ip, pod))
            _in(None, lambda ip: ip.route("add", **self._route_to(pod, ip)))
        self.pods[name] = pod
        return pod

    def remove_pod(self, name: str) -> None:
        """Remove a pod's network; processes in it are the caller's to end."""
        pod = self.pods.pop(name)
        _in(None, lambda ip: ip.route("del", **self._route_to(pod, ip)))
        _in(pod.node.name, lambda ip: ip.link("del", index=_index(ip, pod.link)))
        netns.delete(name)

    def remove_node(self, name: str) -> None:
        """Remove a node's network, and with it the way to the pods that are left there."""
        node = self.nodes.pop(name)
        _in(None, lambda ip: ip.link("del", index=_index(ip, node.link)))
        netns.delete(name)

    def _next_link(self, prefix: str) -> str:
        self._links += 1
        return f"{prefix}{self._links}"

    def _make_base(self, ip: IPRoute) -> None:
        _write(_ROUTER)
        index = _up(ip, "lo")
        for address in (self.metadata_address, self.gateway):
            ip.addr("add", index=index, address=str(address), prefixlen=32)

    def _connect_node(self, ip: IPRoute, node: Node) -> None:
        ip.link("add", ifname=node.link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": node.name})
        index = _up(ip, node.link)
        ip.route("add", dst=f"{node.address}/32", oif=index, prefsrc=str(self.gateway), scope="link")

    def _set_up_node(self, ip: IPRoute, node: Node) -> None:
        _up(ip, "lo")
        index = _up(ip, "eth0")
        ip.addr("add", index=index, address=str(node.address), prefixlen=32)
        ip.route("add", dst=f"{self.gateway}/32", oif=index, scope="link")
        ip.route("add", dst="default", gateway=str(self.gateway), oif=index)
        if node.ipv6:
            ip.addr("add", index=index, address=str(node.ipv6), prefixlen=128)

    def _route_to(self, pod: Pod, ip: IPRoute) -> dict[str, Any]:
        return {
            "dst": f"{pod.address}/32",
            "gateway": str(pod.node.address),
            "oif": _index(ip, pod.node.link),
            "prefsrc": str(self.gateway),
        }


@contextmanager
def _new_namespace(name: str, settings: Mapping[str, int]) -> Iterator[None]:
    """Make a namespace, and take it away again with its end of every veth pair when setting it up fails."""
    netns.create(name)
    try:
        netns.run_in(name, lambda: _write(settings))
        yield
    except BaseException:
        netns.delete(name)
        raise


def _in(name: str | None, work: Callable[[IPRoute], object]) -> None:
    """Change the network of a namespace, or of the base (None)."""

    def inside() -> None:
        with IPRoute() as ip:
            work(ip)

    netns.run_in(name, inside)


def _attach_pod(ip: IPRoute, pod: Pod) -> None:
    """Do the node's part of adding a pod."""
    ip.link("add", ifname=pod.link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod.name})
    if pod.attach is Attach.BRIDGE:
        bridge = _bridge(ip, _bridge_address(pod.address))
        ip.link("set", index=_index(ip, pod.link), master=bridge)
        _up(ip, pod.link)
        index = bridge
    else:
        _answer_arp(pod.link)
        index = _up(ip, pod.link)
        ip.route("add", dst=f"{pod.address}/32", oif=index, scope="link")
    if pod.ipv6:
        ip.addr("replace", index=index, address=f"{_LINK_LOCAL}/64")
        ip.route("add", dst=f"{pod.ipv6}/128", oif=index)


def _set_up_pod(ip: IPRoute, pod: Pod) -> None:
    """Do the pod's own part of it."""
    _up(ip, "lo")
    index = _up(ip, "eth0")
    if pod.attach is Attach.BRIDGE:
        ip.addr("add", index=index, address=str(pod.address), prefixlen=_POD_PREFIX)
        ip.route("add", dst="default", gateway=str(_bridge_address(pod.address).ip), oif=index)
    else:
        ip.addr("add", index=index, address=str(pod.address), prefixlen=32)
        ip.route("add", dst="default", gateway=str(_NO_GATEWAY), oif=index, flags=_ONLINK)
    if pod.ipv6:
        ip.addr("add", index=index, address=str(pod.ipv6), prefixlen=128)
        ip.route("add", dst="default", gateway=str(_LINK_LOCAL), oif=index)


def _bridge_address(pod: IPv4Address) -> IPv4Interface:
    """Return the bridge's address for a pod: the first of the pod's /24."""
    network = IPv4Interface(f"{pod}/{_POD_PREFIX}").network
    return IPv4Interface(f"{network[1]}/{_POD_PREFIX}")


def _bridge(ip: IPRoute, address: IPv4Interface) -> int:
    """Return the index of the node's bridge, made by its first pod, and see to its address."""
    if not ip.link_lookup(ifname=_BRIDGE):
        ip.link("add", ifname=_BRIDGE, kind="bridge")
        _answer_arp(_BRIDGE)  # so that pods behind it reach addressless ones of the same /24
    index = _up(ip, _BRIDGE)
    ip.addr("replace", index=index, address=str(address))
    return index


def _answer_arp(link: str) -> None:
    """Answer ARP for what lies behind other links, and at once: the kernel waits up to 0.8 s by default."""
    _write({f"ipv4/conf/{link}/proxy_arp": 1, f"ipv4/neigh/{link}/proxy_delay": 0})


def _up(ip: IPRoute, name: str) -> int:
    index = _index(ip, name)
    ip.link("set", index=index, state="up")
    return index


def _index(ip: IPRoute, name: str) -> int:
    [index] = ip.link_lookup(ifname=name)
    return int(index)


def _write(settings: Mapping[str, int]) -> None:
    for path, value in settings.items():
        if Path("/proc/sys/net", path).exists() or not path.startswith("ipv6/"):  # a kernel may have no IPv6
            netns.write_sysctl(path, value)
