"""What single built-in kinds do beyond storage: defaults, conversions, and the validation that clients meet.

`decode` raises 400 for what the Go types would not parse; `defaulted` fills fields; `field_errors` feeds a 422.
"""

import base64
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from podidentity.emulator.kubernetes.errors import FieldError, Object, bad_request
from podidentity.emulator.kubernetes.resources import (
    CRDS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NEW_EVENTS,
    PODS,
    SECRETS,
    Resource,
)

MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_MICRO_TIME_SHAPE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")

# core/v1 name: events.k8s.io/v1 name, from pkg/apis/events/v1/conversion.go
_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}


def stored_form(resource: Resource, obj: Object) -> Object:
    """Convert from the version that the client speaks to the one that is kept."""
    return _renamed(obj, {new: old for old, new in _EVENT_NAMES.items()}) if resource == NEW_EVENTS else obj


def served_form(resource: Resource, obj: Object) -> Object:
    """Convert from the version that is kept to the one that the client speaks."""
    if resource == NEW_EVENTS:
        obj = _renamed(obj, _EVENT_NAMES)
    if obj["apiVersion"] != resource.api_version:
        obj = obj | {"apiVersion": resource.api_version}
    return obj


def defaulted(resource: Resource, obj: Object) -> Object:
    """Check what must parse, and fill in what the server fills in.

    Raises:
        ApiError: 400 where the real server could not decode the object.

    """
    fill_in = _DEFAULTS.get(resource.storage)
    return fill_in(obj) if fill_in else obj


def field_errors(resource: Resource, obj: Object) -> list[FieldError]:
    """Validate the kind's own fields."""
    check = _new_event_errors if resource == NEW_EVENTS else _CHECKS.get(resource.storage)
    return list(check(obj)) if check else []


