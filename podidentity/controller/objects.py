"""The AzureAssignedIdentity as it is written: upstream's shape and name, so that its node agent reads ours."""

import hashlib
from collections.abc import Callable
from typing import Any

from podidentity.api.identities import (
    API_VERSION,
    BEHAVIOR_ANNOTATION,
    FINALIZER,
    NODE_LABEL,
    AssignedState,
    AzureIdentity,
    AzureIdentityBinding,
)
from podidentity.api.matching import Match
from podidentity.api.meta import LONGEST_LABEL, Key, Meta
from podidentity.api.workloads import Pod

MANAGED_BY, OURS = "app.kubernetes.io/managed-by", "podidentity"
"""On objects that we wrote. MIC put the identities of all others on their machines: those are ours to remove, too."""
_LONGEST_NAME = 253


def assigned_name(pod: Key, match: Match, is_free: Callable[[Key], bool]) -> str:
    """Return upstream's name; where it is taken by another triple or too long, one with a hash at its end."""
    name = f"{pod.name}-{pod.namespace}-{match.identity.metadata.name}".lower()
    if len(name) <= _LONGEST_NAME and is_free(Key(match.namespace, name)):
        return name
    # Names hold no slash, so this text is of this pod and this identity only.
    triple = "/".join([*pod, *match.identity.key])
    digest = hashlib.sha256(triple.encode()).hexdigest()[:12]
    return f"{name[: _LONGEST_NAME - 13].rstrip('-.')}-{digest}"


def assigned_body(name: str, pod: Pod, match: Match, state: AssignedState) -> dict[str, Any]:
    """Return the whole object, for its creation."""
    return {
        "apiVersion": API_VERSION,
        "kind": "AzureAssignedIdentity",
        "metadata": {
            "name": name,
            "namespace": match.namespace,
            "labels": {**_node_label(pod), MANAGED_BY: OURS},
            "finalizers": [FINALIZER],
        },
        **_present(_content(pod, match, state)),
    }


def assigned_patch(pod: Pod, match: Match, state: AssignedState) -> dict[str, Any]:
    """Return the merge patch that brings an existing object up to date."""
    labels = {NODE_LABEL: None, **_node_label(pod), MANAGED_BY: OURS}
    return {"metadata": {"labels": labels}, **_content(pod, match, state)}


def state_patch(state: AssignedState) -> dict[str, Any]:
    """Return the merge patch of the state alone."""
    return {"status": {"status": state.value, "availableReplicas": 1}}


def _present(value: Any) -> Any:
    """Leave out what is null: a merge patch needs it, a new object must not have it."""
    if isinstance(value, dict):
        return {name: _present(inner) for name, inner in value.items() if inner is not None}
    return value


def _node_label(pod: Pod) -> dict[str, str]:
    # A label is short; an agent on a node with a longer name watches without it.
    return {NODE_LABEL: pod.spec.node_name} if len(pod.spec.node_name) <= LONGEST_LABEL else {}


def _content(pod: Pod, match: Match, state: AssignedState) -> dict[str, Any]:
    return {
        "spec": {
            "azureIdentityRef": _identity(match.identity),
            "azureBindingRef": _binding(match.binding),
            "pod": pod.metadata.name,
            "podNamespace": pod.metadata.namespace,
            "nodename": pod.spec.node_name,
        },
        **state_patch(state),
    }


def _identity(identity: AzureIdentity) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "type": int(identity.type),
        "resourceID": identity.resource_id,
        "clientID": identity.client_id,
        "clientPassword": {
            "name": identity.client_password.name,
            "namespace": identity.client_password.namespace,
        },
        "tenantID": identity.tenant_id,
        "auxiliaryTenantIDs": list(identity.auxiliary_tenant_ids) or None,
        "adResourceID": identity.ad_resource_id,
        "adEndpoint": identity.ad_endpoint,
    }
    # A merge patch must be able to empty a field, so nothing is left out: null takes it away.
    spec = {name: value or None for name, value in spec.items()} | {"type": int(identity.type)}
    return {
        "apiVersion": API_VERSION,
        "kind": "AzureIdentity",
        "metadata": _metadata(identity.metadata),
        "spec": spec,
    }


def _binding(binding: AzureIdentityBinding) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "AzureIdentityBinding",
        "metadata": _metadata(binding.metadata),
        "spec": {
            "azureIdentity": binding.azure_identity,
            "selector": binding.selector,
            "weight": binding.weight,
        },
    }


def _metadata(meta: Meta) -> dict[str, Any]:
    return {
        "name": meta.name,
        "namespace": meta.namespace,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        # The one that means something. By merge patch, the others could be added to but never taken away.
        "annotations": {BEHAVIOR_ANNOTATION: meta.annotation(BEHAVIOR_ANNOTATION)},
    }
