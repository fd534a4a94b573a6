"""The rules of IMDS for a request, and for which identity a token request means: pure."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from podidentity.emulator.azure.service import Json, LoggedRequest
from podidentity.emulator.azure.tokens import Principal

API_VERSIONS = [
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
]

CLIENT_ID = "client_id"
OBJECT_ID = "object_id"
RESOURCE_IDS = ("msi_res_id", "mi_res_id")
"""Microsoft's API description has the first name, its documentation the second; clients send either."""


class ImdsError(Exception):
    """A refusal: `{"error": ...}` and what else belongs into the document."""

    def __init__(self, status: int, error: str, **details: Any) -> None:
        super().__init__(error)
        self.status = status
        self.document = {"error": error, **details}

    def response(self) -> Response:
        """Return the refusal as an answer."""
        return Json(self.document, status_code=self.status)


def invalid_request(description: str) -> ImdsError:
    """400 in the shape of the identity endpoints."""
    return ImdsError(400, "invalid_request", error_description=description)


def identity_not_found() -> ImdsError:
    """400: the VM has no identity, or not the one that was asked for."""
    return invalid_request("Identity not found")


def check_headers(request: LoggedRequest) -> None:
    """Raise ImdsError where a request was forwarded, or lacks `Metadata: true`."""
    if request.header("x-forwarded-for") is not None:
        raise invalid_request("Requests with the header X-Forwarded-For are refused")
    if (request.header("metadata") or "").lower() != "true":
        raise invalid_request("Required metadata header not specified")


def check_query(request: LoggedRequest) -> None:
    """Raise ImdsError for a parameter given twice, or a missing or unknown `api-version`."""
    names = [name for name, _ in request.query]
    if len(set(names)) != len(names):
        raise invalid_request("Requests with duplicate query parameter names are rejected")
    version = request.parameter("api-version")
    if version not in API_VERSIONS:
        problem = "was not specified in the request" if not version else "is invalid or not supported"
        message = f"Bad request. api-version {problem}. For more information refer to aka.ms/azureimds"
        raise ImdsError(400, message, **{"newest-versions": API_VERSIONS[:-4:-1]})


def choose_principal(request: LoggedRequest, *, system: Principal | None, users: Sequence[Principal]) -> Principal:
    """Return the identity that a token request means.

    With a selector, the identity that it names; without, the system-assigned one, else the only user-assigned one.
    Raises ImdsError (400) where it names none or several, or where the choice is not clear.
    """
    selectors = [(name, value) for name, value in request.query if name in (CLIENT_ID, OBJECT_ID, *RESOURCE_IDS)]
    if len(selectors) > 1:
        raise invalid_request("Only one of client_id, object_id and msi_res_id may be specified")
    if selectors:
        (selector,) = selectors
        everyone = [*users, system] if system else users
        named = [principal for principal in everyone if _matches(principal, *selector)]
    else:
        named = [system] if system else list(users)
    if not named:
        raise identity_not_found()
    if len(named) > 1:
        raise invalid_request(
            "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in "
            "the token request"
        )
    return named[0]


def _matches(principal: Principal, name: str, value: str) -> bool:
    known = {CLIENT_ID: principal.client_id, OBJECT_ID: principal.object_id}
    return known.get(name, principal.resource_id or "").lower() == value.lower()
