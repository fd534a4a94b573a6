from typing import Any

import pytest

from tests.contract.client import Client


def config_map(name: str, *, data: Any = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": data or {"a": "1"}}


async def test_create_answers_201_with_what_the_server_added(api: Client, path, namespace):
    answer = await api.post(path("configmaps"), config_map("one"))
    assert answer.status == 201
    metadata = answer.body["metadata"]
    assert (answer.body["kind"], answer.body["apiVersion"]) == ("ConfigMap", "v1")
    assert (metadata["name"], metadata["namespace"]) == ("one", namespace)
    assert len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["resourceVersion"].isdecimal()
    assert "generation" not in metadata


async def test_created_objects_read_back_the_same(api: Client, path):
    created = await api.post(path("configmaps"), config_map("one"))
    assert (await api.get(path("configmaps", "one"))).body == created.body


async def test_generate_name_appends_five_letters(api: Client, path):
    answer = await api.post(path("configmaps"), {"metadata": {"generateName": "g-"}})
    assert len(answer.body["metadata"]["name"]) == len("g-12345")


async def test_the_same_name_twice_is_already_exists(api: Client, path):
    await api.post(path("configmaps"), config_map("one"))
    answer = await api.post(path("configmaps"), config_map("one"))
    assert answer.status == 409
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "one" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "one", "kind": "configmaps"},
        "code": 409,
    }


async def test_what_does_not_exist_is_not_found(api: Client, path):
    for method, body in (("GET", None), ("PUT", config_map("none")), ("DELETE", None)):
        answer = await api.request(method, path("configmaps", "none"), body)
        assert (answer.status, answer.body["reason"]) == (404, "NotFound")
        assert answer.body["message"] == 'configmaps "none" not found'
        assert answer.body["details"] == {"name": "none", "kind": "configmaps"}


async def test_errors_about_a_named_group_name_it(api: Client, path):
    answer = await api.get(path("leases", "none"))
    assert answer.body["message"] == 'leases.coordination.k8s.io "none" not found'
    assert answer.body["details"] == {"name": "none", "group": "coordination.k8s.io", "kind": "leases"}


async def test_creating_in_a_missing_namespace_is_not_found_but_listing_is_empty(api: Client):
    answer = await api.post("/api/v1/namespaces/none/configmaps", config_map("one"))
    assert (answer.status, answer.body["message"]) == (404, 'namespaces "none" not found')
    assert (await api.get("/api/v1/namespaces/none/configmaps")).body["items"] == []


async def test_resources_that_are_not_served_are_not_found(api: Client):
    answer = await api.get("/api/v1/foos")
    assert (answer.status, answer.body["message"]) == (404, "the server could not find the requested resource")
    assert (await api.get("/apis/no.such.group/v1/foos")).status == 404


async def test_collections_of_all_namespaces_are_not_written_to(api: Client):
    assert (await api.post("/api/v1/configmaps", config_map("one"))).status == 405
    assert (await api.get("/api/v1/configmaps/one")).status == 404


async def test_bodies_that_do_not_fit_are_bad_requests(api: Client, path):
    for body in (
        b"{nope",
        {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}},
        {"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "x"}},
        config_map("x", namespace="other"),
        config_map("x", labels={"a": 1}),
    ):
        answer = await api.post(path("configmaps"), body)
        assert (answer.status, answer.body["reason"]) == (400, "BadRequest"), body


async def test_bodies_of_an_unknown_type_are_unsupported(api: Client, path):
    answer = await api.post(path("configmaps"), b"<a/>", media="application/xml")
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")


