"""Azure Resource Manager: VMs and scale sets with their identities, their operations, and user-assigned identities.

`PATCH` answers 200 with the resource and an `Azure-AsyncOperation` header, for VMs as for scale sets: 202 makes
azure-mgmt-compute 39 raise. Every request needs a bearer token of the state's issuer for a management audience.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm_errors import ArmError
from podidentity.emulator.azure.identity_block import IdentityPatch, decode_patch
from podidentity.emulator.azure.machines import Machine, Operation
from podidentity.emulator.azure.service import Json, LoggedRequest, Service
from podidentity.emulator.azure.state import AzureState, UserIdentity
from podidentity.emulator.azure.tokens import ExpiredTokenError, InvalidTokenError

_RESOURCE = re.compile(
    r"(?P<id>/subscriptions/[^/]+/resourceGroups/(?P<group>[^/]+)/providers"
    r"/(?P<type>Microsoft\.Compute/virtualMachines|Microsoft\.Compute/virtualMachineScaleSets"
    r"|Microsoft\.ManagedIdentity/userAssignedIdentities)/(?P<name>[^/]+))/?",
    re.IGNORECASE,
)
_OPERATION = re.compile(
    r"/subscriptions/[^/]+/providers/Microsoft\.Compute/locations/(?P<location>[^/]+)/operations/(?P<id>[^/]+)",
    re.IGNORECASE,
)
_READS_AN_HOUR = 11999
_WRITES_AN_HOUR = 1199


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """What callers are told, and which tokens are taken."""

    retry_after: int = 10
    """Seconds between polls of an operation that ARM asks for; 0 lets a poller use its own interval."""
    audiences: frozenset[str] = frozenset({"https://management.azure.com", "https://management.core.windows.net"})
    """Accepted with and without a slash at the end. Other clouds have their own."""
    login_url: str = "https://login.microsoftonline.com"
    """Named in the challenge of a 401."""


class Arm(Service):
    """The ASGI application of ARM."""

    def __init__(self, state: AzureState, settings: ArmSettings | None = None) -> None:
        super().__init__(rng=state.rng)
        self.state = state
        self.settings = settings or ArmSettings()
        self._served = 0

    def answer(self, request: LoggedRequest) -> Response:
        """Answer as ARM does; never raises."""
        try:
            caller = self._authenticate(request)
            response = self._route(request, caller)
        except ArmError as error:
            response = error_response(error)
            if error.status == HTTPStatus.UNAUTHORIZED:
                response.headers["WWW-Authenticate"] = self._challenge(error)
        response.headers.update(self._accounting(request))
        return response

    def _route(self, request: LoggedRequest, caller: str) -> Response:
        if not request.parameter("api-version"):
            raise arm_errors.missing_api_version()
        if found := _RESOURCE.fullmatch(request.path):
            return self._resource(request, found, caller)
        if found := _OPERATION.fullmatch(request.path):
            return self._operation(found["id"], found["location"])
        raise ArmError(404, "InvalidResourceType", f"The resource type of '{request.path}' could not be found.")

    def _resource(self, request: LoggedRequest, found: re.Match[str], caller: str) -> Response:
        resource_id = found["id"]
        if not self.state.has_group(resource_id):
            raise arm_errors.group_not_found(found["group"])
        resource = self.state.machines.get(resource_id) or self.state.identity(resource_id)
        match request.method, resource:
            case _, None:
                raise arm_errors.resource_not_found(found["type"], found["name"], found["group"])
            case "GET", Machine():
                return Json(machine_document(self.state, resource))
            case "GET", UserIdentity():
                return Json(identity_document(resource))
            case "PATCH", Machine():
                return self._patch(request, resource, caller)
            case _:
                raise _method_not_allowed(request.method)

    def _patch(self, request: LoggedRequest, machine: Machine, caller: str) -> Response:
        body = _json_object(request.body)
        if "identity" not in body:
            return Json(machine_document(self.state, machine))
        patch = decode_patch(machine.resource_id, body["identity"])
        self._check_links(machine, patch, caller)
        operation = self.state.machines.update_identity(machine, patch)
        response = Json(machine_document(self.state, machine))
        version = request.parameter("api-version")
        subscription = machine.resource_id.split("/")[2]
        response.headers["Azure-AsyncOperation"] = (
            f"{request.base_url}/subscriptions/{subscription}/providers/Microsoft.Compute"
            f"/locations/{machine.location}/operations/{operation.id}?api-version={version}"
        )
        response.headers["Retry-After"] = str(self.settings.retry_after)
        return response

    def _check_links(self, machine: Machine, patch: IdentityPatch, caller: str) -> None:
        """Raise where an added identity may not be assigned (all named in one error) or does not exist."""
        found = {identity: self.state.identity(identity) for identity in patch.added}
        refused = [spelling for spelling, identity in found.items() if identity and not identity.assignable]
        if refused:
            raise arm_errors.linked_authorization_failed(caller, machine.resource_id, refused)
        for spelling, identity in found.items():
            if identity is None:
                raise arm_errors.unknown_identity(machine.resource_id, spelling)

    def _operation(self, operation_id: str, location: str) -> Response:
        operation = self.state.machines.operations.get(operation_id.lower())
        if operation is None or operation.machine.location.lower() != location.lower():
            raise arm_errors.operation_not_found(operation_id)
        response = Json(operation_document(operation))
        if operation.status == "InProgress":
            response.headers["Retry-After"] = str(self.settings.retry_after)
        return response

    def _authenticate(self, request: LoggedRequest) -> str:
        """Return the client ID of the caller. Raises ArmError (401)."""
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized(
                "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
            )
        try:
            claims = self.state.tokens.verify(token)
        except ExpiredTokenError as error:
            raise _expired(error.expired_at, self.state.clock()) from error
        except InvalidTokenError as error:
            raise _unauthorized("InvalidAuthenticationToken", "The access token is invalid.") from error
        audience = str(claims["aud"])
        if audience.rstrip("/") not in self.settings.audiences:
            raise _unauthorized(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{audience}'. It should exactly "
                f"match with one of the allowed audiences '{','.join(sorted(self.settings.audiences))}'.",
            )
        return str(claims["appid"])

    def _challenge(self, error: ArmError) -> str:
        return (
            f'Bearer authorization_uri="{self.settings.login_url}/{self.state.tenant_id}", '
            f'error="invalid_token", error_description="{error.message}"'
        )

    def _accounting(self, request: LoggedRequest) -> dict[str, str]:
        """Return the headers that every answer of ARM carries."""
        self._served += 1
        kind, budget = ("reads", _READS_AN_HOUR) if request.method == "GET" else ("writes", _WRITES_AN_HOUR)
        request_id = self.state.new_id()
        return {
            f"x-ms-ratelimit-remaining-subscription-{kind}": str(max(0, budget - self._served)),
            "x-ms-request-id": request_id,
            "x-ms-correlation-request-id": request.header("x-ms-correlation-request-id") or request_id,
        }


def error_response(error: ArmError) -> Response:
    """Return an error as a whole answer: what a handler raised, or what a test adds to `Arm.faults`."""
    response = Json({"error": error.body()}, status_code=error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def machine_document(state: AzureState, machine: Machine) -> dict[str, Any]:
    """Return a VM or scale set as GET answers it; a machine without identity has no `identity` at all."""
    document: dict[str, Any] = {
        "name": machine.name,
        "id": machine.resource_id,
        "type": machine.type,
        "location": machine.location,
        "properties": {
            "vmId" if machine.kind == "virtualMachines" else "uniqueId": machine.unique_id,
            "provisioningState": machine.provisioning_state,
        },
    }
    if machine.shown.type != "None":
        document["identity"] = _identity_block(state, machine)
    return document


def identity_document(identity: UserIdentity) -> dict[str, Any]:
    """Return a user-assigned identity as GET answers it."""
    return {
        "name": identity.name,
        "id": identity.resource_id,
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "location": identity.location,
        "tags": {},
        "properties": {
            "tenantId": identity.tenant_id,
            "principalId": identity.principal_id,
            "clientId": identity.client_id,
        },
    }


def operation_document(operation: Operation) -> dict[str, Any]:
    """Return the status of an operation as its URL answers it: 200 also for a failed one."""
    document: dict[str, Any] = {
        "startTime": _iso(operation.started),
        "status": operation.status,
        "name": operation.id,
    }
    if operation.ended is not None:
        document["endTime"] = _iso(operation.ended)
    if operation.error is not None:
        document["error"] = operation.error.body()
    return document


def _identity_block(state: AzureState, machine: Machine) -> dict[str, Any]:
    block: dict[str, Any] = {"type": machine.shown.type}
    if machine.shown.system:
        block["principalId"] = machine.system_principal.object_id
        block["tenantId"] = state.tenant_id
    if machine.shown.users:
        block["userAssignedIdentities"] = {
            spelling: _user_entry(state.identity(spelling)) for spelling in machine.shown.users.values()
        }
    return block


def _user_entry(identity: UserIdentity | None) -> dict[str, str]:
    # ARM goes on listing a deleted identity, without its IDs.
    return {"principalId": identity.principal_id, "clientId": identity.client_id} if identity else {}


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        decoded = json.loads(body)
    except ValueError as error:
        raise arm_errors.invalid_content(str(error)) from error
    if not isinstance(decoded, Mapping):
        raise arm_errors.invalid_content("The body must be an object")
    return decoded


def _unauthorized(code: str, message: str) -> ArmError:
    return ArmError(401, code, message)


def _expired(expired_at: float, now: float) -> ArmError:
    return _unauthorized(
        "ExpiredAuthenticationToken",
        f"The access token expiry UTC time '{_iso(expired_at)}' is earlier than current UTC time '{_iso(now)}'.",
    )


def _method_not_allowed(method: str) -> ArmError:
    return ArmError(405, "UnsupportedHttpVerb", f"The resource does not support the HTTP verb '{method}'.")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
