import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from podidentity.emulator.kubernetes import ClusterSettings, ClusterState, kubernetes_app
from podidentity.emulator.serving import serve
from tests.contract.client import Client, Endpoint

QUICK = ClusterSettings(bookmark_interval=0.05, freshness_wait=0.05, pod_termination=0.1)


@pytest.fixture
def state() -> ClusterState:
    return ClusterState(settings=QUICK)


@pytest.fixture
async def session(state: ClusterState) -> AsyncIterator[aiohttp.ClientSession]:
    """A client session to the state's cluster, over a real socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with serve(kubernetes_app(state), sockets=[listener]), aiohttp.ClientSession(url) as client:
        yield client


@pytest.fixture
def api(session: aiohttp.ClientSession) -> Client:
    return Client(Endpoint("", None, False, _nothing, is_real=False), session)


async def _nothing() -> None:
    pass
