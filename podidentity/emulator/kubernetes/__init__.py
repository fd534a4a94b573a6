"""A small, faithful kube-apiserver: an ASGI application over in-memory state.

`ClusterState` is one cluster, `kubernetes_app(state)` serves it, `state.faults` breaks it. The contract suite in
`tests/contract` runs the same sentences against this and against a real kube-apiserver.

Not here: RBAC, admission plugins, protobuf (so `kubectl create secret`, `create token` and `auth can-i`, which send
it, meet 415; `kubectl apply` and all that reads is JSON), managedFields and apply conflicts, garbage collection by
ownerReferences, CEL rules, and any controller but those that finish deleted namespaces and CRDs.
"""

from podidentity.emulator.kubernetes.app import kubernetes_app
from podidentity.emulator.kubernetes.faults import Call, Faults
from podidentity.emulator.kubernetes.state import ClusterSettings, ClusterState

__all__ = ["Call", "ClusterSettings", "ClusterState", "Faults", "kubernetes_app"]
