"""HTTP to the API server: who we are, where it is, and one place where transport errors become ours.

The seam of the Kubernetes ring: `Transport` is what the client and the informer know. `HttpTransport` is the shipped
one; the deterministic simulation calls the stand-in in-process behind the same two methods.
"""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from podidentity.api.errors import ConfigurationError
from podidentity.kube._kubernetes_asyncio import Configuration, RestClient, config, remove_temporary_files
from podidentity.kube.errors import Unreachable, api_error

JSON = "application/json"
_CONNECT_SECONDS = 5.0
"""To open a connection: a healthy API server takes milliseconds, and the informer tries again anyway."""
REQUEST_SECONDS = 30.0
"""For a whole answer, or for a stream's head: a page of 500 pods takes well under a second; the API server gives up
after 60."""
_LOGIN_SECONDS = 60.0
"""For reading credentials again, which may run a login program."""
_ROTATION_SECONDS = 60.0
"""The pod's own token is read again after this; kubelet rotates it when 80 % of its hour is over."""
_CONNECTIONS = 64
"""At once, watches included. The server's own fairness decides beyond that; we do not throttle ourselves."""


class Transport(Protocol):
    """One API server, authenticated. Both methods raise `KubernetesError` and nothing else."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content: str,
    ) -> bytes:
        """Send one request and return the body of its success."""
        ...

    def stream(self, path: str, *, query: Mapping[str, str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a GET and yield its body in pieces as they come, without a limit of time."""
        ...


@dataclass(frozen=True, slots=True)
class _Credentials:
    """The library's configuration, and how to read it again: after `period` seconds, and when the server says 401.

    A kubeconfig waits for the 401, because reading it again may mean to run somebody's login program.
    """

    configuration: Any
    origin: str
    load: Callable[[], Awaitable[None]]
    period: float

    async def read(self) -> None:
        """Run the library's loader; whatever it raises on a bad file becomes one line."""
        try:
            async with asyncio.timeout(_LOGIN_SECONDS):
                await self.load()
        except Exception as error:
            remove_temporary_files()
            raise ConfigurationError(f"{self.origin} cannot be used: {_words(error)}") from error


class HttpTransport:
    """The shipped transport: aiohttp, with configuration and authentication by kubernetes-asyncio."""

    def __init__(self, credentials: _Credentials) -> None:
        self._credentials = credentials
        self._configuration = credentials.configuration
        self._read_at = asyncio.get_running_loop().time()
        self._reading = asyncio.Lock()
        library = RestClient(self._configuration, maxsize=_CONNECTIONS)
        # Its connector carries the CA, client certificate and TLS options. Its session would also obey HTTPS_PROXY,
        # which is meant for the internet, never for the API server.
        self._session = aiohttp.ClientSession(connector=library.pool_manager.connector, trust_env=False)
        library.pool_manager.detach()
        # No API server redirects; whatever does is somebody else.
        self._options: dict[str, Any] = {"allow_redirects": False}
        if self._configuration.proxy:  # `proxy-url` of the kubeconfig is for the API server
            self._options["proxy"] = self._configuration.proxy
        if self._configuration.tls_server_name:
            self._options["server_hostname"] = self._configuration.tls_server_name

    @property
    def server(self) -> str:
        """Where the API server is, for messages."""
        return str(self._configuration.host)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content: str = JSON,
    ) -> bytes:
        """Send one request and return the body of its success."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=_CONNECT_SECONDS)
        headers = {"Accept": JSON, "Content-Type": content}
        async with self._open(method, path, query, headers=headers, data=body, timeout=timeout) as answer:
            with self._our_errors():
                return await answer.read()

    @asynccontextmanager
    async def stream(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a GET and yield its body in pieces as they come, without a limit of time."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        async with self._open("GET", path, query, headers={"Accept": JSON}, timeout=timeout) as answer:
            yield self._pieces(answer)

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, query: Mapping[str, str] | None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send, with credentials read again once when the server does not know us any more."""
        token = await self._token()
        answer = await self._send(method, path, query, token, **options)
        if answer.status == 401:
            answer.release()
            token = await self._token(refused=token)
            answer = await self._send(method, path, query, token, **options)
        async with answer:
            if answer.status >= 400:
                with self._our_errors():
                    said = await answer.read()
                raise api_error(answer.status, said, answer.headers.get("Retry-After"))
            yield answer

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        token: str,
        *,
        headers: Mapping[str, str],
        **options: Any,
    ) -> aiohttp.ClientResponse:
        authorization = {"Authorization": token} if token else {}
        with self._our_errors():
            # A stream has no limit of time, but its head has: a dead connection from the pool never answers.
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._session.request(
                    method,
                    self.server + path,
                    params=query,
                    headers={**headers, **authorization},
                    **self._options,
                    **options,
                )

    async def _token(self, refused: str | None = None) -> str:
        """Return what to authenticate with, read again when it is old or when the server has `refused` it."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if now - self._read_at > self._credentials.period or refused == self._held_token:
                self._read_at = now
                try:
                    await self._credentials.read()
                except ConfigurationError as error:
                    raise Unreachable(str(error)) from error
                remove_temporary_files()
            return self._held_token

    @property
    def _held_token(self) -> str:
        # Files that hold a token often end in a newline, which no header may have.
        return " ".join(self._configuration.api_key.get("BearerToken", "").split())

    async def _pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with self._our_errors():
            async for piece in answer.content.iter_any():
                yield piece

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"the API server {self.server} does not answer: {_words(error)}") from error


async def connect(kubeconfig: str) -> HttpTransport:
    """Build the transport from a kubeconfig, from `KUBECONFIG`, or from the pod's own account, in this order."""
    configuration = Configuration()
    # Go's clients do not ask for the extensions that Python's strict mode wants, and many clusters' CAs lack them.
    configuration.disable_strict_ssl_verification = True
    path = kubeconfig or os.environ.get("KUBECONFIG", "")
    credentials = _from_file(path, configuration) if path else _in_cluster(configuration)
    await credentials.read()
    try:
        return HttpTransport(credentials)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{credentials.origin} cannot be used: {_words(error)}") from error
    finally:
        remove_temporary_files()


def _from_file(path: str, configuration: Any) -> _Credentials:
    if not any(Path(part).expanduser().is_file() for part in path.split(os.pathsep) if part):
        raise ConfigurationError(f"the kubeconfig {path} does not exist (flag --kubeconfig, environment KUBECONFIG)")

    async def load() -> None:
        await config.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)

    return _Credentials(configuration, f"the kubeconfig {path}", load, period=math.inf)


def _in_cluster(configuration: Any) -> _Credentials:
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise ConfigurationError(
            "no API server to talk to: give --kubeconfig or KUBECONFIG, or run in a pod with a service account"
        )

    async def load() -> None:
        config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)

    return _Credentials(configuration, "the pod's service account", load, period=_ROTATION_SECONDS)


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
