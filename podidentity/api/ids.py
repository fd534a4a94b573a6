"""Azure's identifiers, normalised once at the edge: ARM compares without regard to case, and so do we after this.

Every function takes what a person or an API wrote and returns the one spelling used inside the project
(lower case), or raises `InvalidValue` saying what is wrong.
"""

import re
from dataclasses import dataclass
from enum import Enum

from podidentity.api.errors import InvalidValue

_USER_ASSIGNED = re.compile(
    r"/subscriptions/[^/\s]+/resourcegroups/[^/\s]+"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[^/\s]+"
)
_PROVIDER_ID = re.compile(
    r"azure:///subscriptions/(?P<subscription>[^/\s]+)/resourcegroups/(?P<group>[^/\s]+)"
    r"/providers/microsoft\.compute/"
    r"(?:virtualmachinescalesets/(?P<scale_set>[^/\s]+)/virtualmachines/[^/\s]+"
    r"|virtualmachines/(?P<vm>[^/\s]+))"
)


def identity_resource_id(text: str) -> str:
    """Normalise the ARM ID of a user-assigned identity."""
    candidate = text.strip().rstrip("/").lower()
    if not _USER_ASSIGNED.fullmatch(candidate):
        raise InvalidValue(
            f"{text[:200]!r} is no ID of a user-assigned identity: it should look like /subscriptions/"
            "<subscription>/resourceGroups/<group>/providers/Microsoft.ManagedIdentity/"
            "userAssignedIdentities/<name>"
        )
    return candidate


def client_id(text: str) -> str:
    """Normalise a client ID; any text is taken, as upstream does, because only Azure knows which exist."""
    return text.strip().lower()


class TargetKind(Enum):
    """What carries identities in Azure; the value is the segment of ARM's path, in ARM's spelling."""

    VM = "virtualMachines"
    SCALE_SET = "virtualMachineScaleSets"


@dataclass(frozen=True, slots=True)
class Target:
    """A VM or a scale set: what identities are assigned to, and the unit that works on its own."""

    kind: TargetKind
    subscription: str
    resource_group: str
    name: str

    @property
    def resource_id(self) -> str:
        """ARM's ID, in lower case but for the segments that ARM's documentation writes otherwise."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/{self.kind.value}/{self.name}"
        )

    def __str__(self) -> str:
        kind = "vm" if self.kind is TargetKind.VM else "vmss"
        return f"{kind} {self.resource_group}/{self.name}"


def target_of_provider_id(provider_id: str) -> Target:
    """Return the VM or scale set under a node, from `node.spec.providerID`.

    An empty ID means that the cloud provider has not come to this node yet: `InvalidValue` as well, and the
    caller tries again when the node changes.
    """
    match = _PROVIDER_ID.fullmatch(provider_id.strip().rstrip("/").lower())
    if not match:
        raise InvalidValue(
            f"{provider_id[:200]!r} is no providerID of an Azure VM or scale set instance"
            if provider_id
            else "the node has no providerID yet"
        )
    kind = TargetKind.SCALE_SET if match["scale_set"] else TargetKind.VM
    return Target(kind, match["subscription"], match["group"], match["scale_set"] or match["vm"])
