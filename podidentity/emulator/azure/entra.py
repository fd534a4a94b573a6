"""The login host (Microsoft Entra ID): discovery documents, signing keys, and the client-credentials grant.

Both token endpoints exist: v2.0 (`scope=<resource>/.default`, numbers in the answer) and v1 (`resource=<resource>`,
strings). A tenant segment `adfs` stands for an AD FS host as on Azure Stack: other discovery path, no tenant check.
Errors have the shape and the AADSTS codes of the real host.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.responses import Response

from podidentity.emulator.azure.service import Json, LoggedRequest, Service
from podidentity.emulator.azure.state import AzureState, ServicePrincipal
from podidentity.emulator.azure.tokens import InvalidTokenError, verify

ADFS = "adfs"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DISCOVERY = re.compile(r"/(?P<tenant>[^/]+)(/v2\.0)?/\.well-known/openid-configuration")
_KEYS = re.compile(r"/(?P<tenant>[^/]+)/discovery(/v2\.0)?/keys")
_TOKEN = re.compile(r"/(?P<tenant>[^/]+)/oauth2/(?P<v2>v2\.0/)?token")


@dataclass(frozen=True, kw_only=True)
class EntraSettings:
    """What tokens of applications are like."""

    token_seconds: float = 3599.0
    """Entra gives applications about an hour."""


class EntraError(Exception):
    """A refusal of the token endpoint. `code` is the number after AADSTS."""

    def __init__(self, status: int, error: str, code: int, message: str) -> None:
        super().__init__(f"AADSTS{code}: {message}")
        self.status = status
        self.error = error
        self.code = code


class Entra(Service):
    """The ASGI application of the login host."""

    def __init__(self, state: AzureState, settings: EntraSettings | None = None) -> None:
        super().__init__(rng=state.rng)
        self.state = state
        self.settings = settings or EntraSettings()

    def answer(self, request: LoggedRequest) -> Response:
        """Answer as the login host does; never raises."""
        try:
            return self._route(request)
        except EntraError as error:
            return self._error_response(error)

    def _route(self, request: LoggedRequest) -> Response:
        if request.path == "/common/discovery/instance":
            return self._instance_discovery(request)
        routes: list[tuple[str, re.Pattern[str], Callable[[LoggedRequest, re.Match[str]], Response]]] = [
            ("GET", _DISCOVERY, self._openid_configuration),
            ("GET", _KEYS, self._keys),
            ("POST", _TOKEN, self._token),
        ]
        for method, pattern, handler in routes:
            found = pattern.fullmatch(request.path)
            if found and request.method == method:
                return handler(request, found)
        return Response(status_code=404)

    def _instance_discovery(self, request: LoggedRequest) -> Response:
        """Vouch for this host alone: for a foreign authority the real one says `invalid_instance`."""
        asked = urlsplit(request.parameter("authorization_endpoint") or "")
        here = urlsplit(request.base_url)
        tenant = asked.path.strip("/").partition("/")[0]
        if asked.hostname != here.hostname or not tenant:
            raise EntraError(400, "invalid_instance", 50049, "Unknown or invalid instance.")
        endpoint = f"{request.base_url}/{tenant}/v2.0/.well-known/openid-configuration"
        alias = {"preferred_network": here.netloc, "preferred_cache": here.netloc, "aliases": [here.netloc]}
        return Json({"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": [alias]})

    def _openid_configuration(self, request: LoggedRequest, found: re.Match[str]) -> Response:
        tenant = self._tenant(found["tenant"])
        base = f"{request.base_url}/{tenant}"
        version = "" if tenant == ADFS else "/v2.0"
        return Json(
            {
                "token_endpoint": f"{base}/oauth2{version}/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                "jwks_uri": f"{base}/discovery{version}/keys",
                "response_types_supported": ["code", "id_token", "token"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "issuer": f"{base}{version}",
                "authorization_endpoint": f"{base}/oauth2{version}/authorize",
                "device_authorization_endpoint": f"{base}/oauth2{version}/devicecode",
            }
        )

    def _keys(self, _request: LoggedRequest, found: re.Match[str]) -> Response:
        self._tenant(found["tenant"])
        return Json(self.state.tokens.jwks())

    def _token(self, request: LoggedRequest, found: re.Match[str]) -> Response:
        tenant = self._tenant(found["tenant"])
        form = dict(parse_qsl(request.body.decode("latin-1"), keep_blank_values=True))
        if form.get("grant_type") != "client_credentials":
            grant = form.get("grant_type", "")
            raise EntraError(400, "unsupported_grant_type", 70003, f"The grant type '{grant}' is not supported.")
        application = self._application(form, tenant)
        self._authenticate(application, form, request)
        resource = self._resource(form)
        token = self.state.tokens.mint(
            application.principal,
            resource,
            tenant=self.state.tenant_id if tenant == ADFS else tenant,
            lifetime=self.settings.token_seconds,
        )
        lifetime = token.expires_on - token.not_before
        answer: dict[str, Any] = {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime}
        if not found["v2"]:
            answer |= {"expires_on": token.expires_on, "not_before": token.not_before, "resource": resource}
            answer = {name: str(value) for name, value in answer.items()}
        return Json(answer | {"access_token": token.value}, headers={"Cache-Control": "no-store, no-cache"})

    def _tenant(self, name: str) -> str:
        if name.lower() == ADFS:
            return ADFS
        if name.lower() not in {tenant.lower() for tenant in self.state.tenants()}:
            message = (
                f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into "
                "the correct cloud."
            )
            raise EntraError(400, "invalid_request", 90002, message)
        return name.lower()

    def _application(self, form: Mapping[str, str], tenant: str) -> ServicePrincipal:
        client_id = form.get("client_id", "")
        application = self.state.service_principal(client_id)
        if application is None or (tenant != ADFS and tenant not in application.tenants):
            message = f"Application with identifier '{client_id}' was not found in the directory '{tenant}'."
            raise EntraError(400, "unauthorized_client", 700016, message)
        return application

    def _authenticate(self, application: ServicePrincipal, form: Mapping[str, str], request: LoggedRequest) -> None:
        if form.get("client_assertion_type") == _ASSERTION_TYPE:
            self._check_assertion(application, form.get("client_assertion", ""), request)
        elif "client_secret" not in form:
            message = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
            raise EntraError(401, "invalid_client", 7000218, message)
        elif application.secret is None or form["client_secret"] != application.secret:
            message = (
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
                f"value, not the client secret ID, for a secret added to app '{application.client_id}'."
            )
            raise EntraError(401, "invalid_client", 7000215, message)

    def _check_assertion(self, application: ServicePrincipal, assertion: str, request: LoggedRequest) -> None:
        """Raise where no registered certificate's key signed the assertion for this endpoint and this application."""
        for pem in application.certificates:
            key = x509.load_pem_x509_certificate(pem).public_key()
            assert isinstance(key, rsa.RSAPublicKey), "Entra takes RSA certificates only"
            audience = f"{request.base_url}{request.path}"
            with suppress(InvalidTokenError):
                claims = verify(assertion, key, now=self.state.clock(), audience=audience)
                if claims["sub"] == application.client_id:
                    return
        message = (
            "The certificate with identifier used to sign the client assertion is not registered on application "
            f"'{application.client_id}', or the assertion is expired or for another audience."
        )
        raise EntraError(401, "invalid_client", 700027, message)

    def _resource(self, form: Mapping[str, str]) -> str:
        """Return the resource that was asked for: v1 and AD FS name it, v2 wraps it in a scope."""
        resource = form.get("resource") or form.get("scope", "").removesuffix("/.default")
        if not self.state.knows_resource(resource):
            message = (
                f"The resource principal named {resource} was not found in the tenant named {self.state.tenant_id}."
            )
            raise EntraError(400, "invalid_resource", 500011, message)
        return resource

    def _error_response(self, error: EntraError) -> Response:
        trace, correlation = self.state.new_id(), self.state.new_id()
        timestamp = datetime.fromtimestamp(self.state.clock(), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        document = {
            "error": error.error,
            "error_description": (f"{error} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"),
            "error_codes": [error.code],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={error.code}",
        }
        return Json(document, status_code=error.status)


def throttled(retry_after: int | None) -> Response:
    """429 of the login host, for `Entra.faults`; `retry_after` in seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    document = {"error": "temporarily_unavailable", "error_description": "AADSTS90055: Too many requests."}
    return Json(document, status_code=429, headers=headers)
