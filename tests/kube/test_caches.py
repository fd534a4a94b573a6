import asyncio
import random
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from podidentity.api.ids import target_of_provider_id
from podidentity.api.meta import Key
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import kubernetes_app
from podidentity.kube.caches import Caches
from podidentity.kube.client import KubeClient
from podidentity.kube.resources import ASSIGNED_IDENTITIES, BINDINGS, IDENTITIES, NODES, PODS, Resource
from tests.virtual_time import settle, virtual_time

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
MANIFESTS = Path(__file__).parents[2] / "manifests" / "crds"
GROUP = "aadpodidentity.k8s.io/v1"
PROVIDER_ID = "azure:///subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/node-a"


@pytest.fixture
def transport(state) -> InProcessTransport:
    return InProcessTransport(kubernetes_app(state))


@asynccontextmanager
async def following(informer):
    task = asyncio.create_task(informer.run())
    await settle()
    yield informer.store
    if task.done():
        task.result()
    task.cancel()
    await asyncio.wait([task])


def pod(name: str, *, node: str = "", label: str = "") -> dict[str, Any]:
    labels = {"aadpodidbinding": label} if label else {}
    spec = {"containers": [{"name": "c", "image": "i"}]} | ({"nodeName": node} if node else {})
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


async def make_kinds(client: KubeClient) -> None:
    for path in MANIFESTS.iterdir():
        for definition in yaml.safe_load_all(path.read_text()):
            await client.create(CRDS, "", definition)


@virtual_time
async def test_only_pods_that_ask_for_an_identity_are_held_for_the_controller(transport):
    client = KubeClient(transport)
    await client.create(PODS, "default", pod("bound", node="node-a", label="web"))
    await client.create(PODS, "default", pod("other", node="node-a"))
    async with following(Caches(transport, rng=random.Random(0)).bound_pods()) as store:
        assert list(store.keys()) == [Key("default", "bound")]
        assert [it.metadata.name for it in store.by("node", "node-a")] == ["bound"]
        assert [it.metadata.name for it in store.by("label", "web")] == ["bound"]
        await client.patch(PODS, Key("default", "bound"), {"metadata": {"labels": {"aadpodidbinding": None}}})
        await client.patch(PODS, Key("default", "other"), {"metadata": {"labels": {"aadpodidbinding": ""}}})
        await settle()
        assert list(store.keys()) == [Key("default", "other")]
    await transport.close()


@virtual_time
async def test_an_agent_holds_the_pods_of_its_node_by_their_addresses(transport):
    client = KubeClient(transport)
    await client.create(PODS, "default", pod("here", node="node-a"))
    await client.create(PODS, "default", pod("there", node="node-b"))
    async with following(Caches(transport, rng=random.Random(0)).pods_on("node-a")) as store:
        status = {"status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]}}
        path = PODS.path("default", "here") + "/status"
        await transport.request(
            "PATCH", path, body=msgspec.json.encode(status), content="application/merge-patch+json"
        )
        await settle()
        for address in ("10.0.0.7", "fd00::7"):
            assert [it.metadata.name for it in store.by("address", ip_address(address))] == ["here"]
        assert list(store.keys()) == [Key("default", "here")]
    await transport.close()


@virtual_time
async def test_nodes_are_held_by_the_machine_under_them(transport):
    client = KubeClient(transport)
    await client.create(NODES, "", {"metadata": {"name": "node-a"}, "spec": {"providerID": PROVIDER_ID}})
    async with following(Caches(transport, rng=random.Random(0)).nodes()) as store:
        [node] = store.by("target", target_of_provider_id(PROVIDER_ID))
        assert node.key == Key("", "node-a")
    await transport.close()


@virtual_time
async def test_the_custom_kinds_are_held_by_what_they_name(transport):
    client = KubeClient(transport)
    await make_kinds(client)
    identity = {"apiVersion": GROUP, "kind": "AzureIdentity", "metadata": {"name": "id"}, "spec": {"type": 7}}
    binding = {
        "apiVersion": GROUP,
        "kind": "AzureIdentityBinding",
        "metadata": {"name": "b"},
        "spec": {"AzureIdentity": "id", "Selector": "web"},
    }
    assigned = {
        "apiVersion": GROUP,
        "kind": "AzureAssignedIdentity",
        "metadata": {"name": "a", "labels": {"nodename": "node-a"}},
        "spec": {"pod": "p", "podNamespace": "default", "nodename": "node-a"},
    }
    await client.create(IDENTITIES, "default", identity)
    await client.create(BINDINGS, "default", binding)
    await client.create(ASSIGNED_IDENTITIES, "default", assigned)
    other = assigned | {"metadata": {"name": "b", "labels": {"nodename": "node-b"}}}
    await client.create(ASSIGNED_IDENTITIES, "default", other)
    caches = Caches(transport, rng=random.Random(0))
    async with (
        following(caches.identities()) as identities,
        following(caches.bindings()) as bindings,
        following(caches.assigned_identities("node-a")) as of_node,
        following(caches.assigned_identities()) as everywhere,
    ):
        held = identities.get(Key("default", "id"))
        assert held is not None
        assert held.problem
        assert [it.key for it in bindings.by("identity", Key("default", "id"))] == [Key("default", "b")]
        assert [it.key for it in bindings.by("selector", "web")] == [Key("default", "b")]
        assert [it.key for it in of_node.by("pod", Key("default", "p"))] == [Key("default", "a")]
        assert len(everywhere.by("node", "node-a")) == 2
    await transport.close()
