"""The controller's own token for ARM: a service principal through MSAL, or the node's managed identity through IMDS.

Both are azure-core's `AsyncTokenCredential`. azure-identity would do the same for 13 MiB more.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msal
from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from requests import RequestException

from podidentity.azure.config import AzureConfig
from podidentity.azure.errors import AzureError, CredentialError
from podidentity.azure.imds import ImdsClient
from podidentity.azure.trust import requests_session

_TIMEOUT = 30.0
"""Seconds for one call to Entra: it answers in one; behind a slow proxy in some."""
_SCOPE_SUFFIX = "/.default"


class Clock(Protocol):
    """Seconds since the epoch."""

    def __call__(self) -> float: ...  # noqa: D102


class ServicePrincipalCredential(AsyncTokenCredential):
    """Client ID and secret. MSAL blocks, so it lives in one thread of its own; it also caches the token."""

    def __init__(self, config: AzureConfig, *, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="msal")
        self._application: Any = None

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return a token; raises CredentialError with Entra's words."""
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._acquire, list(scopes))
        return AccessToken(answer["access_token"], int(self._clock()) + int(answer["expires_in"]))

    def _acquire(self, scopes: list[str]) -> dict[str, Any]:
        try:
            if self._application is None:  # its constructor calls Entra, too
                self._application = msal.ConfidentialClientApplication(
                    self._config.client_id,
                    client_credential=self._config.client_secret,
                    authority=authority(self._config),
                    instance_discovery=False,  # the operator has named the host; asking the public cloud leaks it
                    http_client=requests_session(timeout=_TIMEOUT),
                )
            answer: dict[str, Any] = self._application.acquire_token_for_client(scopes)
        except (RequestException, msal.exceptions.MsalError, ValueError) as error:
            raise CredentialError(
                f"Entra at {self._config.cloud.active_directory} gives no token: {error}"
            ) from error
        if "access_token" not in answer:
            raise CredentialError(
                f"Entra refused the service principal {self._config.client_id}: "
                f"{answer.get('error_description') or answer.get('error')}"
            )
        return answer

    async def close(self) -> None:
        """Let the thread go; a call under way ends by its timeout."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class ManagedIdentityCredential(AsyncTokenCredential):
    """The identity of the node that the controller runs on."""

    def __init__(self, imds: ImdsClient, client_id: str) -> None:
        self._imds = imds
        self._client_id = client_id

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return a token; raises CredentialError with the words of IMDS."""
        resource = scopes[0].removesuffix(_SCOPE_SUFFIX)
        try:
            token = await self._imds.token(resource, client_id=self._client_id)
        except AzureError as error:
            raise CredentialError(f"IMDS gives the controller no token: {error}") from error
        return AccessToken(token.access_token, token.expires_on)

    async def close(self) -> None:
        """Do nothing: the IMDS client belongs to whoever made it."""

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def authority(config: AzureConfig) -> str:
    """Return MSAL's authority; ADFS (Azure Stack) has no tenant in it."""
    host = config.cloud.active_directory
    return host if host.endswith("/adfs") else f"{host}/{config.tenant_id}"


def scope(audience: str) -> str:
    """Return the scope of an audience; the slash at its end stays, or the token's audience would differ."""
    return audience + _SCOPE_SUFFIX
