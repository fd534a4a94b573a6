"""A thin HTTP client for the contract suite: it shows what is on the wire and interprets nothing."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

PATIENCE = 20.0
"""Seconds until a watch that does not bring the awaited events fails the test; a busy machine needs some."""


@dataclass(frozen=True)
class Endpoint:
    """An API server under test; `forget_history` makes all older resource versions expire."""

    url: str
    token: str | None
    tls: ssl.SSLContext | bool
    forget_history: Callable[[], Awaitable[None]]
    is_real: bool


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Any

    @property
    def revision(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


class Client:
    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self._tls = endpoint.tls
        self._session = session

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        media: str = "application/json",
        accept: str = "",
        **query: Any,
    ) -> Answer:
        headers = ({"Accept": accept} if accept else {}) | ({"Content-Type": media} if body is not None else {})
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        params = {key: str(value) for key, value in query.items()}
        async with self._session.request(
            method, path, data=data, headers=headers, params=params, ssl=self._tls
        ) as answer:
            text = await answer.text()
            # Not by the media type: the real server sends its OpenAPI index as text/plain.
            return Answer(answer.status, json.loads(text) if text.startswith("{") else text, answer.headers)

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.request("GET", path, **query)

    async def post(self, path: str, body: Any, **query: Any) -> Answer:
        return await self.request("POST", path, body, **query)

    async def put(self, path: str, body: Any, **query: Any) -> Answer:
        return await self.request("PUT", path, body, **query)

    async def patch(self, path: str, body: Any, media: str = MERGE_PATCH, **query: Any) -> Answer:
        return await self.request("PATCH", path, body, media=media, **query)

    async def delete(self, path: str, body: Any = None, **query: Any) -> Answer:
        return await self.request("DELETE", path, body, **query)

    @asynccontextmanager
    async def watch(self, path: str, **query: Any) -> AsyncIterator["WatchStream"]:
        """Open a watch; the response's headers have arrived when the block begins."""
        params = {"watch": "1"} | {key: str(value) for key, value in query.items()}
        async with self._session.get(path, params=params, ssl=self._tls) as answer:
            yield WatchStream(answer)


class WatchStream:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Read that many events."""
        async with asyncio.timeout(PATIENCE):
            return [json.loads(await self._answer.content.readline()) for _ in range(count)]

    async def rest(self) -> list[dict[str, Any]]:
        """Read until the server ends the stream."""
        async with asyncio.timeout(PATIENCE):
            return [json.loads(line) async for line in self._answer.content]


def summary(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]
