"""The instance metadata service of every VM (169.254.169.254:80): tokens of managed identities, and the rest.

Which VM is asking is decided by the injected `vm_of`, from the peer's address. Answers follow what is documented and
what real clients were seen to depend on (all values of a token answer are strings, `expires_in` counts down while the
token is cached); where Microsoft documents nothing (the answer to X-Forwarded-For, the body of a 405), the likeliest.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive

from podidentity.emulator.azure import imds_documents
from podidentity.emulator.azure.imds_paths import canonical
from podidentity.emulator.azure.imds_rules import (
    API_VERSIONS,
    ImdsError,
    check_headers,
    check_query,
    choose_principal,
    invalid_request,
)
from podidentity.emulator.azure.machines import Machine
from podidentity.emulator.azure.service import Json, LoggedRequest, Service
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.azure.throttle import Throttle
from podidentity.emulator.azure.tokens import AccessToken, Principal

IDENTITY_PREFIX = "/metadata/identity"
TOKEN_PATH = "/metadata/identity/oauth2/token"
INFO_PATH = "/metadata/identity/info"
PLATFORM_PATH = "/metadata/identity/getplatformmetadata"
CREDENTIAL_PATH = "/metadata/identity/issuecredential"
INSTANCE_PATH = "/metadata/instance"

_SERVER = "IMDS/150.870.65.1475"
"""MSAL.NET looks for `IMDS` in this header."""

_Handler: TypeAlias = Callable[[LoggedRequest, Machine], Response]


@dataclass(frozen=True, kw_only=True)
class ImdsSettings:
    """Limits and lifetimes."""

    per_second: int | None = 20
    """Requests for identities in a second, for each VM (Microsoft's documentation); None: no limit."""
    concurrent: int | None = 5
    """The same, at one time."""
    retry_after: int | None = None
    """`Retry-After` of a 429, seconds: Azure documents none."""
    token_seconds: float = 86400.0
    """Managed identities get tokens for a day."""
    cache_seconds: float = 3600.0
    """How long the same token is served for a VM, identity and resource, unless `bypass_cache=true`."""


class Imds(Service):
    """The ASGI application of IMDS for all VMs; `vm_of` maps a client's address to a machine's resource ID."""

    def __init__(
        self, state: AzureState, vm_of: Callable[[str], str | None], settings: ImdsSettings | None = None
    ) -> None:
        super().__init__(rng=state.rng)
        self.state = state
        self.settings = settings or ImdsSettings()
        self._vm_of = vm_of
        self._throttles: dict[str | None, Throttle] = {}
        self._tokens: dict[tuple[str | None, str, str], AccessToken] = {}
        self._handlers: dict[str, tuple[str, _Handler]] = {
            TOKEN_PATH: ("GET", self._token),
            INFO_PATH: ("GET", self._info),
            PLATFORM_PATH: ("GET", self._platform_metadata),
            CREDENTIAL_PATH: ("POST", self._credential),
            INSTANCE_PATH: ("GET", self._instance),
        }

    async def respond(self, request: LoggedRequest, receive: Receive) -> Response | None:
        """Keep the limits of the identity endpoints around everything else, the latency included."""
        if not canonical(request.raw_path).startswith(IDENTITY_PREFIX):
            return await super().respond(request, receive)
        throttle = self._throttle(request)
        if not throttle.enter(asyncio.get_running_loop().time()):
            return throttled(self.settings.retry_after)
        try:
            return await super().respond(request, receive)
        finally:
            throttle.leave()

    def answer(self, request: LoggedRequest) -> Response:
        """Answer as IMDS does; never raises."""
        try:
            response = self._route(request)
        except ImdsError as error:
            response = error.response()
        response.headers["Server"] = _SERVER
        return response

    def _route(self, request: LoggedRequest) -> Response:
        check_headers(request)
        path = canonical(request.raw_path)
        if path == "/metadata/versions" and request.method == "GET":
            return Json({"apiVersions": API_VERSIONS})
        verb, handler = self._handler(path)
        if request.method != verb:
            raise ImdsError(405, "Method not allowed")
        check_query(request)
        return handler(request, self._machine(request))

    def _handler(self, path: str) -> tuple[str, _Handler]:
        """Return the verb and the handler of a path. Raises ImdsError (404)."""
        if path in self._handlers:
            return self._handlers[path]
        if path.startswith(INSTANCE_PATH + "/"):
            return "GET", self._instance
        raise ImdsError(404, "Not found")

    def _token(self, request: LoggedRequest, machine: Machine) -> Response:
        resource = request.parameter("resource")
        if not resource:
            raise invalid_request("Required query variable 'resource' is missing")
        system = machine.system_principal if machine.effective.system else None
        principal = choose_principal(request, system=system, users=self.state.principals_of(machine))
        if not self.state.knows_resource(resource):
            message = f"AADSTS500011: The resource principal named {resource} was not found in the tenant named "
            raise ImdsError(400, "invalid_resource", error_description=message + self.state.tenant_id)
        token = self._cached_token(request, principal, resource)
        return Json(token_document(token, principal, now=self.state.clock()))

    def _cached_token(self, request: LoggedRequest, principal: Principal, resource: str) -> AccessToken:
        slot = (self._vm_of(request.client), principal.object_id, resource)
        cached = self._tokens.get(slot)
        fresh = cached and self.state.clock() < cached.not_before + self.settings.cache_seconds
        if cached is None or not fresh or request.parameter("bypass_cache") == "true":
            lifetime = self.settings.token_seconds
            cached = self.state.tokens.mint(principal, resource, tenant=self.state.tenant_id, lifetime=lifetime)
            self._tokens[slot] = cached
        return cached

    def _info(self, _request: LoggedRequest, _machine: Machine) -> Response:
        return Json({"tenantId": self.state.tenant_id})

    def _platform_metadata(self, _request: LoggedRequest, machine: Machine) -> Response:
        return Json(imds_documents.platform_metadata(machine, self.state.tenant_id))

    def _credential(self, _request: LoggedRequest, machine: Machine) -> Response:
        return Json(imds_documents.issued_credential(machine, self.state.tenant_id))

    def _instance(self, request: LoggedRequest, machine: Machine) -> Response:
        document = imds_documents.instance(machine, self._vm_of(request.client) or machine.resource_id)
        below = canonical(request.raw_path).removeprefix(INSTANCE_PATH).strip("/")
        try:
            part = imds_documents.descend(document, below.split("/") if below else [])
        except KeyError:
            raise ImdsError(404, "Not found") from None
        return PlainTextResponse(str(part)) if request.parameter("format") == "text" else Json(part)

    def _machine(self, request: LoggedRequest) -> Machine:
        vm = self._vm_of(request.client)
        machine = self.state.identity_owner(vm) if vm else None
        if machine is None:
            description = f"no VM of this emulator has the address {request.client}"
            raise ImdsError(404, "Not found", error_description=description)
        return machine

    def _throttle(self, request: LoggedRequest) -> Throttle:
        vm = self._vm_of(request.client)
        fresh = Throttle(per_second=self.settings.per_second, concurrent=self.settings.concurrent)
        return self._throttles.setdefault(vm, fresh)


def token_document(token: AccessToken, principal: Principal, *, now: float) -> dict[str, str]:
    """Return a token answer: every value a string, in the documented order, then what real answers add."""
    left = str(token.expires_on - int(now))
    return {
        "access_token": token.value,
        "refresh_token": "",
        "expires_in": left,
        "expires_on": str(token.expires_on),
        "not_before": str(token.not_before),
        "resource": token.resource,
        "token_type": "Bearer",
        "client_id": principal.client_id,
        "ext_expires_in": left,
    }


def throttled(retry_after: int | None) -> Response:
    """429 of IMDS; `retry_after` in seconds, None for no such header (as Azure's)."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    document = {"error": "invalid_request", "error_description": "Temporarily throttled, too many requests"}
    return Json(document, status_code=429, headers=headers)


def server_error(status: int = 500) -> Response:
    """5xx of IMDS, for `Imds.faults`."""
    document = {"error": "server_error", "error_description": "Failed to retrieve token from the token service"}
    return Json(document, status_code=status)


def garbage() -> Response:
    """200 with something that is no token, for `Imds.faults`."""
    return Response("<html>not what you asked for</html>", media_type="text/html")
