"""The patch formats: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge. Pure: input stays as it is."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from podidentity.emulator.kubernetes.errors import ApiError, Object, bad_request

MERGE_KEYS = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "ports": "containerPort",
    "secrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists of built-in kinds whose elements strategic merge matches by a key. `taints` and `tolerations` are atomic."""

MERGED_SETS = frozenset({"finalizers"})
"""Lists of plain values that strategic merge unites."""


class PatchError(Exception):
    """A patch that is well formed but does not fit the object."""


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Object, operations: Any) -> Object:
    """Apply RFC 6902 as one unit.

    Raises:
        ApiError: 400 when the patch itself is malformed, 422 when it does not fit the object (a failed `test`).

    """
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise bad_request("error decoding patch: expected an array of operations")
    document = copy.deepcopy(target)
    try:
        for operation in operations:
            _OPERATIONS[operation["op"]](document, operation)
    except (PatchError, KeyError, IndexError, ValueError, TypeError) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, message, details={}) from error
    return document


def strategic_merge(target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch by the merge keys of the built-in kinds, honouring `$patch` directives."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) and patch.get("$patch") != "replace" else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            merged[name] = [item for item in merged.get(name) or [] if item not in value]
        elif key == "$retainKeys":
            merged = {k: v for k, v in merged.items() if k in value}
        elif key.startswith("$"):
            continue
        elif value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            merged.pop(key, None)
        else:
            merged[key] = _strategic_value(key, merged.get(key), value)
    return merged


def _strategic_value(key: str, current: Any, value: Any) -> Any:
    if isinstance(value, list) and key in MERGED_SETS:
        return [*(current or []), *(item for item in value if item not in (current or []))]
    merge_key = MERGE_KEYS.get(key)
    if isinstance(value, list) and merge_key and all(isinstance(item, dict) for item in value):
        return _merge_by_key(current or [], value, merge_key)
    return strategic_merge(current, value)


def _merge_by_key(current: Sequence[Object], changes: Sequence[Object], merge_key: str) -> list[Object]:
    if any(change.get("$patch") == "replace" and merge_key not in change for change in changes):
        return [change for change in changes if "$patch" not in change]
    merged = list(current)
    for change in changes:
        where = next((i for i, item in enumerate(merged) if item.get(merge_key) == change.get(merge_key)), None)
        if change.get("$patch") == "delete":
            if where is not None:
                del merged[where]
        elif where is None:
            merged.append(strategic_merge({}, change))
        else:
            merged[where] = strategic_merge(merged[where], change)
    return merged


def _pointer(text: str) -> list[str]:
    if not text.startswith("/"):
        raise PatchError(f"not a JSON pointer: {text}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _step(container: Any, part: str) -> Any:
    return container[int(part)] if isinstance(container, list) else container[part]


def _parent(document: Object, path: str) -> tuple[Any, str]:
    *parents, last = _pointer(path)
    container: Any = document
    for part in parents:
        container = _step(container, part)
    return container, last


def _read(document: Object, path: str) -> Any:
    container, last = _parent(document, path)
    return _step(container, last)


def _insert(document: Object, path: str, value: Any) -> None:
    container, last = _parent(document, path)
    if not isinstance(container, list):
        container[last] = value
        return
    position = len(container) if last == "-" else int(last)
    if not 0 <= position <= len(container):
        raise PatchError(f"index {last} is out of bounds")
    container.insert(position, value)


def _take(document: Object, path: str) -> Any:
    container, last = _parent(document, path)
    return container.pop(int(last)) if isinstance(container, list) else container.pop(last)


def _replace(document: Object, operation: Object) -> None:
    container, last = _parent(document, operation["path"])
    # The real server takes a replacement of a field that is not there for an addition.
    container[int(last) if isinstance(container, list) else last] = operation["value"]


def _test(document: Object, operation: Object) -> None:
    try:
        found = _read(document, operation["path"])
    except (KeyError, IndexError):
        found = None
    if found != operation.get("value"):
        raise PatchError(f"testing value {operation['path']} failed")


_OPERATIONS: dict[str, Callable[[Object, Object], Any]] = {
    "add": lambda doc, op: _insert(doc, op["path"], op["value"]),
    "remove": lambda doc, op: _take(doc, op["path"]),
    "replace": _replace,
    "move": lambda doc, op: _insert(doc, op["path"], _take(doc, op["from"])),
    "copy": lambda doc, op: _insert(doc, op["path"], copy.deepcopy(_read(doc, op["from"]))),
    "test": _test,
}
