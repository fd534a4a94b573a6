"""The HTTP protocol of the pods' side: the bounded one, with JSON where even the parser says no."""

import msgspec

from podidentity.node.refusal import invalid
from podidentity.telemetry.protocol import BoundedProtocol


class PodProtocol(BoundedProtocol):
    """One connection."""

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
