import pytest

from tests.contract.client import Client


@pytest.mark.parametrize("probe", ["/healthz", "/livez", "/readyz"])
async def test_probes_say_ok(api: Client, probe):
    answer = await api.get(probe)
    assert (answer.status, answer.body) == (200, "ok")


async def test_the_version_is_a_kubernetes_version(api: Client):
    version = (await api.get("/version")).body
    assert (version["major"], version["gitVersion"][0]) == ("1", "v")


async def test_groups_and_versions_are_listed(api: Client, widgets):
    assert (await api.get("/api")).body["versions"] == ["v1"]
    groups = {group["name"]: group for group in (await api.get("/apis")).body["groups"]}
    assert groups["coordination.k8s.io"]["preferredVersion"]["groupVersion"].startswith("coordination.k8s.io/v1")
    assert {"apps", "events.k8s.io", "apiextensions.k8s.io"} <= set(groups)
    assert (await api.get("/apis/contract.test")).body["versions"] == [
        {"groupVersion": "contract.test/v1", "version": "v1"}
    ]


@pytest.mark.parametrize(
    ("api_version", "plural", "kind_and_scope"),
    [
        ("api/v1", "pods", ("Pod", True)),
        ("api/v1", "nodes", ("Node", False)),
        ("api/v1", "serviceaccounts/token", ("TokenRequest", True)),
        ("apis/coordination.k8s.io/v1", "leases", ("Lease", True)),
        ("apis/apps/v1", "daemonsets", ("DaemonSet", True)),
        ("apis/contract.test/v1", "widgets", ("Widget", True)),
    ],
)
async def test_resources_are_listed_with_kind_and_scope(api: Client, widgets, api_version, plural, kind_and_scope):
    answer = await api.get(f"/{api_version}")
    assert answer.body["kind"] == "APIResourceList"
    found = {resource["name"]: resource for resource in answer.body["resources"]}[plural]
    assert (found["kind"], found["namespaced"]) == kind_and_scope


async def test_open_api_says_that_patches_take_field_validation(api: Client):
    index = (await api.get("/openapi/v3")).body["paths"]
    document = (await api.get(index["api/v1"]["serverRelativeURL"].partition("?")[0])).body
    for patch in (path["patch"] for path in document["paths"].values() if "patch" in path):
        if patch["x-kubernetes-group-version-kind"]["kind"] == "ConfigMap":
            assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
            return
    pytest.fail("no PATCH for ConfigMap")
