"""Which identities a pod should have: the decision, without I/O.

Upstream recomputed the world on every event; this looks at one pod and what its label points to.
"""

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


def desired(
    pod: Pod | None,
    bindings: Iterable[AzureIdentityBinding],
    identity_of: Callable[[Key], AzureIdentity | None],
    *,
    namespaced: bool,
) -> dict[Key, Match]:
    """Return the matches of a pod by the key of the identity.

    `bindings` are those whose selector equals the pod's label. Several bindings to one identity count once: the
    heaviest, then the first by name.
    """
    if pod is None or not pod.binding_label or not pod.spec.node_name or pod.finished:
        return {}
    matches: dict[Key, Match] = {}
    for binding in sorted(bindings, key=lambda it: (-it.weight, it.key)):
        identity = identity_of(binding.identity_key)
        if binding.problem or identity is None or identity.problem or binding.selector != pod.binding_label:
            continue
        confined = namespaced or identity.namespaced
        if confined and binding.metadata.namespace != pod.metadata.namespace:
            continue
        home = identity.metadata.namespace if confined else DEFAULT_NAMESPACE
        matches.setdefault(identity.key, Match(binding, identity, home))
    return matches
