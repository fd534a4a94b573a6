from typing import Any

import pytest

from tests.contract.client import STRATEGIC_PATCH, Client

NEW_EVENTS = "/apis/events.k8s.io/v1/namespaces/{}/events"


def lease(name: str = "l", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


async def test_lease_times_are_micro_times_in_utc(api: Client, path):
    times = {"renewTime": "2026-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T02:00:00.123456+02:00"}
    answer = await api.post(path("leases"), lease(holderIdentity="a", leaseDurationSeconds=15, **times))
    assert answer.status == 201
    assert answer.body["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"
    assert answer.body["spec"]["acquireTime"] == "2026-01-01T00:00:00.123456Z"


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"renewTime": "2026-01-01T00:00:00Z"}, 400),
        ({"renewTime": "2026-01-01T00:00:00.123Z"}, 400),
        ({"renewTime": "2026-01-01T00:00:00.123456789Z"}, 400),
        ({"leaseDurationSeconds": "15"}, 400),
        ({"leaseDurationSeconds": 0}, 422),
        ({"leaseTransitions": -1}, 422),
        ({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": None}, 201),
    ],
)
async def test_leases_are_checked(api: Client, path, spec, status):
    assert (await api.post(path("leases"), lease(**spec))).status == status


async def test_of_two_who_take_a_lease_one_meets_a_conflict(api: Client, path):
    free = await api.post(path("leases"), lease(holderIdentity=""))
    taken = [{**free.body, "spec": {"holderIdentity": name}} for name in "ab"]
    answers = [await api.put(path("leases", "l"), body) for body in taken]
    assert [answer.status for answer in answers] == [200, 409]
    assert answers[1].body["details"] == {"name": "l", "group": "coordination.k8s.io", "kind": "leases"}


async def test_events_belong_to_the_namespace_of_what_they_are_about(api: Client, path, namespace):
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "R", "message": "m", "type": "Normal"}
    created = await api.post(path("events"), body)
    assert created.status == 201
    assert (created.body["eventTime"], created.body["reportingComponent"]) == (None, "")
    for involved in ({**about, "namespace": "other"}, {"kind": "Node", "name": "n"}):
        answer = await api.post(path("events"), {**body, "metadata": {"name": "f"}, "involvedObject": involved})
        assert answer.status == 422
        assert answer.body["details"]["causes"][0]["field"] == "involvedObject.namespace"


async def test_events_about_nodes_go_to_the_default_namespace(api: Client):
    body = {"metadata": {"generateName": "e-"}, "involvedObject": {"kind": "Node", "name": "n"}}
    created = await api.post("/api/v1/namespaces/default/events", body)
    assert created.status == 201
    await api.delete(f"/api/v1/namespaces/default/events/{created.body['metadata']['name']}")


async def test_events_are_found_by_what_they_are_about(api: Client, path, namespace):
    for name, kind in (("a", "Pod"), ("b", "Widget")):
        about = {"kind": kind, "namespace": namespace, "name": name}
        await api.post(path("events"), {"metadata": {"name": name}, "involvedObject": about, "reason": "R"})
    selector = "involvedObject.kind=Widget,involvedObject.name=b,reason=R"
    assert (await api.get(path("events"), fieldSelector=selector)).names == ["b"]


async def test_both_event_apis_show_the_same_events(api: Client, path, namespace):
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    old = {
        "metadata": {"name": "old"},
        "involvedObject": about,
        "message": "m",
        "source": {"component": "c"},
        "count": 2,
    }
    await api.post(path("events"), old)
    seen = (await api.get(NEW_EVENTS.format(namespace) + "/old")).body
    assert (seen["apiVersion"], seen["note"], seen["regarding"]) == ("events.k8s.io/v1", "m", about)
    assert (seen["deprecatedCount"], seen["deprecatedSource"]) == (2, {"component": "c"})
    new = {
        "metadata": {"name": "new"},
        "regarding": about,
        "note": "n",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "contract.test/c",
        "reportingInstance": "i",
        "action": "Act",
        "reason": "R",
        "type": "Normal",
    }
    assert (await api.post(NEW_EVENTS.format(namespace), new)).status == 201
    seen = (await api.get(path("events", "new"))).body
    assert (seen["message"], seen["involvedObject"], seen["reportingComponent"]) == ("n", about, "contract.test/c")


@pytest.mark.parametrize(
    "missing", ["eventTime", "reportingController", "reportingInstance", "action", "reason", "type"]
)
async def test_new_events_must_be_complete(api: Client, namespace, missing):
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    body = {
        "metadata": {"name": "e"},
        "regarding": about,
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "contract.test/c",
        "reportingInstance": "i",
        "action": "Act",
        "reason": "R",
        "type": "Normal",
    }
    del body[missing]
    answer = await api.post(NEW_EVENTS.format(namespace), body)
    assert answer.status == 422
    assert missing in {cause["field"] for cause in answer.body["details"]["causes"]}


