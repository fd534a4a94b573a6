"""What the server refuses with: `ApiError`, which carries the `Status` object that goes over the wire.

The texts, reasons and details are those of `k8s.io/apimachinery/pkg/api/errors`; the contract suite compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object (or any JSON object) as it stands in JSON. Stored ones are never changed in place."""

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
"""The `reason` that goes with an HTTP status where nothing more precise is known."""

UNKNOWN_RESOURCE = "the server could not find the requested resource"


class ApiError(Exception):
    """A request that fails, with everything a `Status` says about it."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: Object | None = None,
        continue_token: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = REASONS.get(code, "") if reason is None else reason
        self.details = details
        self.continue_token = continue_token

    @property
    def status(self) -> Object:
        """The `Status` object."""
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return status

    @property
    def retry_after(self) -> int | None:
        """The value of the `Retry-After` header in seconds, if there is one."""
        return (self.details or {}).get("retryAfterSeconds")


@dataclass(frozen=True, slots=True)
class GroupResource:
    """What an error names: `leases` in `coordination.k8s.io`."""

    group: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def details(self, name: str) -> Object:
        """`details` of a `Status` about the object `name`."""
        group = {"group": self.group} if self.group else {}
        return {"name": name, **group, "kind": self.plural}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field, as `field.Error` of apimachinery."""

    reason: str
    field: str
    message: str

    @classmethod
    def required(cls, field: str, detail: str = "") -> "FieldError":
        """A field that must be there."""
        return cls("FieldValueRequired", field, f"Required value: {detail}" if detail else "Required value")

    @classmethod
    def invalid(cls, field: str, value: str, detail: str) -> "FieldError":
        """A value that is not allowed; `value` is shown as it stands."""
        return cls("FieldValueInvalid", field, f"Invalid value: {value}: {detail}")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> "FieldError":
        """A field that must not be set here."""
        return cls("FieldValueForbidden", field, f"Forbidden: {detail}")

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def bad_request(message: str) -> ApiError:
    """Build a 400."""
    return ApiError(400, message)


def not_found(resource: GroupResource, name: str) -> ApiError:
    """Build a 404 for an object of a known resource."""
    return ApiError(404, f'{resource} "{name}" not found', details=resource.details(name))


def unknown_resource() -> ApiError:
    """Build a 404 for a path that is not served."""
    return ApiError(404, UNKNOWN_RESOURCE, details={})


def method_not_allowed() -> ApiError:
    """Build a 405."""
    return ApiError(405, "the server does not allow this method on the requested resource", details={})


def already_exists(resource: GroupResource, name: str) -> ApiError:
    """Build the 409 of a create."""
    return ApiError(
        409, f'{resource} "{name}" already exists', reason="AlreadyExists", details=resource.details(name)
    )


def conflict(resource: GroupResource, name: str, why: str) -> ApiError:
    """Build the 409 of an update or a delete."""
    return ApiError(
        409, f'Operation cannot be fulfilled on {resource} "{name}": {why}', details=resource.details(name)
    )


def forbidden(resource: GroupResource, name: str, why: str, causes: Sequence[Object] = ()) -> ApiError:
    """Build a 403."""
    details = resource.details(name) | ({"causes": list(causes)} if causes else {})
    return ApiError(403, f'{resource} "{name}" is forbidden: {why}', details=details)


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """Build a 422 with one cause for each field error."""
    texts = [str(error) for error in errors]
    what = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return ApiError(
        422,
        f'{kind}.{group} "{name}" is invalid: {what}' if group else f'{kind} "{name}" is invalid: {what}',
        details={
            **({"name": name} if name else {}),
            **({"group": group} if group else {}),
            "kind": kind,
            "causes": [{"reason": e.reason, "message": e.message, "field": e.field} for e in errors],
        },
    )


def expired(message: str, *, continue_token: str | None = None) -> ApiError:
    """Build a 410: what was asked for has been compacted away."""
    return ApiError(410, message, continue_token=continue_token)


def too_large_revision(asked: int, current: int) -> ApiError:
    """Build the 504 for a resource version that this server has not reached."""
    return ApiError(
        504,
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )


def unsupported_media(accepted: Sequence[str]) -> ApiError:
    """Build a 415."""
    return ApiError(
        415,
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted),
    )
