import socket
from collections.abc import AsyncIterator

import pytest

from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.emulator.serving import RunningServer, serve
from podidentity.kube.transport import HttpTransport, connect
from tests.kube.cluster import cluster, kubeconfig


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No test depends on the cluster that the machine may know."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def state() -> ClusterState:
    return cluster()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def url(listener) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
async def server(state, listener) -> AsyncIterator[RunningServer]:
    async with serve(kubernetes_app(state), sockets=[listener]) as running:
        yield running


@pytest.fixture
async def transport(server, url, tmp_path) -> AsyncIterator[HttpTransport]:
    """The shipped transport, on real sockets."""
    transport = await connect(kubeconfig(tmp_path, url))
    yield transport
    await transport.close()
