"""The HTTP side of the node agent: a FastAPI application whose one route takes every request.

Routes with declared parameters would answer probes with 422 and slashes with redirects; a pod must get IMDS's answers
whatever it sends. So the path is classified from its raw bytes, and everything else is ours, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import structlog
from fastapi import FastAPI
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from podidentity.api.imds import error_body
from podidentity.api.meta import Key
from podidentity.node.callers import Address, Caller, parse_address
from podidentity.node.issuing import Issued, Issuer
from podidentity.node.paths import Endpoint, endpoint_of
from podidentity.node.refusal import Refusal, invalid
from podidentity.node.request import TokenRequest, check_headers, parse_token_request
from podidentity.telemetry.metrics import NodeMetrics

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_JSON = [(b"content-type", b"application/json; charset=utf-8"), (b"cache-control", b"no-store")]
_METHODS = frozenset({"GET", "POST"})
"""IMDS takes GET; one old SDK may POST with everything in the URL, and upstream answered it."""
_EVERYDAY = frozenset({400, 499})
"""Refusals that say nothing about the cluster: probes of SDKs, and clients that leave (nginx's number for it)."""


class Everything(BaseRoute):
    """A route for all paths and methods, in whatever spelling."""

    def __init__(self, handler: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._handler = handler

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every HTTP request."""
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        await self._handler(scope, receive, send)


class Server:
    """Answers pods (by their address) and programs of the host (by loopback)."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        metadata_header_required: bool,
        metrics: NodeMetrics,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._header_required = metadata_header_required
        self._metrics = metrics
        self._wall_clock = wall_clock
        self.app = FastAPI(openapi_url=None, redirect_slashes=False)
        self.app.router.routes.append(Everything(self._handle))

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        endpoint = endpoint_of(scope.get("raw_path") or b"")
        status, headers, body = await self._answer(endpoint, scope, receive)
        self._metrics.request_seconds.labels(endpoint.value, str(status)).observe(time.perf_counter() - started)
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*_JSON, *headers, length]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, endpoint: Endpoint, scope: Scope, receive: Receive
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Return status, headers and body; whatever happens is an answer."""
        peer = scope["client"][0] if scope.get("client") else ""
        try:
            body = await self._grant(endpoint, scope, receive, peer)
        except Refusal as refusal:
            log = _log.debug if refusal.status in _EVERYDAY else _log.info
            log("token_refused", source=peer, status=refusal.status, reason=refusal.description)
            return refusal.status, refusal.headers, msgspec.json.encode(refusal.body)
        except Exception:  # noqa: BLE001 - a pod gets an answer whatever happens, and nobody a stack trace
            _log.exception("request_failed", endpoint=endpoint.value, source=peer)
            return 500, [], msgspec.json.encode(error_body("server_error", "The agent failed; its log says why"))
        return 200, [], msgspec.json.encode(body)

    async def _grant(self, endpoint: Endpoint, scope: Scope, receive: Receive, peer: str) -> dict[str, Any]:
        """Return the body of a success. Raises Refusal."""
        if endpoint is Endpoint.IDENTITY:
            raise _not_served()  # before the header check: MSAL.NET reads a 400 here as "IMDSv2 lives here"
        address = parse_address(peer)
        if endpoint is Endpoint.HOST_TOKEN:
            return await self._host_token(scope, receive, address)
        check_headers(scope["headers"], required=self._header_required)
        match endpoint:
            case Endpoint.TOKEN:
                return await self._pod_token(scope, receive, address)
            case Endpoint.ODD:
                raise invalid("The path is not one that this service knows")
        raise _not_served()

    async def _pod_token(self, scope: Scope, receive: Receive, address: Address) -> dict[str, Any]:
        _check_method(scope)
        request = parse_token_request(scope["query_string"])
        if address.is_loopback:
            raise invalid("Programs of the host ask at /host/token/, in the name of a pod")
        issued = await self._issued(address, request, receive)
        return self._token_body(issued, request, source=str(address))

    async def _host_token(self, scope: Scope, receive: Receive, address: Address) -> dict[str, Any]:
        if not address.is_loopback:
            raise Refusal(403, "forbidden", "This endpoint serves programs of the host itself")
        check_headers(scope["headers"], required=False)
        _check_method(scope)
        headers = {name: value.decode("latin-1").strip() for name, value in scope["headers"]}
        pod = Key(headers.get(b"podns", ""), headers.get(b"podname", ""))
        if not all(pod):
            raise invalid("The headers podns and podname must name a pod of this node")
        request = parse_token_request(scope["query_string"])
        issued = await self._issued(pod, request, receive)
        body = self._token_body(issued, request, source="host")
        return {"token": body, "clientid": issued.assigned.identity.client_id or issued.token.client_id}

    async def _issued(self, caller: Caller, request: TokenRequest, receive: Receive) -> Issued:
        """Issue from the cache, or take the time that it needs as long as the client stays."""
        if issued := self._issuer.at_once(caller, request):
            return issued
        return await _while_connected(self._issuer.issue(caller, request), receive)

    def _token_body(self, issued: Issued, request: TokenRequest, *, source: str) -> dict[str, str]:
        """Return the JSON of the token, and write the audit line."""
        _log.info(
            "token_issued",
            pod=issued.pod.metadata.name,
            namespace=issued.pod.metadata.namespace,
            service_account=issued.pod.spec.service_account_name,
            identity=str(issued.assigned.identity.key),
            client_id=issued.assigned.identity.client_id,
            audience=request.resource,
            source=source,
        )
        return issued.token.answer(now=self._wall_clock(), resource=request.resource)


def _not_served() -> Refusal:
    return Refusal(404, "not_found", "This endpoint is not served to pods")


def _check_method(scope: Scope) -> None:
    if scope["method"] not in _METHODS:
        raise Refusal(405, "method_not_allowed", "Ask with GET")


async def _while_connected(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Do the work, and drop it when the client leaves first."""
    working = asyncio.create_task(work, name="answer")
    gone = asyncio.create_task(_client_gone(receive), name="client")
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(499, "client_closed_request", "The client has left")
        return working.result()
    finally:
        gone.cancel()
        working.cancel()


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
