"""The HTTP protocol of the pods' side: uvicorn's, with limits, and with JSON where even the parser says no.

Pods are hostile: one may send a head without end, or open connections and say nothing. uvicorn alone would keep all
of it, for as long as the pod likes.
"""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from podidentity.node.refusal import invalid

_LONGEST_REQUEST = 32 * 1024
"""Bytes of head and body together. A token request has about 1 KiB, and nothing that is served reads a body."""
_HEAD_SECONDS = 10.0
"""From the first moment of a connection, or of a request on it, until its head is complete."""


class PodProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._received = 0
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the base does
        """Give the client some time to say something."""
        super().connection_made(transport)
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
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

    def send_400_response(self, msg: str) -> None:
        """Refuse in the shape of every other refusal, and close."""
        body = msgspec.json.encode(invalid(msg).body)
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _be_patient(self) -> None:
        self._patience = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
