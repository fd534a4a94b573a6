"""A server that answers as it is told and remembers what it was asked."""

import asyncio
import datetime as dt
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from podidentity.emulator.tls import Certificate


@dataclass
class Recorder:
    """Answers `status` and `body` to everybody who sends one of `tokens` (any token where there are none)."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    tokens: set[str] | None = None
    silent: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        message = await receive()
        self.asked.append(
            {"method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode()}
            | {"body": message["body"].decode()}
            | headers
        )
        if self.silent:
            await asyncio.Event().wait()
        known = self.tokens is None or headers.get("authorization") in self.tokens
        more = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status if known else 401, "headers": more})
        await send({"type": "http.response.body", "body": self.body})

    @property
    def authorizations(self) -> list[str | None]:
        return [request.get("authorization") for request in self.asked]


@dataclass(frozen=True, kw_only=True)
class MutualTls(Certificate):
    """A server certificate, and the only client certificate that gets in."""

    client: Path

    def server_context(self) -> ssl.SSLContext:
        context = super().server_context()
        context.load_verify_locations(self.client)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def client_certificate(folder: Path) -> Certificate:
    """Make a self-signed certificate for a client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    made = Certificate(certificate=folder / "client.crt", key=folder / "client.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    made.key.write_bytes(key.private_bytes(*pem))
    return made
