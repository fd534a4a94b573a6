"""Create, replace, patch: from what a client sent to the next revision of an object."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from podidentity.emulator.kubernetes import kinds, metadata
from podidentity.emulator.kubernetes.crds import accepted_status, resources_of
from podidentity.emulator.kubernetes.deletion import finish_if_due
from podidentity.emulator.kubernetes.errors import (
    ApiError,
    FieldError,
    Object,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from podidentity.emulator.kubernetes.incoming import WriteOptions, completed, confined, content, decoded
from podidentity.emulator.kubernetes.resources import CRDS, NAMESPACES, NODES, Resource, Target
from podidentity.emulator.kubernetes.state import ClusterState, key_of

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LETTERS = 5
_STALE = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(frozen=True, slots=True)
class Written:
    """The object after a write, in the client's version, and what to warn about."""

    obj: Object
    warnings: tuple[str, ...] = ()
    created: bool = False


def read(state: ClusterState, target: Target) -> Object:
    """Return an object in the version that the target names.

    Raises:
        ApiError: 404.

    """
    obj = state.collection(target.resource).objects.get(target.key)
    if obj is None:
        raise not_found(target.resource.group_resource, target.name or "")
    return kinds.served_form(target.resource, obj)


def create(state: ClusterState, target: Target, body: Any, options: WriteOptions) -> Written:
    """Create an object in the collection that the target names.

    Raises:
        ApiError: 400, 403, 404 (namespace), 409, 422.

    """
    resource = target.resource
    obj = decoded(resource, target.namespace, body)
    if obj["metadata"].get("resourceVersion"):
        raise ApiError(500, "resourceVersion should not be set on objects to be created", reason="")
    name = _choose_name(state, resource, obj)
    _check_namespace(state, target, name)
    obj = obj | {"metadata": _new_metadata(state, target, name, obj["metadata"])}
    if resource.has_status and resource != NODES:
        obj = {key: value for key, value in obj.items() if key != "status"}
    obj, warnings = completed(resource, obj, None, options)
    if resource == CRDS:
        obj = obj | {"status": accepted_status(obj, state.timestamp())}
    if key_of(obj) in state.collection(resource).objects:
        raise already_exists(resource.group_resource, name)
    return Written(_commit(state, resource, obj, options), warnings, created=True)


def replace(state: ClusterState, target: Target, body: Any, options: WriteOptions) -> Written:
    """Replace an object (PUT).

    Raises:
        ApiError: 400, 404, 409 for a stale resource version or another uid, 422.

    """
    resource = target.resource
    new = decoded(resource, target.namespace, body)
    old = read(state, target)
    was, sent = old["metadata"], new["metadata"]
    if not sent.get("resourceVersion"):
        if not resource.unconditional_update:
            where, problem = "metadata.resourceVersion", "must be specified for an update"
            raise invalid(resource.group, resource.plural, was["name"], [FieldError.invalid(where, "0", problem)])
        new = new | {"metadata": sent | {"resourceVersion": was["resourceVersion"]}}
    if sent.get("uid", was["uid"]) != was["uid"]:
        why = f"Precondition failed: UID in precondition: {sent['uid']}, UID in object meta: {was['uid']}"
        raise conflict(resource.group_resource, was["name"], why)
    return _update(state, target, old, new, options)


def patch(state: ClusterState, target: Target, change: Callable[[Object], Any], options: WriteOptions) -> Written:
    """Apply a change to an object; a resource version in the result that is not the current one is a conflict.

    Raises:
        ApiError: as `replace`.

    """
    old = read(state, target)
    new = decoded(target.resource, target.namespace, change(old))
    return _update(state, target, old, new, options)


def _choose_name(state: ClusterState, resource: Resource, obj: Object) -> str:
    sent = obj["metadata"]
    if name := sent.get("name"):
        return str(name)
    if prefix := sent.get("generateName"):
        return str(prefix) + "".join(state.rng.choice(_NAME_LETTERS) for _ in range(_SUFFIX_LETTERS))
    error = FieldError.required("metadata.name", "name or generateName is required")
    raise invalid(resource.group, resource.kind, "", [error])


def _check_namespace(state: ClusterState, target: Target, name: str) -> None:
    if target.namespace is None:
        return
    owner = read(state, Target(NAMESPACES, None, target.namespace))
    if owner["metadata"].get("deletionTimestamp"):
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {target.namespace} is being terminated",
            "field": "metadata.namespace",
        }
        why = f"unable to create new content in namespace {target.namespace} because it is being terminated"
        raise forbidden(target.resource.group_resource, name, why, [cause])


def _new_metadata(state: ClusterState, target: Target, name: str, sent: Object) -> Object:
    kept = {key: value for key, value in sent.items() if key not in metadata.MANAGED}
    made: Object = {"name": name} | ({"namespace": target.namespace} if target.namespace else {})
    generation = {"generation": 1} if target.resource.has_generation else {}
    return kept | made | state.new_metadata() | generation


def _update(state: ClusterState, target: Target, old: Object, new: Object, options: WriteOptions) -> Written:
    resource, was = target.resource, old["metadata"]
    _check_identity(resource, was, new["metadata"])
    old = kinds.stored_form(resource, old)
    new = metadata.with_managed(old, confined(resource, old, new, target.subresource))
    new, warnings = completed(resource, new, old, options)
    if metadata.same_but_revision(old, new):
        return Written(kinds.served_form(resource, old), warnings)
    if was.get("deletionTimestamp") and not new["metadata"].get("finalizers") and not options.dry_run:
        finish_if_due(state, resource, new)
        if target.key not in state.collection(resource).objects:
            return Written(kinds.served_form(resource, new), warnings)
    if resource.has_generation and content(resource, old) != content(resource, new):
        new = new | {"metadata": new["metadata"] | {"generation": was.get("generation", 0) + 1}}
    return Written(_commit(state, resource, new, options), warnings)


def _check_identity(resource: Resource, was: Object, now: Object) -> None:
    """Refuse another name, an old resource version, another uid."""
    if now.get("name") != was["name"]:
        text = f"the name of the object ({now.get('name', '')}) does not match the name on the URL ({was['name']})"
        raise bad_request(text)
    if now.get("resourceVersion") != was["resourceVersion"]:
        raise conflict(resource.group_resource, was["name"], _STALE)
    if now.get("uid", was["uid"]) != was["uid"]:
        error = FieldError.invalid("metadata.uid", f'"{now["uid"]}"', "field is immutable")
        raise invalid(resource.group, resource.kind, was["name"], [error])


def _commit(state: ClusterState, resource: Resource, obj: Object, options: WriteOptions) -> Object:
    if options.dry_run:
        return kinds.served_form(resource, obj)
    written = state.commit(resource, key_of(obj), obj)
    if resource == CRDS:
        state.registry.serve(obj["spec"]["group"], obj["spec"]["names"]["plural"], resources_of(obj))
    return kinds.served_form(resource, written)
