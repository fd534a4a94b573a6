"""A token request as the client sent it, checked before anything is looked up. Pure.

Probes of SDKs send requests that lack the header or the resource and give up after a second: the order of the checks
is IMDS's, and none of them waits for anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from podidentity.node.refusal import invalid

_LONGEST_QUERY = 8192
"""Bytes; a resource ID and an audience have some hundreds."""


class SelectorKind(Enum):
    """By what a client names the identity it wants."""

    CLIENT_ID = "client_id"
    OBJECT_ID = "object_id"
    RESOURCE_ID = "msi_res_id"


@dataclass(frozen=True, slots=True)
class Selector:
    """One identity, as the client named it; `value` is in lower case, without a slash at its end."""

    kind: SelectorKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind.value}={self.value[:200]}"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request that can be worked on."""

    resource: str
    """The audience, exactly as written: it is echoed, and a slash at its end makes another token."""
    selector: Selector | None = None


_SELECTORS = {
    "client_id": SelectorKind.CLIENT_ID,
    "object_id": SelectorKind.OBJECT_ID,
    "principal_id": SelectorKind.OBJECT_ID,
    "msi_res_id": SelectorKind.RESOURCE_ID,
    "mi_res_id": SelectorKind.RESOURCE_ID,
    "msi-res-id": SelectorKind.RESOURCE_ID,
}
_NEAR_MISSES = {"clientid", "objectid", "principalid", "resourceid", "msiresid", "miresid", "identity", "identityid"}
"""Spellings, without separators, of somebody who believes to name an identity. Ignoring them would hand out another
identity in silence."""


def check_headers(headers: Iterable[tuple[bytes, bytes]], *, required: bool) -> None:
    """Refuse what a browser or a proxy could have been tricked into sending. Raises Refusal."""
    metadata = set()
    for name, value in headers:
        if name == b"x-forwarded-for":
            raise invalid("Requests with the header X-Forwarded-For are not answered")
        if name == b"metadata":
            metadata.add(value.strip())
    if required and metadata != {b"true"}:
        raise invalid("Required metadata header not specified")


def parse_token_request(query: bytes) -> TokenRequest:
    """Read the query. Raises Refusal."""
    fields = _fields(query)
    resource = fields.get("resource", "")
    if not resource:
        raise invalid("Required query variable 'resource' is missing")
    chosen: set[Selector] = set()
    for name, written in fields.items():
        if kind := _SELECTORS.get(name):
            if value := written.strip():
                chosen.add(Selector(kind, value.lower().rstrip("/")))
        elif _plain(name) in _NEAR_MISSES:
            known = "client_id, object_id or msi_res_id"
            raise invalid(f"The query variable {name[:40]!r} is not known; name an identity by {known}")
    if len(chosen) > 1:
        raise invalid("The query names an identity twice: client_id, object_id and msi_res_id exclude each other")
    return TokenRequest(resource, chosen.pop() if chosen else None)


def _fields(query: bytes) -> dict[str, str]:
    if len(query) > _LONGEST_QUERY:
        raise invalid("The query is too long")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise invalid("The query cannot be read") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise invalid("A query variable is given more than once")
    return fields


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
