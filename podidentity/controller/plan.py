"""What to change on one VM or scale set: the decision, without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

from podidentity.azure.compute import IdentitySet

LARGEST_CHANGE = 150
"""Identities in one PATCH; ARM refuses more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Resource IDs to add and to remove now, and when (loop time) to look again because of a grace that runs."""

    add: frozenset[str]
    remove: frozenset[str]
    look_again_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that the plan depends on."""

    wanted: frozenset[str]
    """In use by some pod on the target."""
    present: IdentitySet
    """On the target."""
    owned: frozenset[str]
    """Put there by us (or by MIC before us): only these may be removed."""
    unused_since: Mapping[str, float]
    """Loop time at which an owned identity was first seen without a user."""
    protected_client_ids: frozenset[str]
    unassign_after: float


def plan(situation: Situation, now: float) -> Plan:
    """Compare. Add wins over remove by construction: what is wanted is never in `remove`."""
    on_target = situation.present.user_assigned
    add = situation.wanted - on_target
    idle = {
        identity: situation.unused_since.get(identity, now) + situation.unassign_after
        for identity in (situation.owned & on_target) - situation.wanted
        if situation.present.client_ids[identity] not in situation.protected_client_ids
    }
    due = {identity for identity, at in idle.items() if at <= now}
    chosen = sorted(add)[:LARGEST_CHANGE]
    removed = sorted(due)[: LARGEST_CHANGE - len(chosen)]
    later = [at for identity, at in idle.items() if identity not in due and at != float("inf")]
    return Plan(frozenset(chosen), frozenset(removed), min(later, default=None))
