"""The query of a list or a watch, checked as `ValidateListOptions` of apimachinery does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from podidentity.emulator.kubernetes.errors import FieldError, Object, bad_request, invalid
from podidentity.emulator.kubernetes.resources import Resource
from podidentity.emulator.kubernetes.selectors import Predicate, field_selector, label_selector

_MATCHES = ("Exact", "NotOlderThan")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListOptions:
    """What a client asks of a list or a watch."""

    labels: Predicate
    fields: Predicate
    has_selector: bool
    watch: bool
    limit: int
    """Objects on a page; 0 is all."""
    continue_token: str
    revision: int | None
    """None where the client named none; 0 is "any"."""
    match: str
    """`Exact`, `NotOlderThan` or empty."""
    bookmarks: bool
    send_initial: bool | None
    timeout: float | None
    """Seconds until a watch ends; None leaves it to the server."""

    @classmethod
    def parse(cls, resource: Resource, query: Mapping[str, str]) -> Self:
        """Read the query.

        Raises:
            ApiError: 400 or 422.

        """
        timeout = _number(query, "timeoutSeconds")
        options = cls(
            labels=label_selector(query.get("labelSelector", "")),
            fields=field_selector(query.get("fieldSelector", ""), resource.field_selectors),
            has_selector=bool(query.get("labelSelector") or query.get("fieldSelector")),
            watch=_flag(query, "watch") is True,
            limit=_number(query, "limit") or 0,
            continue_token=query.get("continue", ""),
            revision=_revision(query.get("resourceVersion", "")),
            match=query.get("resourceVersionMatch", ""),
            bookmarks=_flag(query, "allowWatchBookmarks") is True,
            send_initial=_flag(query, "sendInitialEvents"),
            timeout=timeout or None,
        )
        if errors := options.errors():
            raise invalid("meta.k8s.io", "ListOptions", "", errors)
        return options

    def errors(self) -> list[FieldError]:
        """Find what does not go together."""
        if self.watch:
            return self._watch_errors()
        errors = []
        if self.send_initial is not None:
            errors.append(FieldError.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
        where = "resourceVersionMatch"
        if self.match and self.revision is None:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            errors.append(FieldError.forbidden(where, text))
        if self.match and self.continue_token:
            text = "resourceVersionMatch is forbidden when continue is provided"
            errors.append(FieldError.forbidden(where, text))
        if self.match and self.match not in _MATCHES:
            text = f'Unsupported value: "{self.match}": supported values: "Exact", "NotOlderThan", ""'
            errors.append(FieldError("FieldValueNotSupported", where, text))
        if self.match == "Exact" and self.revision == 0:
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            errors.append(FieldError.forbidden(where, text))
        return errors

    def selects(self, obj: Object) -> bool:
        """Whether both selectors take an object."""
        return self.labels(obj) and self.fields(obj)

    @property
    def starts_with_state(self) -> bool:
        """Whether a watch begins with synthetic ADDED events for what is there."""
        return not self.revision if self.send_initial is None else self.send_initial

    def _watch_errors(self) -> list[FieldError]:
        where = "resourceVersionMatch"
        if self.send_initial is not None and self.match != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            return [FieldError.forbidden(where, text)]
        if self.match and self.send_initial is None:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            return [FieldError.forbidden(where, text)]
        return []


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    text = query.get(name)
    return None if text is None else text not in ("0", "false")


def _revision(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": '
            f'strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)
