"""Reading one field of a CRD's spec that no schema has checked.

Names match without regard to case, as Go's decoder did for upstream; the exact spelling wins when both are there.
A missing or null field is empty; a field of the wrong type raises `InvalidValue` with the words for the user.
"""

from typing import Any

from podidentity.api.errors import InvalidValue


def text(spec: Any, name: str, *, where: str = "spec") -> str:
    """Return a string, stripped; empty when absent."""
    value = _find(spec, name, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidValue(f"{where}.{name} must be a text, not {_kind(value)}")
    return value.strip()


def integer(spec: Any, name: str, *, where: str = "spec") -> int:
    """Return a whole number; 0 when absent."""
    value = _find(spec, name, where)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValue(f"{where}.{name} must be a whole number, not {_kind(value)}")
    return value


def mapping(spec: Any, name: str, *, where: str = "spec") -> dict[str, Any]:
    """Return an object; empty when absent."""
    value = _find(spec, name, where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidValue(f"{where}.{name} must be an object, not {_kind(value)}")
    return value


def strings(spec: Any, name: str, *, where: str = "spec") -> tuple[str, ...]:
    """Return a list of strings; empty when absent."""
    value = _find(spec, name, where)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidValue(f"{where}.{name} must be a list of texts")
    return tuple(item.strip() for item in value)


def _find(spec: Any, name: str, where: str) -> Any:
    if spec is None:
        return None
    if not isinstance(spec, dict):
        raise InvalidValue(f"{where} must be an object, not {_kind(spec)}")
    if spec.get(name) is not None:
        return spec[name]
    folded = name.lower()
    return next((value for key, value in spec.items() if key.lower() == folded and value is not None), None)


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")
