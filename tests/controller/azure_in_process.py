"""The shipped `Compute`, and under it the stand-in's ARM called in-process: no sockets, no threads, any clock."""

from collections.abc import Mapping
from typing import Any, Self

from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.core.rest._http_response_impl_async import AsyncHttpResponseImpl
from requests.structures import CaseInsensitiveDict
from starlette.types import Receive, Scope, Send
from yarl import URL

from podidentity.azure.clouds import Cloud
from podidentity.azure.compute import Compute
from podidentity.emulator.azure.arm import Arm
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.azure.tokens import Principal
from podidentity.emulator.inprocess import Cut, InProcess

ARM_URL = "https://in-process"
AUDIENCE = "https://management.azure.com/"
FAR_AHEAD = 4_102_444_800  # epoch seconds: azure-core asks the real clock whether a token still lives
CLOUD = Cloud(name="stand-in", resource_manager=ARM_URL, active_directory="https://unused", audience=AUDIENCE)


def compute_of(state: AzureState, arm: Arm) -> tuple[Compute, InProcess]:
    """Return machines as a controller sees them, and what must be closed after the test."""

    async def over_tls(scope: Scope, receive: Receive, send: Send) -> None:
        await arm({**scope, "scheme": "https"}, receive, send)

    service = InProcess(over_tls)
    return Compute(CLOUD, _Credential(state), _Transport(service)), service


class _Credential(AsyncTokenCredential):
    def __init__(self, state: AzureState) -> None:
        caller = Principal(client_id="controller", object_id="controller")
        token = state.tokens.mint(caller, AUDIENCE, tenant=state.tenant_id, lifetime=FAR_AHEAD)
        self._token = AccessToken(token.value, FAR_AHEAD)

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        return self._token

    async def close(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


class _Response(AsyncHttpResponseImpl):
    """An answer that is here already."""

    def __init__(self, request: HttpRequest, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(
            request=request,
            internal_response=None,
            block_size=4096,
            status_code=status,
            reason="",
            content_type=headers.get("content-type", ""),
            headers=CaseInsensitiveDict(headers),
            stream_download_generator=None,
        )
        self._content = body
        self._is_closed = self._is_stream_consumed = True

    async def read(self) -> bytes:
        assert self._content is not None
        return self._content

    async def close(self) -> None: ...

    async def load_body(self) -> None: ...


class _Transport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):
    def __init__(self, service: InProcess) -> None:
        self._service = service

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, request: HttpRequest, **_: Any) -> AsyncHttpResponse:
        url = URL(request.url)
        body = request.content or b""
        content = body.encode() if isinstance(body, str) else body
        try:
            async with self._service.call(
                request.method, url.path, query=dict(url.query), headers=dict(request.headers), body=content
            ) as answer:
                return _Response(request, answer.status, answer.headers, await answer.read())
        except TimeoutError as error:
            raise ServiceRequestError("no answer") from error
        except Cut as error:
            raise ServiceResponseError("cut") from error
