"""One HTTP connection of either mode: uvicorn's, with limits.

Pods reach every port of a node, and are hostile: one may send a head without end, or open connections by the thousand
and say nothing. uvicorn alone would keep all of it, for as long as the pod likes, until no descriptor is left for the
program's own work.
"""

import asyncio
import resource
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LONGEST_REQUEST = 32 * 1024
"""Bytes of head and body together. A token request has about 1 KiB, and nothing that is served reads a body."""
_HEAD_SECONDS = 10.0
"""From the first moment of a connection, or of a request on it, until its head is complete."""
_LARGEST_SHARE = 256
"""Connections of one address: an application has some; load tests have dozens."""
_RESERVE = 128
"""Descriptors that connections leave to the program: its own connections, netlink, files."""


def raise_descriptor_limit() -> None:
    """Take as many descriptors as we may have: the soft limit is 1024 on many systems, for the sake of `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class BoundedProtocol(HttpToolsProtocol):
    """One connection; those beyond the limits are closed as soon as they are there."""

    _open: ClassVar[Counter[str]] = Counter()
    """Connections of each address, of all listeners of the process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._received = 0
        self._patience: asyncio.TimerHandle | None = None
        self._peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the base does
        """Give the client some time to say something, if it has not too many connections already."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        self._open[self._peer] += 1
        if self._open[self._peer] > _LARGEST_SHARE or self._open.total() > _most_connections():
            transport.abort()
            return
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._open[self._peer] -= 1
        if not self._open[self._peer]:
            del self._open[self._peer]
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count before anything is parsed or kept."""
        self._received += len(data)
        if self._received > _LONGEST_REQUEST:
            self.send_400_response("The request is too long")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Count each request on its own; the piece at hand has been checked."""
        self._received = 0
        if self._patience is None:
            self._be_patient()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let the application answer; it has limits of its own."""
        self._stop_waiting()
        super().on_headers_complete()

    def _be_patient(self) -> None:
        self._patience = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft - _RESERVE, _RESERVE)
