"""Builders of what the API server sends, as JSON values and as the records they are read into."""

from typing import Any

import msgspec

from podidentity.api import identities
from podidentity.api.workloads import Pod

NODE = "node-a"
_GROUP = "aadpodidentity.k8s.io/v1"
_IDENTITY_PATH = "/subscriptions/sub/resourcegroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
DELETED_AT = "2026-01-02T03:04:05Z"

Object = dict[str, Any]


def pod(
    name: str = "web",
    *addresses: str,
    namespace: str = "default",
    label: str = "app",
    phase: str = "Running",
    terminating: bool = False,
    host_network: bool = False,
    uid: str = "",
    node: str = NODE,
) -> Object:
    """A pod; the default address is 10.244.0.5, and an empty text for one means that it has none yet."""
    ips = [{"ip": it} for it in addresses or ("10.244.0.5",) if it]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-of-{name}",
            "labels": {"aadpodidbinding": label} if label else {},
            **_deletion(terminating),
        },
        "spec": {"nodeName": node, "hostNetwork": host_network, "serviceAccountName": "default", "containers": []},
        "status": {"phase": phase, **({"podIP": ips[0]["ip"], "podIPs": ips} if ips else {})},
    }


def identity(
    name: str = "one", *, namespace: str = "default", confined: bool = False, resource_id: str = "", **spec: Any
) -> Object:
    """An AzureIdentity with the client ID `client-NAME`; `confined` by its own annotation."""
    annotations = {"aadpodidentity.k8s.io/Behavior": "namespaced"} if confined else {}
    defaults = {"type": 0, "resourceID": resource_id or _IDENTITY_PATH + name, "clientID": f"client-{name}"}
    return _custom("AzureIdentity", namespace, name, defaults | spec, annotations=annotations)


def binding(
    name: str = "bind", to: str = "one", *, namespace: str = "default", selector: str = "app", weight: int = 0
) -> Object:
    spec = {"azureIdentity": to, "selector": selector, "weight": weight}
    return _custom("AzureIdentityBinding", namespace, name, spec)


def assigned(
    to: Object | None = None,
    by: Object | None = None,
    of: Object | None = None,
    *,
    state: str = "Assigned",
    node: str = NODE,
    name: str = "",
    terminating: bool = False,
) -> Object:
    """An AzureAssignedIdentity: identity `to`, by binding `by`, of pod `of`."""
    to, by, of = to or identity(), by or binding(), of or pod()
    owner = of["metadata"]
    spec = {
        "azureIdentityRef": to,
        "azureBindingRef": by,
        "pod": owner["name"],
        "podNamespace": owner["namespace"],
        "nodename": node,
    }
    name = name or f"{owner['name']}-{owner['namespace']}-{to['metadata']['name']}"
    made = _custom(
        "AzureAssignedIdentity", "default", name, spec, labels={"nodename": node}, **_deletion(terminating)
    )
    return made | {"status": {"status": state, "availableReplicas": 1}}


def as_pod(obj: Object) -> Pod:
    return msgspec.json.decode(msgspec.json.encode(obj), type=Pod)


def as_identity(obj: Object) -> identities.AzureIdentity:
    return identities.read_identity(msgspec.json.encode(obj))


def as_binding(obj: Object) -> identities.AzureIdentityBinding:
    return identities.read_binding(msgspec.json.encode(obj))


def as_assigned(obj: Object) -> identities.AzureAssignedIdentity:
    return identities.read_assigned_identity(msgspec.json.encode(obj))


def _custom(kind: str, namespace: str, name: str, spec: Object, **metadata: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-of-{namespace}-{name}", **metadata}
    return {"apiVersion": _GROUP, "kind": kind, "metadata": metadata, "spec": spec}


def _deletion(terminating: bool) -> Object:  # noqa: FBT001 - private
    return {"deletionTimestamp": DELETED_AT, "deletionGracePeriodSeconds": 30} if terminating else {}
