"""What the pods' side does before a request is a request."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from podidentity.telemetry import protocol
from tests.node.served import READY, Served, node

TOKEN = b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with node(*READY) as place:
        yield place


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.1)


@pytest.mark.parametrize(
    "garbage",
    [b"HELLO\r\n\r\n", b"GET nowhere HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"],
    ids=["no method", "no path", "no ASCII", "TLS"],
)
async def test_what_is_no_http_is_refused_in_json_and_closed(served: Served, garbage: bytes):
    async with served.connection() as wire:
        wire.send(garbage)
        answer = await wire.answer()
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert await wire.ended() == b""


async def test_a_head_without_end_is_refused_and_closed(served: Served):
    async with served.connection() as wire:
        wire.send(TOKEN + b"x: " + b"y" * 40_000)
        answer = await wire.answer()
        assert (answer.status, answer.json["error_description"]) == (400, "The request is too long")


async def test_a_body_without_end_is_closed(served: Served):
    async with served.connection() as wire:
        wire.send(TOKEN + b"metadata: true\r\ncontent-length: 100000000\r\n\r\n")
        assert (await wire.answer()).status == 200
        wire.send(b"z" * 40_000)
        with suppress(ConnectionResetError):  # what the server has not read yet makes it a reset
            await wire.ended()


async def test_many_requests_on_one_connection_are_counted_one_by_one(served: Served):
    async with served.connection() as wire:
        for _ in range(100):
            wire.send(TOKEN + b"metadata: true\r\nx: " + b"y" * 1000 + b"\r\n\r\n")
            assert (await wire.answer()).status == 200


async def test_a_connection_that_says_nothing_is_closed(hurried: None, served: Served):
    async with served.connection() as wire:
        assert await wire.ended() == b""


async def test_half_a_head_is_not_waited_for(hurried: None, served: Served):
    async with served.connection() as wire:
        wire.send(TOKEN)
        assert await wire.ended() == b""


async def test_half_a_head_of_a_later_request_is_not_waited_for_either(hurried: None, served: Served):
    async with served.connection() as wire:
        wire.send(TOKEN + b"metadata: true\r\n\r\n")
        assert (await wire.answer()).status == 200
        wire.send(TOKEN)
        assert await wire.ended() == b""
