"""What can go wrong between us and an API server.

KubernetesError
├── Unreachable        no answer: refused, cut, timed out
├── MalformedAnswer    an answer that is not what an API server sends
└── ApiError           a Status of the API server; `code` and `reason` say which
    ├── NotFound       404
    ├── Conflict       409: somebody else wrote first, or the object exists already
    ├── Expired        410: the resourceVersion is too old
    └── Throttled      429; `retry_after` in seconds when the server named one
"""

import re

import msgspec

from podidentity.api.decoding import decode
from podidentity.api.errors import PodIdentityError

_SECONDS = re.compile("[0-9]{1,9}")
"""`Retry-After` may also be a date, which no API server sends."""
_LONGEST_MESSAGE = 500
"""Characters of a server's message that are kept: enough to understand, too few to leak an object."""


class KubernetesError(PodIdentityError):
    """A call to the API server failed."""


class Unreachable(KubernetesError):
    """No answer came."""


class MalformedAnswer(KubernetesError):
    """Something answered, but not as an API server does."""


class ApiError(KubernetesError):
    """The API server refused, in its own words."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}"[:_LONGEST_MESSAGE])
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409, of either reason (Conflict or AlreadyExists)."""


class Expired(ApiError):
    """410, or reason Expired or Gone inside a stream."""


class Throttled(ApiError):
    """429."""


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str = ""
    message: str = ""


_STATUS = msgspec.json.Decoder(_Status)
_CLASSES: dict[int, type[ApiError]] = {404: NotFound, 409: Conflict, 410: Expired, 429: Throttled}


def api_error(status: int, body: bytes | msgspec.Raw, retry_after: str | None = None) -> ApiError:
    """Build the error for an answer of 400 or above, or for an ERROR event (`status` 0: the body knows)."""
    try:
        said = decode(_STATUS, body)
    except msgspec.DecodeError:
        said = _Status(message=bytes(body)[:200].decode("utf-8", "replace"))
    code = status or said.code
    cls = Expired if said.reason in {"Expired", "Gone"} else _CLASSES.get(code, ApiError)
    seconds = float(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else None
    return cls(code, said.reason or "Unknown", said.message or "no message", seconds)
