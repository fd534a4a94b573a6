"""Which endpoint a raw request path means. Pure, strict, and decided once: nothing later looks at the path again.

CVE-2022-23551 was a path in an odd spelling that upstream's deny-list missed and IMDS understood. So there is no
deny-list here: a path is one of few known spellings, or it is refused.
"""

from enum import Enum

_HOST_TOKEN = "/host/token"
_TOKEN = ("identity", "oauth2", "token")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/")
"""Bytes that mean themselves in a path; everything else is an encoding, a separator of some system, or garbage."""


class Endpoint(Enum):
    """What a path asks for."""

    TOKEN = "token"
    HOST_TOKEN = "host_token"
    IDENTITY = "identity"
    """Something else below /metadata/identity: never answered, never passed on."""
    OTHER = "other"
    ODD = "odd"
    """No spelling that a client of IMDS uses."""


def endpoint_of(raw_path: bytes) -> Endpoint:
    """Classify the path as it came over the wire, without the query.

    Real clients send a run of leading slashes (Java), a trailing slash (the CSI driver), and any case of `metadata`.
    """
    if not raw_path.startswith(b"/") or not _PLAIN.issuperset(raw_path):
        return Endpoint.ODD
    path = "/" + raw_path.decode("ascii").lstrip("/")
    path = path.removesuffix("/") or "/"
    segments = path[1:].split("/")
    if path != "/" and any(segment in {"", ".", ".."} for segment in segments):
        return Endpoint.ODD
    if path == _HOST_TOKEN:
        return Endpoint.HOST_TOKEN
    if segments[0].lower() != "metadata":
        return Endpoint.OTHER
    if tuple(segments[1:]) == _TOKEN:
        return Endpoint.TOKEN
    if len(segments) > 1 and segments[1].lower() == "identity":
        return Endpoint.IDENTITY
    return Endpoint.OTHER
