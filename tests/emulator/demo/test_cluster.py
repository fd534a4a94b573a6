"""What the demo does to an API server, and takes back; the stand-in in-process, and a real one where there is one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.api.meta import Key
from podidentity.emulator.demo.cluster import NAMESPACE, DemoCluster, objects
from podidentity.emulator.demo.kubelet import Kubelet
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.kube.client import KubeClient
from podidentity.kube.resources import ASSIGNED_IDENTITIES, CONFIG_MAPS, IDENTITIES, PODS, Resource
from podidentity.kube.transport import Transport, connect
from tests.contract.real_apiserver import HOW_TO_GET, RealApiServer, kube_assets

NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
ADDRESSES = {"bound": "10.244.0.10", "second": "10.244.0.11", "stranger": "10.244.0.12"}


@pytest.fixture
async def stand_in() -> AsyncIterator[Transport]:
    transport = InProcessTransport(kubernetes_app(ClusterState()))
    yield transport
    await transport.close()


@pytest.fixture
async def real(tmp_path) -> AsyncIterator[Transport]:
    """A server of its own: the demo wants an empty one."""
    assets = kube_assets()
    if assets is None:
        pytest.skip(HOW_TO_GET)
    async with RealApiServer(tmp_path, assets=assets) as server:
        transport = await connect(str(server.kubeconfig))
        yield transport
        await transport.close()


@pytest.fixture(params=["stand_in", pytest.param("real", marks=pytest.mark.kube)])
def transport(request) -> Transport:
    """Every sentence that uses it holds for both."""
    found: Transport = request.getfixturevalue(request.param)
    return found


async def begin(transport: Transport) -> DemoCluster:
    """Do to a cluster what a demo does until its pods run."""
    cluster = DemoCluster(transport)
    await cluster.install_crds()
    await cluster.add_node("node-0", "azure:///x/0")
    await cluster.prepare_namespace()
    await cluster.apply("node-0")
    await kubelet(transport).look()
    return cluster


async def assign(transport: Transport, pod: str, namespace: str) -> None:
    """Do what the controller does for a pod."""
    identity = next(objects())
    body = {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureAssignedIdentity",
        "metadata": {"name": f"{pod}-{namespace}-reader", "finalizers": ["podidentity.test/finalizer"]},
        "spec": {
            "pod": pod,
            "podNamespace": namespace,
            "nodename": "node-0",
            "azureIdentityRef": identity,
            "azureBindingRef": {"metadata": {"name": "b"}, "spec": {"azureIdentity": "reader", "selector": "reader"}},
        },
    }
    await KubeClient(transport).create(ASSIGNED_IDENTITIES, "default", body)


def kubelet(transport: Transport) -> Kubelet:
    return Kubelet(transport, "node-0", ADDRESSES)


async def make_namespace(transport: Transport, **metadata: Any) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, **metadata}}
    await KubeClient(transport).create(NAMESPACES, "", body)


async def names(transport: Transport, resource: Resource) -> set[str]:
    return {item["metadata"]["name"] for item in (await KubeClient(transport).list(resource))["items"]}


async def test_what_a_killed_demo_left_is_cleared_and_the_next_one_works(transport):
    before = await names(transport, NAMESPACES)
    await begin(transport)
    await assign(transport, "bound", NAMESPACE)
    cluster = DemoCluster(transport)
    await cluster.refuse_if_used()
    found = await cluster.clear_leftovers(seconds=20)
    assert {"demo", "node-0", "azureidentities.aadpodidentity.k8s.io"} <= set(found)
    assert await names(transport, NAMESPACES) == before
    assert await names(transport, CRDS) == set()
    again = await begin(transport)
    assert await names(transport, PODS) == set(ADDRESSES)
    await again.take_back()
    assert await names(transport, NAMESPACES) == before


async def test_a_pod_created_again_is_put_on_the_node_and_runs(transport):
    await begin(transport)
    client, plays = KubeClient(transport), kubelet(transport)
    await client.delete(PODS, Key(NAMESPACE, "second"))
    await plays.look()
    assert "second" not in await names(transport, PODS)
    [pod] = [it for it in objects() if it["metadata"]["name"] == "second"]
    await client.create(PODS, NAMESPACE, pod)
    await plays.look()
    found = await client.get(PODS, Key(NAMESPACE, "second"))
    assert found["spec"]["nodeName"] == "node-0"
    assert (found["status"]["phase"], found["status"]["podIP"]) == ("Running", "10.244.0.11")


async def test_pods_of_other_names_and_nodes_are_left_alone(stand_in):
    cluster = DemoCluster(stand_in)
    await cluster.prepare_namespace()
    client = KubeClient(stand_in)
    containers = [{"name": "app", "image": "x"}]
    for name, spec in (("other", {}), ("bound", {"nodeName": "elsewhere"})):
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": containers, **spec},
        }
        await client.create(PODS, NAMESPACE, body)
    await kubelet(stand_in).look()
    for pod in (await client.list(PODS))["items"]:
        assert "podIP" not in pod["status"]


async def test_identities_of_others_are_refused_and_stay(stand_in):
    cluster = await begin(stand_in)
    await assign(stand_in, "theirs", "elsewhere")
    with pytest.raises(ConfigurationError, match="azureassignedidentities of its own"):
        await cluster.refuse_if_used()
    assert await names(stand_in, IDENTITIES) == {"reader"}


async def test_a_namespace_of_somebody_else_is_refused(stand_in):
    await make_namespace(stand_in)
    with pytest.raises(ConfigurationError, match="a namespace demo of its own"):
        await DemoCluster(stand_in).refuse_if_used()


async def test_a_namespace_that_is_still_being_deleted_is_told_in_words(stand_in):
    await make_namespace(stand_in)
    client = KubeClient(stand_in)
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["a.test/b"]}}
    await client.create(CONFIG_MAPS, NAMESPACE, held)
    await client.delete(NAMESPACES, Key("", NAMESPACE))
    with pytest.raises(ConfigurationError, match=r"Terminating.*wait until it is gone.*a fresh API server"):
        await DemoCluster(stand_in).refuse_if_used()


async def test_crds_of_somebody_else_stay(stand_in):
    cluster = DemoCluster(stand_in)
    await cluster.install_crds()
    crd = Key("", "azureidentities.aadpodidentity.k8s.io")
    await KubeClient(stand_in).patch(CRDS, crd, {"metadata": {"labels": None}})
    await cluster.take_back()
    assert await names(stand_in, CRDS) == {crd.name}
