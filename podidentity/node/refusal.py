"""How a request is refused: always JSON in IMDS's shape, with words for the owner of the pod."""

import math
from dataclasses import dataclass

from podidentity.api.imds import error_body


@dataclass(eq=False, slots=True)
class Refusal(Exception):
    """An answer that holds no token. Made anew for each request: a raised exception keeps its frames alive."""

    # Not frozen: `contextlib` writes the traceback of an exception that passes through it.
    status: int
    error: str
    description: str
    retry_after: float | None = None
    """Seconds; only on answers that a client should try again: clients obey it on any status."""

    def __str__(self) -> str:
        return f"{self.status} {self.error}: {self.description}"

    @property
    def body(self) -> dict[str, str]:
        """The JSON body."""
        return error_body(self.error, self.description)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers beyond those of every answer."""
        if self.retry_after is None:
            return []
        return [(b"retry-after", str(math.ceil(self.retry_after)).encode())]


def invalid(description: str) -> Refusal:
    """Return the 400 of a request that is wrong in itself."""
    return Refusal(400, "invalid_request", description)


def not_yet(description: str, retry_after: float) -> Refusal:
    """Return the 503 of something that passes by itself."""
    return Refusal(503, "service_unavailable", description, retry_after)
