"""What a cluster's controllers do, which a kube-apiserver alone does not: the contract suite cannot compare it."""

import asyncio

from podidentity.emulator.kubernetes import ClusterState
from tests.contract.client import Client
from tests.contract.conftest import crd, until_status, widget

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POD = {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}
PODS = "/api/v1/namespaces/default/pods"


async def test_a_deleted_namespace_takes_its_content_along(api: Client):
    await api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    await api.post("/api/v1/namespaces/team/configmaps", {"metadata": {"name": "a"}})
    await api.delete("/api/v1/namespaces/team")
    assert (await api.get("/api/v1/namespaces/team")).status == 404
    assert (await api.get("/api/v1/configmaps")).names == []


async def test_a_namespace_waits_for_finalizers_of_its_content(api: Client):
    await api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    held = {"metadata": {"name": "a", "finalizers": ["x.y/z"]}}
    await api.post("/api/v1/namespaces/team/configmaps", held)
    await api.delete("/api/v1/namespaces/team")
    assert (await api.get("/api/v1/namespaces/team")).body["status"]["phase"] == "Terminating"
    await api.patch("/api/v1/namespaces/team/configmaps/a", {"metadata": {"finalizers": None}})
    assert (await api.get("/api/v1/namespaces/team")).status == 404


async def test_a_deleted_definition_takes_its_objects_along(api: Client):
    await api.post(CRDS, crd("widgets", "Widget"))
    collection = "/apis/contract.test/v1/namespaces/default/widgets"
    await api.post(collection, widget("a"))
    await api.delete(f"{CRDS}/widgets.contract.test")
    assert (await api.get(collection)).status == 404
    await api.post(CRDS, crd("widgets", "Widget"))
    assert (await api.get(collection)).names == []


async def test_a_definition_waits_for_finalizers_of_its_objects(api: Client):
    await api.post(CRDS, crd("widgets", "Widget"))
    collection = "/apis/contract.test/v1/namespaces/default/widgets"
    body = widget("a")
    body["metadata"]["finalizers"] = ["x.y/z"]
    await api.post(collection, body)
    await api.delete(f"{CRDS}/widgets.contract.test")
    assert (await api.get(collection)).names == ["a"]
    await api.patch(f"{collection}/a", {"metadata": {"finalizers": None}})
    assert (await api.get(f"{CRDS}/widgets.contract.test")).status == 404


async def test_a_pod_on_a_node_terminates_in_its_time(api: Client):
    await api.post(PODS, POD)
    marked = await api.delete(f"{PODS}/p")
    assert marked.body["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await api.get(f"{PODS}/p")).status == 200
    await until_status(api, f"{PODS}/p", 404)


async def test_a_pod_that_came_again_outlives_the_grace_of_the_first(api: Client, state: ClusterState):
    await api.post(PODS, POD)
    await api.delete(f"{PODS}/p")
    await api.delete(f"{PODS}/p", gracePeriodSeconds=0)
    await api.post(PODS, POD)
    await asyncio.sleep(2 * state.settings.pod_termination)
    assert (await api.get(f"{PODS}/p")).status == 200


async def test_tokens_decide_who_gets_in(api: Client, session, state: ClusterState):
    state.tokens = {"secret": "somebody"}
    refused = await api.get(PODS)
    assert (refused.status, refused.body["reason"], refused.body["message"]) == (401, "Unauthorized", "Unauthorized")
    async with session.get(PODS, headers={"Authorization": "Bearer secret"}) as answer:
        assert answer.status == 200