def change_errors(resource: Resource, old: Object, new: Object) -> list[FieldError]:
    """Validate what may change: a pod stays on its node (there is no scheduler, so anybody may place it once)."""
    if resource != PODS or old["spec"].get("nodeName") in (None, "", new["spec"].get("nodeName")):
        return []
    return [FieldError.forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`")]


def _renamed(obj: Object, names: dict[str, str]) -> Object:
    return {names.get(key, key): value for key, value in obj.items()}


def _pod(obj: Object) -> Object:
    spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst"}
    status = {"phase": "Pending"} | (obj.get("status") or {})
    return obj | {"spec": spec | (obj.get("spec") or {}), "status": status}


def _namespace(obj: Object) -> Object:
    metadata = obj["metadata"]
    labels = (metadata.get("labels") or {}) | {"kubernetes.io/metadata.name": metadata["name"]}
    spec = {"finalizers": ["kubernetes"]} | (obj.get("spec") or {})
    status = {"phase": "Active"} | (obj.get("status") or {})
    return obj | {"metadata": metadata | {"labels": labels}, "spec": spec, "status": status}


def _secret(obj: Object) -> Object:
    secret = {"type": "Opaque"} | {key: value for key, value in obj.items() if key != "stringData"}
    for value in (secret.get("data") or {}).values():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            raise bad_request(
                'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0'
            ) from None
    if plain := obj.get("stringData"):
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        secret["data"] = (secret.get("data") or {}) | encoded
    return secret


def _lease(obj: Object) -> Object:
    spec = {key: value for key, value in (obj.get("spec") or {}).items() if value is not None}
    for key in ("acquireTime", "renewTime"):
        if key in spec:
            spec[key] = _micro_time(spec[key])
    for key in ("leaseDurationSeconds", "leaseTransitions"):
        if key in spec and type(spec[key]) is not int:
            raise bad_request(
                'Lease in version "v1" cannot be handled as a Lease: json: cannot unmarshal '
                f"{type(spec[key]).__name__} into Go struct field LeaseSpec.spec.{key} of type int32"
            )
    return obj | {"spec": spec}


def _micro_time(text: Any) -> str:
    # Go parses MicroTime with exactly six digits: a client that drops a zero fraction is refused.
    if not isinstance(text, str) or not _MICRO_TIME_SHAPE.fullmatch(text):
        raise bad_request(
            'Lease in version "v1" cannot be handled as a Lease: '
            f'parsing time "{text}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse'
        )
    return datetime.fromisoformat(text).astimezone(UTC).strftime(MICRO_TIME)


def _event(obj: Object) -> Object:
    empty: Object = {"source": {}, "firstTimestamp": None, "lastTimestamp": None, "eventTime": None}
    return empty | {"reportingComponent": "", "reportingInstance": ""} | obj


def _crd(obj: Object) -> Object:
    spec = {"conversion": {"strategy": "None"}} | obj.get("spec", {})
    names = spec.get("names", {})
    kind = names.get("kind", "")
    spec["names"] = {"singular": kind.lower(), "listKind": f"{kind}List"} | names
    return obj | {"spec": spec}


def _pod_errors(obj: Object) -> Iterator[FieldError]:
    containers = obj["spec"].get("containers")
    if not containers:
        yield FieldError.required("spec.containers")
    for i, container in enumerate(containers or ()):
        for key in ("name", "image"):
            if not container.get(key):
                yield FieldError.required(f"spec.containers[{i}].{key}")


def _lease_errors(obj: Object) -> Iterator[FieldError]:
    spec = obj["spec"]
    if (duration := spec.get("leaseDurationSeconds")) is not None and duration <= 0:
        yield FieldError.invalid("spec.leaseDurationSeconds", str(duration), "must be greater than 0")
    if (transitions := spec.get("leaseTransitions")) is not None and transitions < 0:
        yield FieldError.invalid("spec.leaseTransitions", str(transitions), "must be greater than or equal to 0")


def _event_errors(obj: Object) -> Iterator[FieldError]:
    involved = (obj.get("involvedObject") or {}).get("namespace", "")
    # Events about objects without a namespace belong into `default`.
    if (involved or "default") != obj["metadata"]["namespace"]:
        yield FieldError.invalid("involvedObject.namespace", f'"{involved}"', "does not match event.namespace")


def _new_event_errors(obj: Object) -> Iterator[FieldError]:
    if not obj.get("eventTime"):
        yield FieldError.required("eventTime")
    else:
        for key in ("reportingComponent", "reportingInstance", "action", "reason"):
            if not obj.get(key):
                yield FieldError.required(_EVENT_NAMES.get(key, key))
    if (kind := obj.get("type", "")) not in ("Normal", "Warning"):
        yield FieldError.invalid("type", f'"{kind}"', f"has invalid value: {kind}")
    yield from _event_errors(obj)


_PROTECTED = (".k8s.io", ".kubernetes.io")
_APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_LINK = ", see https://github.com/kubernetes/enhancements/pull/1111"


def _crd_errors(obj: Object) -> Iterator[FieldError]:
    name, spec = obj["metadata"]["name"], obj["spec"]
    if name != f"{spec['names'].get('plural')}.{spec.get('group')}":
        yield FieldError.invalid("metadata.name", f'"{name}"', 'must be spec.names.plural+"."+spec.group')
    annotations = obj["metadata"].get("annotations") or {}
    if obj["spec"]["group"].endswith(_PROTECTED) and not annotations.get(_APPROVAL):
        message = f"protected groups must have approval annotation {_APPROVAL!r}"
        yield FieldError.required(f"metadata.annotations[{_APPROVAL}]", message.replace("'", '"') + _APPROVAL_LINK)
    versions = spec.get("versions") or ()
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield FieldError.invalid("spec.versions", "[]", "must have exactly one version marked as storage version")
    for i, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield FieldError.required(f"spec.versions[{i}].schema.openAPIV3Schema", "schemas are required")


_DEFAULTS: dict[object, Callable[[Object], Object]] = {
    PODS.storage: _pod,
    NAMESPACES.storage: _namespace,
    SECRETS.storage: _secret,
    LEASES.storage: _lease,
    EVENTS.storage: _event,
    CRDS.storage: _crd,
}
_CHECKS: dict[object, Callable[[Object], Iterator[FieldError]]] = {
    PODS.storage: _pod_errors,
    LEASES.storage: _lease_errors,
    EVENTS.storage: _event_errors,
    CRDS.storage: _crd_errors,
}
