"""Which identities the bindings give a pod: the one rule that controller and node agents go by. No I/O."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from podidentity.api.identities import AzureIdentity, AzureIdentityBinding
from podidentity.api.meta import Key
from podidentity.api.workloads import Pod

DEFAULT_NAMESPACE = "default"
"""Where an AzureAssignedIdentity lives unless its identity is namespaced; node agents of upstream look there."""


@dataclass(frozen=True, slots=True)
class Match:
    """A pod's right to one identity, by one binding."""

    binding: AzureIdentityBinding
    identity: AzureIdentity
    namespace: str
    """Where its AzureAssignedIdentity belongs."""


def matches(
    pod: Pod,
    bindings: Iterable[AzureIdentityBinding],
    identity_of: Callable[[Key], AzureIdentity | None],
    *,
    namespaced: bool,
) -> list[Match]:
    """Return the matches of a pod, the heaviest binding's first, then the first by name.

    Several bindings to one identity count once. `namespaced` confines every identity to pods of its own namespace;
    an identity's own annotation does so for that one.
    """
    found: dict[Key, Match] = {}
    for binding in sorted(bindings, key=lambda it: (-it.weight, it.key)):
        identity = identity_of(binding.identity_key)
        if binding.problem or identity is None or identity.problem:
            continue
        if binding.selector == pod.binding_label != "" and may_serve(identity, pod, namespaced=namespaced):
            home = identity.metadata.namespace if namespaced or identity.namespaced else DEFAULT_NAMESPACE
            found.setdefault(identity.key, Match(binding, identity, home))
    return list(found.values())


def may_serve(identity: AzureIdentity, pod: Pod, *, namespaced: bool) -> bool:
    """Whether the namespaces allow it."""
    confined = namespaced or identity.namespaced
    return not confined or identity.metadata.namespace == pod.metadata.namespace
