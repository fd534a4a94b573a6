"""The controller as `podidentity controller` runs it: sockets, TLS, a kubeconfig, Entra, and its own HTTP servers."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
import yaml

from podidentity.api.errors import ConfigurationError
from podidentity.azure.clouds import Cloud
from podidentity.azure.config import AzureConfig
from podidentity.controller.app import run
from podidentity.controller.settings import ControllerSettings
from podidentity.emulator.azure.arm import Arm
from podidentity.emulator.azure.entra import Entra
from podidentity.emulator.azure.machines import OperationSettings
from podidentity.emulator.kubernetes import kubernetes_app
from podidentity.emulator.serving import serve
from podidentity.emulator.tls import CertificateAuthority
from podidentity.kube.resources import PODS
from tests.controller.world import a_world

SECRET = "s3cr3t-of-the-test"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def authority(tmp_path, monkeypatch):
    authority = CertificateAuthority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
async def world(signing_key):
    async with a_world(signing_key, clock=time.time) as world:  # MSAL and the SDK know only the real one
        world.azure.machines.settings = OperationSettings(scale_set_seconds=(0.05, 0.05))
        world.azure.add_service_principal("controller", secret=SECRET)
        yield world


@pytest.fixture
async def settings(world, authority, tmp_path):
    certificate = authority.issue(tmp_path, "127.0.0.1")
    async with AsyncExitStack() as stack:

        async def served(app, tls=None):
            listener = socket.create_server(("127.0.0.1", 0))
            await stack.enter_async_context(serve(app, sockets=[listener], tls=tls))
            return f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"

        cluster = {"name": "c", "cluster": {"server": await served(kubernetes_app(world.cluster))}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": [cluster],
            "contexts": [context],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        cloud = Cloud(
            name="stand-in",
            resource_manager=await served(Arm(world.azure), certificate),
            active_directory=await served(Entra(world.azure), certificate),
            audience="https://management.azure.com/",
        )
        azure = AzureConfig(
            cloud=cloud, tenant_id=world.azure.tenant_id, client_id="controller", client_secret=SECRET
        )
        yield ControllerSettings(
            azure=azure,
            kubeconfig=str(tmp_path / "kubeconfig"),
            unassign_after=0.0,
            probe_port=free_port(),
            metrics_port=free_port(),
        )


@asynccontextmanager
async def running(settings):
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def until(check):
    async with asyncio.timeout(20):
        while not await check():
            await asyncio.sleep(0.02)


async def get(port, path):
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectorError:
            return 0, ""


async def test_a_pod_is_served_from_end_to_end(world, settings):
    await world.bind("x")
    async with running(settings):
        await world.pod("p", "x")

        async def assigned():
            return await world.assigned() == {"default/p-default-x": "Assigned"}

        async def gone():
            return world.on("pool") == set()

        await until(assigned)
        assert world.on("pool") == {"x"}
        assert await get(settings.probe_port, "/readyz") == (200, "ok")
        assert await get(settings.probe_port, "/healthz") == (200, "Active")
        _, metrics = await get(settings.metrics_port, "/metrics")
        assert "aadpodidentity_assigned_identity_addition_count 1.0" in metrics
        assert 'operations_duration_seconds_count{operation_type="vmss_update"} 1.0' in metrics
        await world.delete(PODS, "p")
        await until(gone)
    assert await get(settings.probe_port, "/livez") == (0, "")


async def test_it_is_alive_but_not_ready_before_its_caches_are_filled(world, settings):
    world.cluster.faults.answer(503, times=None, match=lambda call: call.path.endswith("/nodes"))
    async with running(settings):

        async def alive():
            return await get(settings.probe_port, "/livez") == (200, "ok")

        async def only_nodes_are_missing():
            return await get(settings.probe_port, "/readyz") == (503, "waiting for the first list of nodes")

        await until(alive)
        await until(only_nodes_are_missing)
        assert await get(settings.probe_port, "/healthz") == (200, "Not Active")


@pytest.mark.parametrize(
    ("field", "flag"), [("probe_port", "--http-probe-port"), ("metrics_port", "--prometheus-port")]
)
async def test_a_taken_port_ends_it_at_once_with_the_flag(settings, field, flag):
    with socket.create_server(("0.0.0.0", getattr(settings, field))), pytest.raises(ConfigurationError, match=flag):
        await run(settings, asyncio.Event())


async def test_a_missing_kubeconfig_ends_it_at_once(settings):
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        await run(replace(settings, kubeconfig="/not/there"), asyncio.Event())
