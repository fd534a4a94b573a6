"""How objects go: finalizers, grace, and what a cluster's controllers clean up (namespaces, custom resources)."""

import asyncio
from dataclasses import dataclass

from podidentity.emulator.kubernetes.errors import GroupResource, Object, conflict, forbidden, not_found
from podidentity.emulator.kubernetes.resources import CRDS, NAMESPACES, PODS, Resource, Target
from podidentity.emulator.kubernetes.state import ClusterState, key_of

IMMORTAL_NAMESPACES = frozenset({"default", "kube-public", "kube-system"})
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteOptions:
    """What a client may say with a DELETE; `grace` is in seconds."""

    grace: int | None = None
    uid: str | None = None
    revision: str | None = None
    dry_run: bool = False


def delete(state: ClusterState, target: Target, options: DeleteOptions) -> Object:
    """Delete an object, at once or by marking it; return what the server answers: a Status or the object.

    Raises:
        ApiError: 404; 409 for a failed precondition; 403 for namespaces that stay.

    """
    resource, name = target.resource, target.name or ""
    obj = state.collection(resource).objects.get(target.key)
    if obj is None:
        raise not_found(resource.group_resource, name)
    _check_preconditions(resource, obj, options)
    if resource == NAMESPACES and name in IMMORTAL_NAMESPACES:
        raise forbidden(resource.group_resource, name, "this namespace may not be deleted")
    if options.dry_run:
        return obj
    if resource == NAMESPACES:
        return _terminate_namespace(state, obj)
    if resource == CRDS:
        return _terminate_crd(state, obj)
    grace = _grace(state, resource, obj, options)
    if obj["metadata"].get("finalizers") or resource == PODS:
        obj = _mark(state, resource, obj, grace)
    finish_if_due(state, resource, obj)
    still_there = key_of(obj) in state.collection(resource).objects
    return obj if still_there or resource.returns_deleted else _deleted_status(resource, obj)


def finish_if_due(state: ClusterState, resource: Resource, obj: Object) -> None:
    """Remove an object that has nothing left to wait for: no finalizer, no grace."""
    metadata = obj["metadata"]
    if metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds"):
        return
    state.commit(resource, key_of(obj), None)
    if resource == CRDS:
        state.registry.serve(obj["spec"]["group"], obj["spec"]["names"]["plural"], ())
    if resource.is_custom:
        _finish_crd(state, f"{resource.plural}.{resource.group}")
    if namespace := metadata.get("namespace"):
        _finish_namespace(state, namespace)


def _check_preconditions(resource: Resource, obj: Object, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    kind = GroupResource(resource.group, resource.kind)
    if options.uid and options.uid != metadata["uid"]:
        raise conflict(
            kind,
            metadata["name"],
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated",
        )
    if options.revision and options.revision != metadata["resourceVersion"]:
        raise conflict(
            kind,
            metadata["name"],
            f"the ResourceVersion in the precondition ({options.revision}) does not match the ResourceVersion in "
            f"record ({metadata['resourceVersion']}). The object might have been modified",
        )


def _grace(state: ClusterState, resource: Resource, obj: Object, options: DeleteOptions) -> int:
    """Only pods on a node get time, and only when the settings let pods take some."""
    if resource != PODS or not obj["spec"].get("nodeName") or not state.settings.pod_termination:
        return 0
    return int(obj["spec"]["terminationGracePeriodSeconds"]) if options.grace is None else options.grace


def _mark(state: ClusterState, resource: Resource, obj: Object, grace: int) -> Object:
    metadata = obj["metadata"]
    left = metadata.get("deletionGracePeriodSeconds")
    if left is not None and left <= grace:
        return obj
    marks = {"deletionTimestamp": state.timestamp(after=grace), "deletionGracePeriodSeconds": grace}
    if "generation" in metadata and left is None:
        marks["generation"] = metadata["generation"] + 1
    marked = state.commit(resource, key_of(obj), obj | {"metadata": metadata | marks})
    if grace:
        loop = asyncio.get_running_loop()
        loop.call_later(state.settings.pod_termination, _end_of_grace, state, resource, marked)
    return marked


def _end_of_grace(state: ClusterState, resource: Resource, marked: Object) -> None:
    """Do what the kubelet does when the containers have ended."""
    obj = state.collection(resource).objects.get(key_of(marked))
    if obj and obj["metadata"]["uid"] == marked["metadata"]["uid"]:
        finish_if_due(state, resource, _mark(state, resource, obj, 0))


def _deleted_status(resource: Resource, obj: Object) -> Object:
    details = resource.group_resource.details(obj["metadata"]["name"]) | {"uid": obj["metadata"]["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _terminate_namespace(state: ClusterState, namespace: Object) -> Object:
    metadata = namespace["metadata"]
    if metadata.get("deletionTimestamp"):
        return namespace
    ended = namespace | {
        "metadata": metadata | {"deletionTimestamp": state.timestamp()},
        "status": {"phase": "Terminating"},
    }
    ended = state.commit(NAMESPACES, metadata["name"], ended)
    for resource in _namespaced(state):
        for obj in list(state.collection(resource).objects.values()):
            if obj["metadata"]["namespace"] == metadata["name"]:
                delete(state, Target(resource, metadata["name"], obj["metadata"]["name"]), DeleteOptions())
    _finish_namespace(state, metadata["name"])
    return ended


def _finish_namespace(state: ClusterState, name: str) -> None:
    namespace = state.collection(NAMESPACES).objects.get(name)
    if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
        return
    prefix = f"{name}/"
    if any(key.startswith(prefix) for resource in _namespaced(state) for key in state.collection(resource).objects):
        return
    finish_if_due(state, NAMESPACES, state.commit(NAMESPACES, name, namespace | {"spec": {}}))


def _namespaced(state: ClusterState) -> list[Resource]:
    by_storage = {resource.storage: resource for resource in state.registry if resource.namespaced}
    return list(by_storage.values())


def _terminate_crd(state: ClusterState, crd: Object) -> Object:
    metadata, spec = crd["metadata"], crd["spec"]
    if metadata.get("deletionTimestamp"):
        return crd
    finalizers = [*(metadata.get("finalizers") or []), CRD_FINALIZER]
    marks = {"deletionTimestamp": state.timestamp(), "finalizers": finalizers}
    marked = state.commit(CRDS, metadata["name"], crd | {"metadata": metadata | marks})
    served = [r for r in state.registry if (r.group, r.plural) == (spec["group"], spec["names"]["plural"])]
    for resource in served[:1]:
        for obj in list(state.collection(resource).objects.values()):
            where = obj["metadata"].get("namespace")
            delete(state, Target(resource, where, obj["metadata"]["name"]), DeleteOptions())
    _finish_crd(state, metadata["name"])
    return marked


def _finish_crd(state: ClusterState, name: str) -> None:
    crd = state.collection(CRDS).objects.get(name)
    if crd is None or CRD_FINALIZER not in (crd["metadata"].get("finalizers") or ()):
        return
    spec = crd["spec"]
    served = [r for r in state.registry if (r.group, r.plural) == (spec["group"], spec["names"]["plural"])]
    if any(state.collection(resource).objects for resource in served):
        return
    left = [finalizer for finalizer in crd["metadata"]["finalizers"] if finalizer != CRD_FINALIZER]
    finish_if_due(state, CRDS, state.commit(CRDS, name, crd | {"metadata": crd["metadata"] | {"finalizers": left}}))
