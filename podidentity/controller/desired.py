"""Which identities a pod should have assigned: the decision, without I/O.

Upstream recomputed the world on every event; this looks at one pod and what its label points to.
"""

from collections.abc import Callable, Iterable

from podidentity.api.identities import AzureIdentity, AzureIdentityBinding
from podidentity.api.matching import Match, matches
from podidentity.api.meta import Key
from podidentity.api.workloads import Pod


def desired(
    pod: Pod | None,
    bindings: Iterable[AzureIdentityBinding],
    identity_of: Callable[[Key], AzureIdentity | None],
    *,
    namespaced: bool,
) -> dict[Key, Match]:
    """Return the matches of a pod by the key of the identity; none unless it is on a node and has work to do.

    `bindings` are those whose selector equals the pod's label.
    """
    if pod is None or not pod.spec.node_name or pod.finished:
        return {}
    return {match.identity.key: match for match in matches(pod, bindings, identity_of, namespaced=namespaced)}
