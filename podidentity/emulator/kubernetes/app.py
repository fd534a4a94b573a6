"""The HTTP side: authentication, faults, and who answers what. Everything is async and nothing blocks."""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from podidentity.emulator.kubernetes import discovery
from podidentity.emulator.kubernetes.bodies import error_response, json_response
from podidentity.emulator.kubernetes.errors import ApiError, unknown_resource
from podidentity.emulator.kubernetes.exchange import Exchange
from podidentity.emulator.kubernetes.faults import Call
from podidentity.emulator.kubernetes.paths import target_of
from podidentity.emulator.kubernetes.state import ClusterState

HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})


def kubernetes_app(state: ClusterState) -> ASGIApp:
    """Serve a cluster."""
    return Starlette(routes=[Mount("/", app=_Api(state))])


class _Api:
    """The application below Starlette, which answers lifespan events."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = Call(request.method, request.url.path, request.query_params)
        plan = self._state.faults.plan(call)
        await asyncio.sleep(plan.delay)
        answer: ASGIApp
        try:
            if plan.error is not None:
                raise plan.error
            answer = await self._answer(request, call)
        except ApiError as error:
            answer = error_response(error) if plan.body is None else Response(plan.body, error.code)
        await (_unfinished if plan.lose_answer else answer)(scope, receive, send)

    async def _answer(self, request: Request, call: Call) -> ASGIApp:
        self._authenticate(request)
        if call.path in HEALTH_PATHS:
            return PlainTextResponse("ok")
        target = target_of(self._state.registry, call.path)
        if target is not None:
            return await Exchange(self._state, request, call, target).answer()
        found = discovery.document(self._state.registry, call.path)
        if found is not None:
            return json_response(found)
        if discovery.serves_version_of(self._state.registry, call.path):
            raise unknown_resource()
        return PlainTextResponse("404 page not found\n", 404)

    def _authenticate(self, request: Request) -> None:
        known = self._state.tokens
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if known is not None and (scheme.lower() != "bearer" or token not in known):
            raise ApiError(401, "Unauthorized")


async def _unfinished(scope: Scope, receive: Receive, send: Send) -> None:
    """Begin an answer and stop in the middle: the server then closes the connection."""
    del scope, receive
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"kind":', "more_body": True})
