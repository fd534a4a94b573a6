"""Object metadata: what the server sets, keeps and checks on writes. Pure."""

import re
from collections.abc import Iterator

from podidentity.emulator.kubernetes.errors import FieldError, Object, bad_request
from podidentity.emulator.kubernetes.resources import NAMESPACES, Resource

MANAGED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
"""Metadata that only the server writes."""

_IGNORED = ("managedFields", "selfLink")
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_BAD_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_BAD_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    f"'{_LABEL}')"
)
_BAD_LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    f"is '{_LABEL_VALUE}')"
)
_BAD_LABEL_NAME = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_LABEL_NAME}')"
)
_NAME_BYTES = 253
_LABEL_BYTES = 63


def decoded(resource: Resource, obj: Object) -> Object:
    """Check what the Go type of metadata would not parse, and drop what clients cannot set.

    Raises:
        ApiError: 400.

    """
    metadata = obj.get("metadata") or {}
    for field in ("labels", "annotations"):
        if not all(isinstance(value, str) for value in (metadata.get(field) or {}).values()):
            raise _cannot_handle(
                resource, f"cannot unmarshal value into Go struct field ObjectMeta.{field} of type string"
            )
    if not isinstance(metadata.get("finalizers") or [], list):
        raise _cannot_handle(
            resource, "cannot unmarshal value into Go struct field ObjectMeta.finalizers of type []string"
        )
    kept = {key: value for key, value in metadata.items() if key not in _IGNORED and value not in (None, [], {}, "")}
    return {"kind": resource.kind, "apiVersion": resource.api_version} | obj | {"metadata": kept}


def field_errors(resource: Resource, obj: Object) -> Iterator[FieldError]:
    """Check name and labels."""
    metadata = obj["metadata"]
    name = metadata["name"]
    is_label = resource == NAMESPACES
    shape, complaint = (_LABEL, _BAD_LABEL) if is_label else (_SUBDOMAIN, _BAD_SUBDOMAIN)
    limit = _LABEL_BYTES if is_label else _NAME_BYTES
    if len(name) > limit:
        yield FieldError.invalid("metadata.name", f'"{name}"', f"must be no more than {limit} bytes")
    if not re.fullmatch(shape, name):
        yield FieldError.invalid("metadata.name", f'"{name}"', complaint)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label_errors(key, value)


def finalizer_errors(old: Object, new: Object) -> Iterator[FieldError]:
    """Refuse finalizers added to an object that is being deleted."""
    if not old["metadata"].get("deletionTimestamp"):
        return
    before = old["metadata"].get("finalizers") or []
    if added := [name for name in new["metadata"].get("finalizers") or [] if name not in before]:
        listed = ", ".join(f'"{name}"' for name in added)
        yield FieldError.forbidden(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted, found new finalizers "
            f"[]string{{{listed}}}",
        )


def with_managed(old: Object, new: Object) -> Object:
    """Take over from the old object what only the server writes."""
    metadata = {key: value for key, value in new["metadata"].items() if key not in MANAGED}
    kept = {key: old["metadata"][key] for key in MANAGED if key in old["metadata"]}
    return new | {"metadata": metadata | kept}


def same_but_revision(old: Object, new: Object) -> bool:
    """Whether a write changes nothing; such a write does not count as one."""
    return _without_revision(old) == _without_revision(new)


def _without_revision(obj: Object) -> Object:
    return obj | {"metadata": {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}


def _label_errors(key: str, value: str) -> Iterator[FieldError]:
    name = key.rpartition("/")[2]
    if not re.fullmatch(_LABEL_NAME, name):
        yield FieldError.invalid("metadata.labels", f'"{key}"', _BAD_LABEL_NAME)
    if len(name) > _LABEL_BYTES:
        yield FieldError.invalid("metadata.labels", f'"{key}"', "name part must be no more than 63 bytes")
    if len(value) > _LABEL_BYTES:
        yield FieldError.invalid("metadata.labels", f'"{value}"', "must be no more than 63 bytes")
    if not re.fullmatch(_LABEL_VALUE, value):
        yield FieldError.invalid("metadata.labels", f'"{value}"', _BAD_LABEL_VALUE)


def _cannot_handle(resource: Resource, why: str) -> Exception:
    what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
    return bad_request(f"{what}: json: {why}")
