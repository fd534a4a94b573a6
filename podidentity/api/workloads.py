"""Pods and nodes, trimmed. The API server validates these kinds, so they decode into typed fields."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from podidentity.api.errors import InvalidValue
from podidentity.api.ids import Target, target_of_provider_id
from podidentity.api.meta import BINDING_LABEL, Key, Meta

FINISHED = frozenset({"Succeeded", "Failed"})
"""Pod phases in which no container runs or will run again."""


class _PodIp(msgspec.Struct, frozen=True, gc=False):
    ip: str = ""


class PodSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Where a pod runs and as whom."""

    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """How far a pod is, and its addresses."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[_PodIp, ...] | None = msgspec.field(default=None, name="podIPs")


class Pod(msgspec.Struct, frozen=True):
    """A pod as far as identities are concerned."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.key

    @property
    def binding_label(self) -> str:
        """The value that a binding's selector must equal; empty when the pod asks for no identity."""
        return self.metadata.label(BINDING_LABEL) or ""

    @property
    def finished(self) -> bool:
        """Whether all containers have ended for good: such a pod holds no identity."""
        return self.status.phase in FINISHED

    @property
    def addresses(self) -> frozenset[IPv4Address | IPv6Address]:
        """All addresses of the pod. Empty for a pod on the host's network: those are the node's own."""
        if self.spec.host_network:
            return frozenset()
        written = {self.status.pod_ip, *(entry.ip for entry in self.status.pod_ips or ())}
        return frozenset(address for address in map(_address, written) if address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


class NodeSpec(msgspec.Struct, frozen=True, gc=False):
    """Where a node comes from."""

    provider_id: str = msgspec.field(default="", name="providerID")


class Node(msgspec.Struct, frozen=True, gc=False):
    """A node, for the VM or scale set under it."""

    metadata: Meta
    spec: NodeSpec = NodeSpec()

    @property
    def key(self) -> Key:
        """Empty namespace and the name."""
        return self.metadata.key

    @property
    def target(self) -> Target | None:
        """The VM or scale set under the node; None while the cloud provider has not written the providerID."""
        try:
            return target_of_provider_id(self.spec.provider_id)
        except InvalidValue:
            return None
