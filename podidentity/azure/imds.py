"""The client of the real IMDS: one call to its token endpoint, built from parts, never a forwarded path."""

from typing import Annotated

import aiohttp
import msgspec

from podidentity.api.imds import API_VERSION, TOKEN_PATH, Token
from podidentity.azure.errors import ImdsUnreachable, TokenRefused

_TIMEOUT = aiohttp.ClientTimeout(total=30.0, sock_connect=2.0)
"""IMDS is on the same host: it connects at once, and answers in milliseconds unless Entra makes it wait."""


class _Answer(msgspec.Struct, frozen=True):
    """IMDS writes numbers as texts; a tolerant reader takes both."""

    access_token: Annotated[str, msgspec.Meta(min_length=1)]
    resource: str
    expires_on: int
    not_before: int = 0
    client_id: str = ""
    token_type: str = "Bearer"


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    error_description: str = ""


def imds_session() -> aiohttp.ClientSession:
    """Return a session for IMDS: no proxy, and no connection that an ill answer could leave behind for the next."""
    return aiohttp.ClientSession(trust_env=False, connector=aiohttp.TCPConnector(force_close=True))


class ImdsClient:
    """Tokens of the identities of this VM. HTTPS_PROXY never counts here."""

    def __init__(self, session: aiohttp.ClientSession, base: str = "http://169.254.169.254") -> None:
        self._session = session
        self._url = base + TOKEN_PATH

    async def token(self, resource: str, *, client_id: str = "", resource_id: str = "") -> Token:
        """Ask for a token of one identity (of the VM's own when none is named).

        Raises TokenRefused with IMDS's status and words, or ImdsUnreachable.
        """
        query = {"api-version": API_VERSION, "resource": resource}
        if client_id:
            query["client_id"] = client_id
        elif resource_id:
            query["msi_res_id"] = resource_id
        try:
            async with self._session.get(
                self._url, params=query, headers={"Metadata": "true"}, timeout=_TIMEOUT, allow_redirects=False
            ) as answer:
                body = await answer.read()
                status, retry_after = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Not the error's own words: aiohttp quotes what it could not read, which may be a piece of a token.
            raise ImdsUnreachable(f"IMDS does not answer: {type(error).__name__}") from None
        if status != 200:
            raise _refusal(status, body, retry_after)
        return _token(body)


def _token(body: bytes) -> Token:
    try:
        answer = msgspec.json.decode(body, type=_Answer, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImdsUnreachable(f"IMDS answered 200 with something that is no token: {error}") from None
    return Token(
        access_token=answer.access_token,
        expires_on=answer.expires_on,
        not_before=answer.not_before,
        resource=answer.resource,
        client_id=answer.client_id,
        token_type=answer.token_type,
    )


def _refusal(status: int, body: bytes, retry_after: str) -> TokenRefused:
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Refusal(error="unknown_error", error_description="IMDS gave no reason")
    return TokenRefused(
        status, said.error, said.error_description, float(retry_after) if retry_after.isdigit() else None
    )
