import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest

from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.emulator.serving import serve
from tests.contract.client import Client, Endpoint
from tests.contract.real_apiserver import HOW_TO_GET, RealApiServer, kube_assets

TLS_GOODBYE = 0.05  # seconds

WIDGET_SCHEMA = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
                "size": {"type": "integer", "minimum": 0, "maximum": 10, "default": 3},
                "mode": {"type": "string", "enum": ["a", "b"]},
                "label": {"type": "string", "nullable": True},
                "flag": {"type": "boolean"},
                "list": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
                "port": {"x-kubernetes-int-or-string": True},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"n": {"type": "integer"}},
                },
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def crd(plural: str, kind: str, *, subresources: dict[str, Any] | None = None) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": WIDGET_SCHEMA},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
        "subresources": subresources or {},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.contract.test"},
        "spec": {
            "group": "contract.test",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [version],
        },
    }


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApiServer]:
    assets = kube_assets()
    if assets is None:
        pytest.skip(HOW_TO_GET)
    server = RealApiServer(tmp_path_factory.mktemp("kube"), assets=assets)
    asyncio.run(server.start())
    yield server
    server.stop()


@pytest.fixture
def emulator_state() -> ClusterState:
    return ClusterState()


@pytest.fixture
async def emulator(emulator_state: ClusterState) -> AsyncIterator[Endpoint]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def forget_history() -> None:
        emulator_state.compact()

    async with serve(kubernetes_app(emulator_state), sockets=[listener]):
        yield Endpoint(url, None, False, forget_history, is_real=False)


@pytest.fixture
def real(real_server: RealApiServer) -> Endpoint:
    return Endpoint(real_server.url, real_server.token, real_server.tls, real_server.forget_history, is_real=True)


@pytest.fixture(params=["emulator", pytest.param("real", marks=pytest.mark.kube)])
def server(request: pytest.FixtureRequest) -> Endpoint:
    """The server under test: every sentence of this suite holds for both."""
    endpoint: Endpoint = request.getfixturevalue(request.param)
    return endpoint


@pytest.fixture
async def api(server: Endpoint) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        yield Client(server, session)
    if server.is_real:
        # aiohttp leaves the last step of closing a TLS connection to the loop.
        await asyncio.sleep(TLS_GOODBYE)


@pytest.fixture
async def namespace(api: Client) -> str:
    """A namespace of the test's own."""
    name = f"t-{secrets.token_hex(4)}"
    assert (await api.post("/api/v1/namespaces", {"metadata": {"name": name}})).status == 201
    return name


@pytest.fixture
def path(namespace: str) -> Callable[..., str]:
    """`path("pods", "a", "status")` within the test's namespace."""

    def build(plural: str, *more: str) -> str:
        prefix = _PREFIXES.get(plural, "/api/v1")
        return "/".join((prefix, "namespaces", namespace, plural, *more))

    return build


_PREFIXES = {
    "leases": "/apis/coordination.k8s.io/v1",
    "widgets": "/apis/contract.test/v1",
    "gauges": "/apis/contract.test/v1",
}


@pytest.fixture
async def widgets(api: Client, path: Callable[..., str]) -> str:
    """The collection of a custom kind without a status subresource, as this project's kinds are."""
    return await serve_kind(api, crd("widgets", "Widget"), path("widgets"))


@pytest.fixture
async def gauges(api: Client, path: Callable[..., str]) -> str:
    """The collection of a custom kind with a status subresource."""
    return await serve_kind(api, crd("gauges", "Gauge", subresources={"status": {}}), path("gauges"))


async def serve_kind(api: Client, definition: dict[str, Any], collection: str) -> str:
    answer = await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    assert answer.status in (201, 409)
    await until_status(api, collection, 200)
    return collection


async def until_status(api: Client, path: str, status: int) -> None:
    """Ask until the answer is that: a real server takes up and drops custom kinds within a second or two."""
    async with asyncio.timeout(10):
        while (await api.get(path)).status != status:
            pass


def widget(name: str, /, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "contract.test/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"name": "abc", **spec},
    }
