"""One node's world in one process: an API server, an IMDS, and the agent's parts on them, on any kind of time."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from podidentity.azure.imds import ImdsClient
from podidentity.emulator.azure.identity_block import IdentityBlock
from podidentity.emulator.azure.imds import Imds, ImdsSettings
from podidentity.emulator.azure.machines import Machine
from podidentity.emulator.azure.resource_ids import virtual_machine_id
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.inprocess import Cut, InProcess, InProcessTransport
from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.emulator.kubernetes import resources as emulated
from podidentity.emulator.kubernetes.crds import resources_of
from podidentity.emulator.serving import serve
from podidentity.kube.caches import Caches
from podidentity.kube.client import KubeClient
from podidentity.node.callers import LiveLookup
from podidentity.node.issuing import Cluster, Issuer
from podidentity.node.settings import NodeSettings
from podidentity.node.tokens import TokenService
from podidentity.telemetry.metrics import NodeMetrics
from tests.node.objects import NODE, Object

EPOCH = 1_700_000_000.0
"""What the wall clock shows when the loop's shows 0."""
_MANIFESTS = Path(__file__).parents[2] / "manifests" / "crds"
_VM = virtual_machine_id("sub", "nodes", "vm-0")


def wall_clock() -> float:
    """Seconds since the epoch, on the loop's time."""
    return EPOCH + asyncio.get_running_loop().time()


@cache
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Api:
    """The objects of a stand-in API server, written behind its back: also states that no client could make."""

    def __init__(self) -> None:
        self.state = ClusterState(clock=wall_clock, rng=random.Random(1))
        kinds = [emulated.PODS]
        for manifest in sorted(_MANIFESTS.glob("*.yaml")):
            crd = yaml.safe_load(manifest.read_text())
            resources = resources_of(crd)
            self.state.registry.serve(crd["spec"]["group"], crd["spec"]["names"]["plural"], resources)
            kinds += resources
        self._kinds = {it.kind: it for it in kinds}

    def put(self, *objects: Object) -> None:
        """Create or replace."""
        for obj in objects:
            self.state.commit(self._kinds[obj["kind"]], _key(obj), obj)

    def drop(self, *objects: Object) -> None:
        """Remove at once, whatever the finalizers."""
        for obj in objects:
            self.state.commit(self._kinds[obj["kind"]], _key(obj), None)


class ImdsSession:
    """What `ImdsClient` needs of an aiohttp session, on the stand-in IMDS in the same process."""

    def __init__(self, imds: Imds) -> None:
        self.server = InProcess(imds)

    @asynccontextmanager
    async def get(self, url: str, *, params: dict[str, str], headers: dict[str, str], **_: Any) -> AsyncIterator[Any]:
        path = url.removeprefix("http://imds")
        try:
            async with self.server.call("GET", path, query=params, headers=headers) as answer:
                yield _Answer(answer.status, CIMultiDict(answer.headers), await answer.read())
        except Cut as error:
            raise aiohttp.ClientError(str(error)) from error


@dataclass
class _Answer:
    status: int
    headers: CIMultiDict[str]
    body: bytes

    async def read(self) -> bytes:
        return self.body


@dataclass(kw_only=True)
class Town:
    """All of it; `issuer` is what is tested."""

    api: Api
    azure: AzureState
    vm: Machine
    imds: Imds
    transport: InProcessTransport
    cluster: Cluster
    tokens: TokenService
    issuer: Issuer
    settings: NodeSettings
    metrics: NodeMetrics
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def own(self, *identities: Object) -> None:
        """Let the machine have these identities, and no others."""
        for it in identities:
            if self.azure.identity(it["spec"]["resourceID"]) is None:
                self.azure.add_identity(it["spec"]["resourceID"], client_id=it["spec"]["clientID"])
        self.azure.machines.set_identity(self.vm, IdentityBlock.of([it["spec"]["resourceID"] for it in identities]))

    @property
    def asked(self) -> int:
        """How many requests IMDS has had."""
        return len(self.imds.log)


@asynccontextmanager
async def town(*objects: Object, synced: bool = True, sockets: bool = False, **settings: Any) -> AsyncIterator[Town]:
    """Build a town whose API server has these objects; the informers follow it until the block ends.

    With `sockets` the way to IMDS is the shipped one, which needs real time.
    """
    api = Api()
    api.put(*objects)
    azure = AzureState(clock=wall_clock, rng=random.Random(2), signing_key=signing_key())
    vm = azure.add_virtual_machine(_VM)
    imds = Imds(azure, lambda _: _VM, ImdsSettings(per_second=None, concurrent=5))
    transport = InProcessTransport(kubernetes_app(api.state))
    known = NodeSettings(node=NODE, **settings)
    metrics = NodeMetrics(CollectorRegistry())
    cluster = _cluster(transport)
    exits = AsyncExitStack()
    tokens = TokenService(
        await exits.enter_async_context(_imds_over_sockets(imds) if sockets else _imds_in_process(imds)),
        max_age=known.token_max_age,
        concurrency=known.imds_concurrency,
        metrics=metrics,
        wall_clock=wall_clock,
    )
    issuer = Issuer(known, cluster=cluster, lookup=LiveLookup(KubeClient(transport), NODE), tokens=tokens)
    running = [asyncio.create_task(it.run()) for it in cluster.informers.values()]
    try:
        if synced:
            for informer in cluster.informers.values():
                await informer.wait_synced()
        yield Town(
            api=api,
            azure=azure,
            vm=vm,
            imds=imds,
            transport=transport,
            cluster=cluster,
            tokens=tokens,
            issuer=issuer,
            settings=known,
            metrics=metrics,
            running=running,
        )
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await transport.close()
        await exits.aclose()


@asynccontextmanager
async def _imds_in_process(imds: Imds) -> AsyncIterator[ImdsClient]:
    session = ImdsSession(imds)
    yield ImdsClient(session, "http://imds")  # type: ignore[arg-type] # as far as it is used
    await session.server.close()


@asynccontextmanager
async def _imds_over_sockets(imds: Imds) -> AsyncIterator[ImdsClient]:
    listener = socket.create_server(("127.0.0.1", 0))
    async with serve(imds, sockets=[listener]), aiohttp.ClientSession(trust_env=False) as session:
        yield ImdsClient(session, f"http://127.0.0.1:{listener.getsockname()[1]}")


def _cluster(transport: InProcessTransport) -> Cluster:
    caches = Caches(transport, rng=random.Random(3))
    return Cluster(
        pods=caches.pods_on(NODE),
        assigned=caches.assigned_identities(NODE),
        bindings=caches.bindings(),
        identities=caches.identities(),
    )


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
