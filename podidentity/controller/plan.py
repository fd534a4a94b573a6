"""What to change on one VM or scale set: the decision, without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from podidentity.azure.compute import IdentitySet

LARGEST_CHANGE = 150
"""Identities in one PATCH; ARM refuses more."""
FORGET_AFTER = 300.0
"""Seconds after its grace that an owned identity, neither used nor on the target, is nobody's: by then, a PATCH of a
controller that was killed in the middle has arrived or never will."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Resource IDs to add, to remove and to own no longer, and when (loop time) to look again."""

    add: frozenset[str]
    remove: frozenset[str]
    forget: frozenset[str]
    look_again_at: float | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do now."""
        return not (self.add or self.remove or self.forget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that the plan depends on. Times are the loop's."""

    wanted: frozenset[str]
    """In use by some pod on the target."""
    present: IdentitySet
    """On the target."""
    in_effect: frozenset[str]
    """Of those, what pods can use for certain; the others are added again, which changes nothing if it is there."""
    owned: frozenset[str]
    """Put there by us (or by MIC before us): only these may be removed."""
    unused_since: Mapping[str, float]
    """When an owned identity was first seen without a user."""
    refused_until: Mapping[str, float]
    """Azure refuses these for now; they are not tried before that time."""
    protected_client_ids: frozenset[str]
    unassign_after: float
    largest_change: int = LARGEST_CHANGE
    """Identities in one PATCH: less than ARM allows while we search for the one that it refuses."""


def plan(situation: Situation, now: float) -> Plan:
    """Compare. Add wins over remove by construction: what is wanted is never in `remove`."""
    on_target = situation.present.user_assigned
    missing = {it: situation.refused_until.get(it, now) for it in situation.wanted - situation.in_effect}
    unused = {it: situation.unused_since.get(it, now) for it in situation.owned - situation.wanted}
    leaving = {
        it: max(since + situation.unassign_after, situation.refused_until.get(it, now))
        for it, since in unused.items()
        if it in on_target and situation.present.client_ids[it] not in situation.protected_client_ids
    }
    absent = {it: since for it, since in unused.items() if it not in on_target}
    unsure = {} if situation.present.settled else {it: at + situation.unassign_after for it, at in absent.items()}
    grace = situation.unassign_after if situation.unassign_after < inf else 0.0
    vanished = {it: since + grace + FORGET_AFTER for it, since in absent.items()}
    forget = _due(vanished, now)
    add = sorted(_due(missing, now))[: situation.largest_change]
    remove = sorted(_due(leaving, now))[: situation.largest_change - len(add)]
    if not (add or remove):
        # Removed by a change that failed: ARM shows no trace of it, yet it may be in effect. ARM could refuse this,
        # so it never travels with anything else, and is given up in the end.
        remove = sorted(_due(unsure, now) - forget)[: situation.largest_change]
    times = [*missing.values(), *leaving.values(), *unsure.values(), *vanished.values()]
    later = [at for at in times if now < at < inf]
    return Plan(frozenset(add), frozenset(remove), forget, min(later, default=None))


def _due(times: Mapping[str, float], now: float) -> frozenset[str]:
    return frozenset(identity for identity, at in times.items() if at <= now)
