"""May this pod have a token now, and of which identity? The decision of the table in docs/answers.md, without I/O.

Two things must agree: bindings and identities as they are now, and an AzureAssignedIdentity, by which the controller
says that Azure has done its part. So a deleted binding counts at once, whether or not a controller runs. The one
exception is an AzureAssignedIdentity that never had a binding (`_stands_alone`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from podidentity.api.identities import (
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
)
from podidentity.api.matching import matches, may_serve
from podidentity.api.meta import BINDING_LABEL, Key
from podidentity.api.workloads import Pod
from podidentity.node.refusal import Refusal, invalid
from podidentity.node.request import Selector, SelectorKind


class Awaited(Enum):
    """What a request may be held for."""

    BINDING = "binding"
    """Something that binds the pod: it may come within seconds, or never."""
    ASSIGNMENT = "assignment"
    """Azure, which is at work."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not now, perhaps soon; `reason` is for the pod's owner."""

    awaited: Awaited
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of one pod at one moment."""

    pod: Pod
    node: str
    assigned: Iterable[AzureAssignedIdentity]
    """Those that name this pod."""
    bindings: Iterable[AzureIdentityBinding]
    """Those whose selector equals the pod's label; so none that could not be read."""
    identity_of: Callable[[Key], AzureIdentity | None]
    namespaced: bool


def decide(evidence: Evidence, selector: Selector | None) -> AzureAssignedIdentity | Pending | Refusal:
    """Return the assignment to use, what to wait for, or the refusal."""
    pod = evidence.pod
    if not pod.binding_label:
        return invalid(f"Identity not found: the pod {pod.key} has no label {BINDING_LABEL}")
    if selector is not None and selector.kind is SelectorKind.OBJECT_ID:
        return invalid("object_id cannot be matched to an AzureIdentity: use client_id or msi_res_id")
    bound = _bound(evidence)
    chosen = next((it for it in bound if _selected(it, selector)), None)
    if chosen is not None:
        return _assignment(evidence, chosen)
    if bound:
        return invalid(f"Identity not found: no identity with {selector} is bound to the pod {pod.key}")
    return Pending(Awaited.BINDING, _missing_words(evidence))


def _bound(evidence: Evidence) -> list[AzureIdentity]:
    """Return what the pod may use, in the order of choice: by bindings, then what somebody assigned without one."""
    pod = evidence.pod
    by_bindings = matches(pod, evidence.bindings, evidence.identity_of, namespaced=evidence.namespaced)
    found = {match.identity.key: match.identity for match in by_bindings}
    for assigned in sorted(evidence.assigned, key=lambda it: it.key):
        if _stands_alone(evidence, assigned):
            found.setdefault(assigned.identity.key, assigned.identity)
    return list(found.values())


def _stands_alone(evidence: Evidence, assigned: AzureAssignedIdentity) -> bool:
    """Whether an assignment was written by hand, or by a tool, without a binding behind it.

    Controllers embed the binding with its UID, so that one has to be there still. Without a UID there never was one.
    Whoever may write these objects may assign anything; a controller that runs deletes what no binding asks for.
    """
    binding = assigned.binding
    return (
        not binding.metadata.uid
        and not assigned.problem
        and binding.selector in {evidence.pod.binding_label, ""}
        and may_serve(assigned.identity, evidence.pod, namespaced=evidence.namespaced)
    )


def _assignment(evidence: Evidence, identity: AzureIdentity) -> AzureAssignedIdentity | Pending:
    """Return the assignment of one identity to the pod, or that it is awaited: never that of another identity."""
    pod = evidence.pod
    found = [
        it
        for it in evidence.assigned
        if it.pod == pod.key and it.node == evidence.node and it.identity.key == identity.key
    ]
    usable = [it for it in found if it.usable and _names_the_same(it.identity, identity)]
    if usable:
        return min(usable, key=lambda it: it.key)
    since = min((it.metadata.creation_timestamp or "" for it in found), default="")
    own = identity.metadata.namespace == pod.metadata.namespace
    words = f"the identity {identity.metadata.name}" if own else "an identity of another namespace"
    words += " is bound, and its assignment in Azure is under way"
    return Pending(Awaited.ASSIGNMENT, f"{words} since {since}" if since else words)


def _names_the_same(assigned: AzureIdentity, wanted: AzureIdentity) -> bool:
    """Whether the embedded copy is up to date: an AzureIdentity that was edited has to be assigned anew."""
    return (assigned.type, assigned.resource_id, assigned.client_id) == (
        wanted.type,
        wanted.resource_id,
        wanted.client_id,
    )


def _selected(identity: AzureIdentity, selector: Selector | None) -> bool:
    if selector is None:
        return True
    named = identity.client_id if selector.kind is SelectorKind.CLIENT_ID else identity.resource_id
    return bool(named) and named == selector.value


def _missing_words(evidence: Evidence) -> str:
    """Say why nothing is bound, naming only objects of the pod's own namespace."""
    pod, label = evidence.pod, evidence.pod.binding_label
    bindings = sorted(evidence.bindings, key=lambda it: it.key)
    if not bindings:
        return f"no AzureIdentityBinding has the selector {label!r} of the pod {pod.key}"
    own = [it for it in bindings if it.metadata.namespace == pod.metadata.namespace]
    if own:
        return _flaw(evidence, own[0])
    if any(_is_usable(evidence.identity_of(it.identity_key)) for it in bindings):
        return f"identities serve pods of their own namespace only; {label!r} binds none of {pod.metadata.namespace}"
    return f"an AzureIdentityBinding with the selector {label!r} exists, but its AzureIdentity is missing or invalid"


def _flaw(evidence: Evidence, binding: AzureIdentityBinding) -> str:
    """Say why a binding of the pod's own namespace leads nowhere."""
    identity = evidence.identity_of(binding.identity_key)
    if identity is None:
        name, missing = binding.metadata.name, binding.azure_identity
        return f"the AzureIdentityBinding {name} names the AzureIdentity {missing}, which does not exist"
    return f"the AzureIdentity {identity.metadata.name} cannot be used: {identity.problem}"


def _is_usable(identity: AzureIdentity | None) -> bool:
    return identity is not None and not identity.problem