async def test_service_account_tokens_are_given_for_audiences(api: Client, path):
    await api.post(path("serviceaccounts"), {"metadata": {"name": "app"}})
    request = {"spec": {"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 3600}}
    answer = await api.post(path("serviceaccounts", "app", "token"), request)
    assert (answer.status, answer.body["kind"]) == (201, "TokenRequest")
    assert answer.body["spec"]["audiences"] == ["api://AzureADTokenExchange"]
    assert answer.body["status"]["token"]
    assert answer.body["status"]["expirationTimestamp"].endswith("Z")


async def test_service_account_tokens_have_limits(api: Client, path):
    await api.post(path("serviceaccounts"), {"metadata": {"name": "app"}})
    token = path("serviceaccounts", "app", "token")
    assert (await api.post(token, {"spec": {"expirationSeconds": 60}})).status == 422
    assert (await api.post(path("serviceaccounts", "none", "token"), {"spec": {}})).status == 404
    assert (await api.get(token)).status == 405


async def test_pods_need_containers_and_begin_pending(api: Client, path):
    refused = await api.post(path("pods"), {"metadata": {"name": "p"}, "spec": {}})
    assert (refused.status, refused.body["details"]["causes"][0]["field"]) == (422, "spec.containers")
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    created = await api.post(path("pods"), {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Running"}})
    assert created.body["status"]["phase"] == "Pending"
    assert created.body["spec"]["restartPolicy"] == "Always"


async def test_a_pod_stays_on_its_node(api: Client, path):
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    await api.post(path("pods"), {"metadata": {"name": "p"}, "spec": spec})
    assert (await api.patch(path("pods", "p"), {"spec": {"nodeName": "m"}})).status == 422


async def test_pod_status_is_written_only_through_its_subresource(api: Client, path):
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    created = await api.post(path("pods"), {"metadata": {"name": "p"}, "spec": spec})
    ignored = await api.patch(path("pods", "p"), {"status": {"phase": "Failed"}})
    assert (ignored.revision, ignored.body["status"]["phase"]) == (created.revision, "Pending")
    status = {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    change = {"status": status, "spec": {"nodeName": "m"}, "metadata": {"labels": {"x": "y"}}}
    written = await api.patch(path("pods", "p", "status"), change, STRATEGIC_PATCH)
    assert (written.status, written.body["status"]["phase"]) == (200, "Running")
    assert written.body["spec"]["nodeName"] == "n"
    assert written.body["metadata"]["labels"] == {"x": "y"}
    assert written.body["metadata"]["generation"] == 1


async def test_secrets_take_plain_text_and_keep_base64(api: Client, path):
    answer = await api.post(path("secrets"), {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert (answer.body["data"], answer.body["type"]) == ({"a": "Yg=="}, "Opaque")
    assert "stringData" not in answer.body
    assert (await api.post(path("secrets"), {"metadata": {"name": "t"}, "data": {"a": "!"}})).status == 400


async def test_namespaces_are_active_and_carry_their_name_as_a_label(api: Client, namespace):
    answer = await api.get(f"/api/v1/namespaces/{namespace}")
    assert answer.body["status"] == {"phase": "Active"}
    assert answer.body["spec"] == {"finalizers": ["kubernetes"]}
    assert answer.body["metadata"]["labels"] == {"kubernetes.io/metadata.name": namespace}


async def test_the_namespaces_of_a_cluster_exist(api: Client):
    names = (await api.get("/api/v1/namespaces")).names
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= set(names)


async def test_access_reviews_of_an_admin_are_allowed(api: Client):
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    answer = await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert (answer.status, answer.body["status"]["allowed"]) == (201, True)


async def test_nodes_are_registered_and_report_through_status(api: Client, namespace):
    node = f"/api/v1/nodes/{namespace}"
    body = {"metadata": {"name": namespace}, "spec": {"providerID": "azure:///x"}, "status": {"phase": "Pending"}}
    created = await api.post("/api/v1/nodes", body)
    try:
        assert (created.status, created.body["spec"]["providerID"]) == (201, "azure:///x")
        assert "generation" not in created.body["metadata"]
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        written = await api.patch(f"{node}/status", ready, STRATEGIC_PATCH)
        assert written.body["status"]["conditions"][0]["type"] == "Ready"
    finally:
        assert (await api.delete(node)).status == 200
