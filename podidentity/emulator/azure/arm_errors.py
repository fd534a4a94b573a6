"""The errors of Azure Resource Manager, in the words that the real one uses where they are known.

Wordings come from threads of aad-pod-identity: `LinkedAuthorizationFailed` #339 and #613, `FailedIdentityOperation`
#676, the limit of 150 identities #813, a missing `type` #313; the marked-for-deletion refusal from onefuzz #511.
"""

from collections.abc import Iterable
from typing import Any


class ArmError(Exception):
    """An answer of ARM that is not a success: as a whole answer, or as the result of an operation.

    `status` is the HTTP status of the answer, `retry_after` the seconds of a `Retry-After` header.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the inner part of the envelope `{"error": ...}`."""
        return {"code": self.code, "message": self.message}


def missing_api_version() -> ArmError:
    """400: a request without the query parameter `api-version`."""
    message = "The api-version query parameter (?api-version=) is required for all requests."
    return ArmError(400, "MissingApiVersionParameter", message)


def invalid_content(problem: str) -> ArmError:
    """400: the body is no JSON or lacks a property."""
    message = f"The request content was invalid and could not be deserialized: '{problem}'."
    return ArmError(400, "InvalidRequestContent", message)


def group_not_found(group: str) -> ArmError:
    """404: the resource group does not exist."""
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def resource_not_found(type_: str, name: str, group: str) -> ArmError:
    """404: the group exists, the resource does not. `type_` is like `Microsoft.Compute/virtualMachines`."""
    message = (
        f"The Resource '{type_}/{name}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return ArmError(404, "ResourceNotFound", message)


def operation_not_found(operation_id: str) -> ArmError:
    """404: no such operation, or one of another location."""
    return ArmError(404, "NotFound", f"The entity was not found: operation '{operation_id}'.")


def linked_authorization_failed(client_id: str, target: str, identities: Iterable[str]) -> ArmError:
    """403: the caller may write the target, but may not assign these identities (a list of IDs in one quote)."""
    action = f"{_type_of(target)}/write"
    message = (
        f"The client '{client_id}' with object id '{client_id}' has permission to perform action '{action}' "
        f"on scope '{target}'; however, it does not have permission to perform action "
        "'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' on the linked scope(s) "
        f"'{','.join(identities)}' or the linked scope(s) are invalid."
    )
    return ArmError(403, "LinkedAuthorizationFailed", message)


def failed_identity_operation(target: str, reason: str) -> ArmError:
    """400: the identity provider behind compute refused; `reason` is its sentence."""
    return _failed_identity_operation(400, target, "BadRequest", "BadRequest", reason)


def unknown_identity(target: str, identity: str) -> ArmError:
    """400: an identity of the request does not exist. ARM names one of them."""
    return failed_identity_operation(target, f"Resource '{identity}' was not found.")


def too_many_identities(target: str, count: int, limit: int) -> ArmError:
    """400: more identities in one request than Azure takes."""
    reason = f"User Assigned Identities Number '{count}' Assign exceed limit '{limit}' in one request"
    return failed_identity_operation(target, reason)


def throttled_identity_operation(target: str, seconds: int = 20) -> ArmError:
    """429 of the identity provider: seen in the result of an operation, where no `Retry-After` header can be."""
    reason = (
        f"Request is temporarily throttled because resource {target} has issued too many requests. "
        f"Retry after {seconds} seconds."
    )
    return _failed_identity_operation(429, target, "429", "429", reason)


def operation_in_progress() -> ArmError:
    """409: another write of this resource is under way."""
    message = (
        "The request failed due to conflict with a concurrent request. To resolve it, please refer to "
        "https://aka.ms/activitylog to get more details on the conflicting requests."
    )
    return ArmError(409, "OperationNotAllowed", message)


def marked_for_deletion(target: str) -> ArmError:
    """409: the target is being deleted."""
    name = target.rsplit("/", 1)[-1]
    message = f"Operation 'Update' is not allowed on '{name}' since it is marked for deletion."
    return ArmError(409, "OperationNotAllowed", message)


def operation_preempted() -> ArmError:
    """Result of an operation that a later one overtook."""
    return ArmError(409, "OperationPreempted", "Operation execution has been preempted by a more recent operation.")


def throttled(retry_after: int) -> ArmError:
    """429 on the call itself, with `Retry-After` in seconds."""
    message = "The server rejected the request because too many requests have been received for this subscription."
    return ArmError(429, "OperationNotAllowed", message, retry_after=retry_after)


def server_error(status: int = 500) -> ArmError:
    """5xx of ARM itself."""
    return ArmError(status, "InternalServerError", "An error occurred while processing this request.")


def _failed_identity_operation(status: int, target: str, provider: str, code: str, reason: str) -> ArmError:
    response = f'{{"error":{{"code":"{code}","message":"{reason}"}}}}'
    message = (
        f"Identity operation for resource '{target}' failed with error 'Failed to perform resource identity "
        f"operation. Status: '{provider}'. Response: '{response}'.'."
    )
    return ArmError(status, "FailedIdentityOperation", message)


def _type_of(resource_id: str) -> str:
    _, _, tail = resource_id.partition("/providers/")
    return "/".join(tail.split("/")[:2])
