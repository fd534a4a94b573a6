"""Structural schemas of CRDs: pruning, defaulting and validation, with the real server's messages.

Covered is what `manifests/crds` and the demo need: types, required, enum, pattern, lengths and bounds, nullable,
default, `x-kubernetes-preserve-unknown-fields`, `x-kubernetes-int-or-string`. Not covered: CEL rules, `oneOf`.
"""

import copy
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from podidentity.emulator.kubernetes.errors import FieldError, Object

_ROOT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"


def prune(obj: Object, schema: Object) -> tuple[Object, list[str]]:
    """Drop what the schema does not know; return the rest and the paths of what was dropped (`spec.extra`)."""
    dropped: list[str] = []
    kept = _prune(obj, schema, "", dropped, _ROOT_FIELDS)
    return kept, dropped


def with_defaults(value: Any, schema: Object) -> Any:
    """Fill absent fields from the schema's defaults; a null where null is not allowed counts as absent."""
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    if isinstance(value, float) and schema.get("type") == "integer" and value.is_integer():
        return int(value)
    if not isinstance(value, dict):
        return value
    filled = {}
    for name, item in value.items():
        member = _member(schema, name)
        if member is None:
            filled[name] = item
        elif item is not None or member.get("nullable"):
            filled[name] = with_defaults(item, member)
    for name, member in schema.get("properties", {}).items():
        if name not in filled and "default" in member:
            filled[name] = copy.deepcopy(member["default"])
    return filled


def validate(obj: Object, schema: Object) -> list[FieldError]:
    """Check an object of a custom resource; what the server itself keeps (kind, metadata) is checked elsewhere."""
    body = {name: value for name, value in obj.items() if name not in _ROOT_FIELDS}
    properties = {k: v for k, v in schema.get("properties", {}).items() if k not in _ROOT_FIELDS}
    required = [name for name in schema.get("required", []) if name not in _ROOT_FIELDS]
    return list(_errors(body, {**schema, "properties": properties, "required": required}, ""))


def _member(schema: Object, name: str) -> Object | None:
    """Find the schema of a field; None when the schema does not know it."""
    found: Object | None = schema.get("properties", {}).get(name)
    if found is None and isinstance(extra := schema.get("additionalProperties"), dict):
        found = extra
    return found


def _prune(value: Any, schema: Object, path: str, dropped: list[str], always: frozenset[str]) -> Any:
    if isinstance(value, list):
        items = schema.get("items", {})
        return [_prune(item, items, f"{path}[{i}]", dropped, frozenset()) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    keep_unknown = schema.get(_PRESERVE) or schema.get("additionalProperties") is True
    kept = {}
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        member = _member(schema, name)
        if name in always or (member is None and keep_unknown):
            kept[name] = item
        elif member is None:
            dropped.append(where)
        else:
            kept[name] = _prune(item, member, where, dropped, _embedded(member))
    return kept


def _embedded(schema: Object) -> frozenset[str]:
    return _ROOT_FIELDS if schema.get("x-kubernetes-embedded-resource") else frozenset()


def _errors(value: Any, schema: Object, path: str) -> Iterator[FieldError]:
    if value is None and schema.get("nullable"):
        return
    if complaint := _wrong_type(value, schema, path):
        yield complaint
    yield from _value_errors(value, schema, path)
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                yield FieldError.required(f"{path}.{name}" if path else name)
        for name, item in value.items():
            if (member := _member(schema, name)) is not None:
                yield from _errors(item, member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _errors(item, schema.get("items", {}), f"{path}[{i}]")


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return next(
        name for name in ("object", "array", "string", "integer", "number") if isinstance(value, _TYPES[name])
    )


def _wrong_type(value: Any, schema: Object, path: str) -> FieldError | None:
    expected = schema.get("type")
    if schema.get(_INT_OR_STRING):
        if isinstance(value, int | str) and not isinstance(value, bool):
            return None
        expected = "integer,string"
    elif expected is None or _is_a(value, expected):
        return None
    found = _type_name(value)
    message = f'Invalid value: "{found}": {path} in body must be of type {expected}: "{found}"'
    return FieldError("FieldValueTypeInvalid", path, message)


def _is_a(value: Any, expected: str) -> bool:
    if isinstance(value, bool):
        return expected == "boolean"
    if expected == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[expected])


def _value_errors(value: Any, schema: Object, path: str) -> Iterator[FieldError]:
    shown = json.dumps(len(value) if isinstance(value, list) else value)
    if (allowed := schema.get("enum")) and value not in allowed:
        listed = ", ".join(json.dumps(choice) for choice in allowed)
        yield FieldError("FieldValueNotSupported", path, f"Unsupported value: {shown}: supported values: {listed}")
    if isinstance(value, str) and len(value) > schema.get("maxLength", math.inf):
        message = f"Too long: may not be more than {schema['maxLength']} bytes"
        yield FieldError("FieldValueTooLong", path, message)
    if isinstance(value, list) and len(value) > schema.get("maxItems", math.inf):
        message = f"Too many: {shown}: must have at most {schema['maxItems']} items"
        yield FieldError("FieldValueTooMany", path, message)
    for keyword, (is_broken, text) in _LIMITS.items():
        if keyword in schema and is_broken(value, schema[keyword]):
            yield FieldError.invalid(path, shown, f"{path} in body {text.format(schema[keyword])}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_LIMITS: dict[str, tuple[Any, str]] = {
    "pattern": (lambda v, limit: isinstance(v, str) and not re.search(limit, v), "should match '{}'"),
    "minLength": (lambda v, limit: isinstance(v, str) and len(v) < limit, "should be at least {} chars long"),
    "minimum": (lambda v, limit: _number(v) and v < limit, "should be greater than or equal to {}"),
    "maximum": (lambda v, limit: _number(v) and v > limit, "should be less than or equal to {}"),
    "minItems": (lambda v, limit: isinstance(v, list) and len(v) < limit, "should have at least {} items"),
}
