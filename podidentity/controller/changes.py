"""What a pod should have, compared with the AzureAssignedIdentities that exist: the decision, without I/O.

Objects are matched by what they say, never by name, so those that MIC wrote are adopted as they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from podidentity.api.identities import AssignedState, AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding
from podidentity.api.matching import Match
from podidentity.api.meta import Key
from podidentity.api.workloads import Pod


@dataclass(slots=True)
class Changes:
    """What to write for one pod."""

    release: list[AzureAssignedIdentity] = field(default_factory=list)
    """Somebody deleted it: drop our finalizer, so that nothing stays in Terminating."""
    delete: list[AzureAssignedIdentity] = field(default_factory=list)
    update: list[tuple[AzureAssignedIdentity, Match]] = field(default_factory=list)
    create: list[Match] = field(default_factory=list)


def changes(pod: Pod | None, wanted: Mapping[Key, Match], existing: Iterable[AzureAssignedIdentity]) -> Changes:
    """Compare. An object that is up to date is in none of the lists."""
    result, kept = Changes(), set[Key]()
    for assigned in sorted(existing, key=lambda it: it.key):
        identity = assigned.identity.key
        match = wanted.get(identity)
        if assigned.metadata.terminating:
            result.release.append(assigned)
        elif pod is None or match is None or identity in kept or assigned.metadata.namespace != match.namespace:
            result.delete.append(assigned)
        else:
            kept.add(identity)
            if outdated(assigned, pod, match):
                result.update.append((assigned, match))
    result.create = [match for identity, match in wanted.items() if identity not in kept]
    return result


def outdated(assigned: AzureAssignedIdentity, pod: Pod, match: Match) -> bool:
    """Whether a field that means something differs; a new label on an identity means nothing.

    One that is Unassigned or unreadable was left by somebody who died in the middle of his work.
    """
    return (
        assigned.state is AssignedState.UNASSIGNED
        or bool(assigned.problem)
        or assigned.node != pod.spec.node_name
        or _substance(assigned.identity) != _substance(match.identity)
        or _terms(assigned.binding) != _terms(match.binding)
    )


def _substance(identity: AzureIdentity) -> tuple[object, ...]:
    return (
        identity.type,
        identity.resource_id,
        identity.client_id,
        identity.tenant_id,
        identity.auxiliary_tenant_ids,
        identity.ad_resource_id,
        identity.ad_endpoint,
        identity.client_password,
        identity.namespaced,
    )


def _terms(binding: AzureIdentityBinding) -> tuple[object, ...]:
    return binding.key, binding.selector, binding.weight
