"""Label and field selectors: text to a predicate over objects.

Grammar and errors as in `k8s.io/apimachinery/pkg/labels` and `pkg/fields`.
"""

import re
from collections.abc import Callable, Collection
from typing import TypeAlias

from podidentity.emulator.kubernetes.errors import Object, bad_request

Predicate: TypeAlias = Callable[[Object], bool]

_LABEL_TERM = re.compile(
    r"\s*(?:"
    r"(?P<absent>!\s*(?P<absent_key>[\w./-]+))"
    r"|(?P<set_key>[\w./-]+)\s+(?P<set_operator>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key>[\w./-]+)\s*(?:(?P<operator>==|!=|=)\s*(?P<value>[\w.-]*))?"
    r")\s*(?:,|$)"
)
_FIELD_TERM = re.compile(r"(?P<key>[^=!,]+)(?P<operator>==|!=|=)(?P<value>(?:[^\\,=]|\\.)*)(?:,|$)")
_DEFAULTS = {"spec.unschedulable": "false"}


def label_selector(text: str) -> Predicate:
    """Compile a label selector; the empty one takes everything.

    Raises:
        ApiError: 400 for text outside the grammar.

    """
    terms = [_label_term(match) for match in _matches(_LABEL_TERM, text, "unable to parse requirement")]

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(term(labels) for term in terms)

    return matches


def field_selector(text: str, supported: Collection[str]) -> Predicate:
    """Compile a field selector over the `supported` paths (`spec.nodeName`); values compare as strings.

    Raises:
        ApiError: 400 for bad text and for a path that this resource does not offer.

    """
    terms = []
    for match in _matches(_FIELD_TERM, text, "invalid field selector"):
        key, wanted = match["key"].strip(), re.sub(r"\\(.)", r"\1", match["value"])
        if key not in supported:
            raise bad_request(f"field label not supported: {key}")
        terms.append((key.split("."), wanted, match["operator"] != "!="))
    return lambda obj: all((_field(obj, path) == wanted) is equal for path, wanted, equal in terms)


def _matches(pattern: re.Pattern[str], text: str, complaint: str) -> list[re.Match[str]]:
    found, position = [], 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            raise bad_request(f"{complaint}: {text!r}")
        found.append(match)
        position = match.end()
    return found


def _label_term(match: re.Match[str]) -> Callable[[dict[str, str]], bool]:
    if key := match["absent_key"]:
        return lambda labels: key not in labels
    if key := match["set_key"]:
        values = {value.strip() for value in match["values"].split(",")}
        if match["set_operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    key, value = match["key"], match["value"]
    if match["operator"] is None:
        return lambda labels: key in labels
    if match["operator"] == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _field(obj: Object, path: list[str]) -> str:
    value: object = obj
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    return _DEFAULTS.get(".".join(path), "") if value is None else str(value)
