import pytest

from tests.contract.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Client


@pytest.fixture
async def one(api: Client, path) -> str:
    """The path of a ConfigMap with data a=1."""
    await api.post(path("configmaps"), {"metadata": {"name": "one", "labels": {"l": "1"}}, "data": {"a": "1"}})
    return str(path("configmaps", "one"))


async def test_merge_patch_merges_and_null_removes(api: Client, one):
    answer = await api.patch(one, {"metadata": {"labels": {"l": None}}, "data": {"b": "2"}})
    assert (answer.status, answer.body["data"]) == (200, {"a": "1", "b": "2"})
    assert "labels" not in answer.body["metadata"]


async def test_json_patch_applies_in_order(api: Client, one):
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "add", "path": "/data/b", "value": "2"},
        {"op": "copy", "from": "/data/a", "path": "/data/d"},
        {"op": "move", "from": "/data/d", "path": "/data/e"},
        {"op": "remove", "path": "/data/a"},
    ]
    answer = await api.patch(one, operations, JSON_PATCH)
    assert (answer.status, answer.body["data"]) == (200, {"b": "2", "e": "1"})


async def test_json_pointers_escape_slash_and_tilde(api: Client, one):
    operation = {"op": "add", "path": "/metadata/labels/x.y~1z", "value": "2"}
    answer = await api.patch(one, [operation], JSON_PATCH)
    assert answer.body["metadata"]["labels"] == {"l": "1", "x.y/z": "2"}


async def test_json_patch_replaces_what_is_not_there(api: Client, one):
    answer = await api.patch(one, [{"op": "replace", "path": "/data/new", "value": "2"}], JSON_PATCH)
    assert (answer.status, answer.body["data"]) == (200, {"a": "1", "new": "2"})


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/none", "value": "2"},
        {"op": "remove", "path": "/data/none"},
        {"op": "add", "path": "/none/a", "value": "1"},
        {"op": "nonsense", "path": "/data/a"},
    ],
)
async def test_json_patches_that_do_not_fit_are_invalid(api: Client, one, operation):
    answer = await api.patch(one, [operation], JSON_PATCH)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["message"] == "the server rejected our request due to an error in our request"


async def test_a_json_patch_is_all_or_nothing(api: Client, one):
    operations = [{"op": "remove", "path": "/data/a"}, {"op": "test", "path": "/data/z", "value": "1"}]
    assert (await api.patch(one, operations, JSON_PATCH)).status == 422
    assert (await api.get(one)).body["data"] == {"a": "1"}


@pytest.mark.parametrize(("body", "media"), [({"op": "test"}, JSON_PATCH), (b"{", MERGE_PATCH)])
async def test_patches_that_do_not_parse_are_bad_requests(api: Client, one, body, media):
    assert (await api.patch(one, body, media)).status == 400


async def test_a_patch_with_a_stale_resource_version_is_a_conflict(api: Client, one):
    old = await api.get(one)
    await api.patch(one, {"data": {"b": "2"}})
    for media in (MERGE_PATCH, STRATEGIC_PATCH):
        patch = {"metadata": {"resourceVersion": old.revision}, "data": {"c": "3"}}
        answer = await api.patch(one, patch, media)
        assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    operations = [{"op": "replace", "path": "/metadata/resourceVersion", "value": old.revision}]
    assert (await api.patch(one, [*operations, {"op": "remove", "path": "/data"}], JSON_PATCH)).status == 409


async def test_a_patch_without_a_resource_version_always_applies(api: Client, one):
    for value in "12":
        assert (await api.patch(one, {"data": {"b": value}})).status == 200


async def test_a_patch_that_changes_nothing_is_no_write(api: Client, one):
    before = await api.get(one)
    assert (await api.patch(one, {"data": {"a": "1"}})).revision == before.revision


async def test_patches_of_an_unknown_type_are_unsupported(api: Client, one):
    answer = await api.patch(one, {}, "application/json")
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")


async def test_patching_what_does_not_exist_is_not_found(api: Client, path):
    assert (await api.patch(path("configmaps", "none"), {})).status == 404


async def test_patches_change_neither_name_nor_uid(api: Client, one):
    assert (await api.patch(one, {"metadata": {"name": "two"}})).status == 400
    assert (await api.patch(one, {"metadata": {"uid": "other"}})).status == 422


async def test_strategic_merge_unites_finalizers_and_merges_conditions_by_type(api: Client, path):
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.post(path("pods"), {"metadata": {"name": "p", "finalizers": ["x.y/a"]}, "spec": spec})
    answer = await api.patch(path("pods", "p"), {"metadata": {"finalizers": ["x.y/b"]}}, STRATEGIC_PATCH)
    assert sorted(answer.body["metadata"]["finalizers"]) == ["x.y/a", "x.y/b"]
    for kind, status in (("Ready", "False"), ("Other", "True"), ("Ready", "True")):
        change = {"status": {"conditions": [{"type": kind, "status": status}]}}
        answer = await api.patch(path("pods", "p", "status"), change, STRATEGIC_PATCH)
    found = {c["type"]: c["status"] for c in answer.body["status"]["conditions"]}
    assert found == {"Ready": "True", "Other": "True"}
    less = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x.y/a"]}}
    answer = await api.patch(path("pods", "p"), less, STRATEGIC_PATCH)
    assert answer.body["metadata"]["finalizers"] == ["x.y/b"]
    removal = {"status": {"conditions": [{"type": "Other", "$patch": "delete"}]}}
    answer = await api.patch(path("pods", "p", "status"), removal, STRATEGIC_PATCH)
    assert [c["type"] for c in answer.body["status"]["conditions"]] == ["Ready"]


async def test_strategic_merge_replaces_taints_as_a_whole(api: Client, namespace):
    name = f"/api/v1/nodes/{namespace}"
    await api.post("/api/v1/nodes", {"metadata": {"name": namespace}})
    try:
        for key in ("a", "b"):
            change = {"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}}
            answer = await api.patch(name, change, STRATEGIC_PATCH)
        assert [taint["key"] for taint in answer.body["spec"]["taints"]] == ["b"]
    finally:
        await api.delete(name)


async def test_apply_creates_then_changes(api: Client, path):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1"}}
    first = await api.patch(path("configmaps", "one"), body, APPLY_PATCH, fieldManager="test")
    assert (first.status, first.body["data"]) == (201, {"a": "1"})
    second = await api.patch(
        path("configmaps", "one"), {**body, "data": {"a": "2"}}, APPLY_PATCH, fieldManager="test"
    )
    assert (second.status, second.body["data"]) == (200, {"a": "2"})


async def test_apply_needs_a_field_manager(api: Client, path):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
    assert (await api.patch(path("configmaps", "one"), body, APPLY_PATCH)).status == 422
