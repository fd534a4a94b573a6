"""What clients send, made fit for storage: decoded, confined to its part, pruned, defaulted, validated. Pure."""

from dataclasses import dataclass
from typing import Any

from podidentity.emulator.kubernetes import kinds, metadata, schemas
from podidentity.emulator.kubernetes.errors import Object, bad_request, invalid
from podidentity.emulator.kubernetes.resources import Resource


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteOptions:
    """What a client may say with a write."""

    dry_run: bool = False
    field_validation: str = "Warn"
    """What unknown fields of custom resources lead to: `Strict` 400, `Warn` a header, `Ignore` nothing."""


def decoded(resource: Resource, namespace: str | None, body: Any) -> Object:
    """Check what a client sent against where it sent it, and turn it into the form that is stored.

    Raises:
        ApiError: 400.

    """
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    kind, api_version = body.get("kind"), body.get("apiVersion")
    if resource.is_custom and not kind:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): Object 'Kind' is missing"
        )
    if resource.is_custom and api_version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if (kind or resource.kind, api_version or resource.api_version) != (resource.kind, resource.api_version):
        raise bad_request(f'{kind} in version "{api_version}" cannot be handled as a {resource.kind}')
    obj = metadata.decoded(resource, body)
    if obj["metadata"].get("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if namespace is not None:
        obj = obj | {"metadata": obj["metadata"] | {"namespace": namespace}}
    return kinds.stored_form(resource, obj)


def confined(resource: Resource, old: Object, new: Object, subresource: str | None) -> Object:
    """Keep a write within its part: status only through `/status`, and nothing else through it."""
    if not resource.has_status:
        return new
    status = (new if subresource == "status" else old).get("status")
    if subresource != "status":
        base = new
    else:
        base = old | ({"metadata": old["metadata"]} if resource.is_custom else {"metadata": new["metadata"]})
    rest = {key: value for key, value in base.items() if key != "status"}
    return rest if status is None else rest | {"status": status}


def completed(
    resource: Resource, obj: Object, old: Object | None, options: WriteOptions
) -> tuple[Object, tuple[str, ...]]:
    """Prune, default and validate; return the object and warnings.

    Raises:
        ApiError: 400, 422.

    """
    warnings: tuple[str, ...] = ()
    if resource.schema is None:
        obj = kinds.defaulted(resource, obj)
        errors = kinds.field_errors(resource, obj)
    else:
        obj, unknown = schemas.prune(obj, resource.schema)
        warnings = _unknown_fields(resource, unknown, options)
        obj = schemas.with_defaults(obj, resource.schema)
        errors = schemas.validate(obj, resource.schema)
    errors = [*metadata.field_errors(resource, obj), *errors]
    if old is not None:
        errors += [*metadata.finalizer_errors(old, obj), *kinds.change_errors(resource, old, obj)]
    if errors:
        raise invalid(resource.storage.group, resource.kind, obj["metadata"]["name"], errors)
    return obj, warnings


def _unknown_fields(resource: Resource, unknown: list[str], options: WriteOptions) -> tuple[str, ...]:
    found = tuple(f'unknown field "{path}"' for path in unknown)
    if found and options.field_validation == "Strict":
        what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        raise bad_request(f"{what}: strict decoding error: {', '.join(found)}")
    return found if options.field_validation == "Warn" else ()


def content(resource: Resource, obj: Object) -> Object:
    """Return the part of an object whose changes count as a new generation."""
    apart = {"metadata", "kind", "apiVersion"} | ({"status"} if resource.has_status else set())
    return {key: value for key, value in obj.items() if key not in apart}
