"""The `identity` block of a VM or scale set, and what a PATCH makes of it: pure.

`{"type": "UserAssigned", "userAssignedIdentities": {id: {}, other: null}}` adds `id`, removes `other` and leaves the
rest; `type` is taken as a whole: without `SystemAssigned` in it the system-assigned identity goes, without
`UserAssigned` all user-assigned ones go. Source: Microsoft's REST reference of virtual machines, and the refusals
that terraform's provider and aad-pod-identity report.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.resource_ids import key

SYSTEM = "SystemAssigned"
USER = "UserAssigned"

PATCH_LIMIT = 150
"""User-assigned identities in one PATCH, added or removed (aad-pod-identity #813)."""


@dataclass(frozen=True, kw_only=True)
class IdentityBlock:
    """The identities of one VM or scale set. `users` maps a resource ID's key to its spelling."""

    system: bool = False
    users: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, resource_ids: Iterable[str] = (), *, system: bool = False) -> "IdentityBlock":
        """Make a block of resource IDs in any spelling."""
        return cls(system=system, users={key(identity): identity for identity in resource_ids})

    @property
    def type(self) -> str:
        """ARM's word for what is in the block: `None`, `SystemAssigned`, `UserAssigned` or both with a comma."""
        present = [word for word, there in ((SYSTEM, self.system), (USER, bool(self.users))) if there]
        return ", ".join(present) or "None"


@dataclass(frozen=True, kw_only=True)
class IdentityPatch:
    """A decoded `identity` block of a request. `added` and `removed` hold resource IDs as they were spelt."""

    system: bool
    user: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]


def decode_patch(target: str, identity: Any) -> IdentityPatch:
    """Read the `identity` of a PATCH body; `target` is the resource ID for messages. Raises ArmError (400)."""
    if not isinstance(identity, Mapping):
        raise arm_errors.invalid_content("Property 'identity' must be an object")
    kinds = _kinds(identity.get("type"))
    entries = identity.get("userAssignedIdentities") or {}
    if not isinstance(entries, Mapping):
        raise arm_errors.invalid_content("Property 'identity.userAssignedIdentities' must be an object")
    patch = IdentityPatch(
        system=SYSTEM in kinds,
        user=USER in kinds,
        added=tuple(name for name, value in entries.items() if value is not None),
        removed=tuple(name for name, value in entries.items() if value is None),
    )
    _check(target, patch)
    return patch


def apply_patch(target: str, current: IdentityBlock, patch: IdentityPatch) -> IdentityBlock:
    """Return the block after the PATCH. Raises ArmError (400) where `UserAssigned` would be left without any."""
    if not patch.user:
        return IdentityBlock(system=patch.system)
    gone = {key(identity) for identity in patch.removed}
    users = {name: spelling for name, spelling in current.users.items() if name not in gone}
    # The spelling of an identity that is there already stays, as in ARM.
    users |= {key(identity): users.get(key(identity), identity) for identity in patch.added}
    if not users:
        reason = "The request format was unexpected : Request requires identities to be assigned."
        raise arm_errors.failed_identity_operation(target, reason)
    return IdentityBlock(system=patch.system, users=users)


def _kinds(type_: Any) -> set[str]:
    if not isinstance(type_, str):
        raise arm_errors.invalid_content("Required property 'type' not found in JSON. Path 'identity'.")
    known = {SYSTEM.lower(): SYSTEM, USER.lower(): USER, "none": "None"}
    words = [known.get(word.strip().lower()) for word in type_.split(",")]
    if None in words or ("None" in words and len(words) > 1):
        raise arm_errors.invalid_content(f"Error converting value '{type_}' to an identity type.")
    return {word for word in words if word}


def _check(target: str, patch: IdentityPatch) -> None:
    if not patch.user and (patch.added or patch.removed):
        reason = (
            "The request format was unexpected, a non-UserAssigned identity type should not contain: "
            "userAssignedIdentities"
        )
        raise arm_errors.failed_identity_operation(target, reason)
    most = max(len(patch.added), len(patch.removed))
    if most > PATCH_LIMIT:
        raise arm_errors.too_many_identities(target, most, PATCH_LIMIT)
