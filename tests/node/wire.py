"""Raw HTTP: exactly these bytes go out, and what comes back is shown as it is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE = 10.0
"""Seconds after which a test that waits for bytes fails."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Read one answer; `100 Continue` is none."""
        async with asyncio.timeout(PATIENCE):
            while (head := await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "):
                pass
            status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"])) if has_body else b""
            return Answer(int(status_line.split()[1]), headers, body)

    @property
    def arrived(self) -> bytes:
        """What has come and was not read yet."""
        return bytes(self.reader._buffer)  # type: ignore[attr-defined] # typeshed hides it

    async def ended(self) -> bytes:
        """Read until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def connected(port: int, *, source: str, to: str = "127.0.0.1") -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(to, port, local_addr=(source, 0))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def request(
    path: bytes = b"/metadata/identity/oauth2/token?resource=https://vault.azure.net",
    *headers: bytes,
    method: bytes = b"GET",
    metadata: bool = True,
    body: bytes = b"",
) -> bytes:
    """Build a request; with `Metadata: true` unless told otherwise."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: 169.254.169.254"]
    lines += [b"Metadata: true"] if metadata else []
    return b"\r\n".join([*lines, *headers, b"", body])