async def test_yaml_bodies_are_read(api: Client, path):
    answer = await api.post(path("configmaps"), b"metadata: {name: plain}\ndata: {a: b}", media="application/yaml")
    assert (answer.status, answer.body["data"]) == (201, {"a": "b"})


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "metadata.name"),
        ({"name": "A_B"}, "metadata.name"),
        ({"name": "x" * 254}, "metadata.name"),
        ({"name": "x", "labels": {"a": "b c"}}, "metadata.labels"),
        ({"name": "x", "labels": {"a": "x" * 64}}, "metadata.labels"),
        ({"name": "x", "labels": {"a b": ""}}, "metadata.labels"),
    ],
)
async def test_bad_names_and_labels_are_invalid_with_the_field_as_cause(api: Client, path, metadata, field):
    answer = await api.post(path("configmaps"), {"metadata": metadata})
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert field in {cause["field"] for cause in answer.body["details"]["causes"]}


async def test_creating_with_a_resource_version_is_refused(api: Client, path):
    assert (await api.post(path("configmaps"), config_map("one", resourceVersion="1"))).status == 500


async def test_a_dry_run_validates_and_stores_nothing(api: Client, path):
    assert (await api.post(path("configmaps"), config_map("one"), dryRun="All")).status == 201
    assert (await api.get(path("configmaps", "one"))).status == 404


async def test_resource_versions_grow_over_all_resources(api: Client, path):
    first = await api.post(path("configmaps"), config_map("one"))
    second = await api.post(path("secrets"), {"metadata": {"name": "two"}})
    listed = await api.get(path("configmaps"))
    assert int(first.revision) < int(second.revision) <= int(listed.revision)


async def test_put_replaces_with_the_current_resource_version(api: Client, path):
    created = await api.post(path("configmaps"), config_map("one"))
    answer = await api.put(path("configmaps", "one"), {**created.body, "data": {"b": "2"}})
    assert (answer.status, answer.body["data"]) == (200, {"b": "2"})
    assert answer.body["metadata"]["uid"] == created.body["metadata"]["uid"]
    assert int(answer.revision) > int(created.revision)


async def test_put_with_a_stale_resource_version_is_a_conflict(api: Client, path):
    created = await api.post(path("configmaps"), config_map("one"))
    await api.put(path("configmaps", "one"), {**created.body, "data": {"b": "2"}})
    answer = await api.put(path("configmaps", "one"), {**created.body, "data": {"b": "3"}})
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.body["message"] == (
        'Operation cannot be fulfilled on configmaps "one": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert answer.body["details"] == {"name": "one", "kind": "configmaps"}


async def test_put_without_a_resource_version_overwrites_a_config_map_but_not_a_lease(api: Client, path):
    await api.post(path("configmaps"), config_map("one"))
    assert (await api.put(path("configmaps", "one"), config_map("one", data={"b": "2"}))).status == 200
    await api.post(path("leases"), {"metadata": {"name": "one"}, "spec": {}})
    answer = await api.put(path("leases", "one"), {"metadata": {"name": "one"}, "spec": {"holderIdentity": "a"}})
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "metadata.resourceVersion"


async def test_put_of_the_same_content_is_no_write(api: Client, path):
    created = await api.post(path("configmaps"), config_map("one"))
    answer = await api.put(path("configmaps", "one"), config_map("one"))
    assert (answer.status, answer.revision) == (200, created.revision)


async def test_put_of_another_uid_or_name_is_refused(api: Client, path):
    await api.post(path("configmaps"), config_map("one"))
    assert (await api.put(path("configmaps", "one"), config_map("one", uid="other"))).status == 409
    assert (await api.put(path("configmaps", "one"), config_map("two"))).status == 400


async def test_clients_cannot_set_what_the_server_keeps(api: Client, path):
    stamp = "2001-01-01T00:00:00Z"
    sent = config_map("one", creationTimestamp=stamp, deletionTimestamp=stamp, generation=7)
    created = await api.post(path("configmaps"), sent)
    assert created.body["metadata"]["creationTimestamp"] != stamp
    assert "deletionTimestamp" not in created.body["metadata"]


async def test_bodies_and_answers_in_forms_nobody_speaks_are_not_acceptable(api: Client, path):
    answer = await api.get(path("configmaps"), accept="application/xml")
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")
