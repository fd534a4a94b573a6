import pytest

from tests.contract.client import APPLY_PATCH, JSON_PATCH, STRATEGIC_PATCH, Client
from tests.contract.conftest import crd, until_status, widget

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_a_definition_is_established_and_its_names_are_completed(api: Client, widgets):
    answer = await api.get(f"{CRDS}/widgets.contract.test")
    conditions = {c["type"]: c["status"] for c in answer.body["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert answer.body["spec"]["names"]["listKind"] == "WidgetList"
    assert answer.body["spec"]["names"]["singular"] == "widget"
    assert answer.body["status"]["storedVersions"] == ["v1"]


async def test_a_definition_is_named_after_plural_and_group(api: Client):
    answer = await api.post(CRDS, {**crd("widgets", "Widget"), "metadata": {"name": "other"}})
    assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "metadata.name")


async def test_a_definition_serves_until_it_is_deleted(api: Client, path):
    assert (await api.post(CRDS, crd("brieflies", "Briefly"))).status == 201
    collection = path("widgets").replace("widgets", "brieflies")
    await until_status(api, collection, 200)
    await api.delete(f"{CRDS}/brieflies.contract.test")
    await until_status(api, collection, 404)


async def test_unknown_fields_are_pruned_with_a_warning(api: Client, widgets):
    body = {**widget("a", extra=1, free={"any": {"thing": 1}, "n": 2}), "other": 1, "status": {"any": 1}}
    answer = await api.post(widgets, body)
    assert answer.status == 201
    assert answer.body["spec"] == {"name": "abc", "size": 3, "free": {"any": {"thing": 1}, "n": 2}}
    assert answer.body["status"] == {"any": 1}
    assert "other" not in answer.body
    warnings = answer.headers.getall("Warning")
    assert sorted(warnings) == [r'299 - "unknown field \"other\""', r'299 - "unknown field \"spec.extra\""']


async def test_unknown_fields_are_refused_under_strict_validation(api: Client, widgets):
    answer = await api.post(widgets, widget("a", extra=1), fieldValidation="Strict")
    assert answer.status == 400
    assert 'strict decoding error: unknown field "spec.extra"' in answer.body["message"]


async def test_defaults_are_filled_in_and_forbidden_nulls_dropped(api: Client, widgets):
    answer = await api.post(widgets, widget("a", size=None, flag=None, label=None))
    assert answer.body["spec"] == {"name": "abc", "size": 3, "label": None}


AT_LEAST_0 = "in body should be greater than or equal to 0"


def must_be(wanted: str, found: str) -> str:
    return f'Invalid value: "{found}": {{}} in body must be of type {wanted}: "{found}"'


@pytest.mark.parametrize(
    ("spec", "field", "cause"),
    [
        ({"size": "x"}, "spec.size", ("TypeInvalid", must_be("integer", "string"))),
        ({"size": -1}, "spec.size", ("Invalid", "Invalid value: -1: {} " + AT_LEAST_0)),
        ({"size": 11}, "spec.size", ("Invalid", "Invalid value: 11: {} in body should be less than or equal to 10")),
        ({"mode": "c"}, "spec.mode", ("NotSupported", 'Unsupported value: "c": supported values: "a", "b"')),
        ({"name": "ABC"}, "spec.name", ("Invalid", "Invalid value: \"ABC\": {} in body should match '^[a-z]+$'")),
        ({"name": "a"}, "spec.name", ("Invalid", 'Invalid value: "a": {} in body should be at least 2 chars long')),
        ({"name": "abcdef"}, "spec.name", ("TooLong", "Too long: may not be more than 5 bytes")),
        ({"name": None}, "spec.name", ("Required", "Required value")),
        ({"label": 5}, "spec.label", ("TypeInvalid", must_be("string", "integer"))),
        ({"list": ["a", "b", "c"]}, "spec.list", ("TooMany", "Too many: 3: must have at most 2 items")),
        ({"list": [1]}, "spec.list[0]", ("TypeInvalid", must_be("string", "integer"))),
        ({"flag": "true"}, "spec.flag", ("TypeInvalid", must_be("boolean", "string"))),
        ({"map": {"k": 1}}, "spec.map.k", ("TypeInvalid", must_be("string", "integer"))),
        ({"port": 1.5}, "spec.port", ("TypeInvalid", must_be("integer,string", "number"))),
        ({"free": {"n": "x"}}, "spec.free.n", ("TypeInvalid", must_be("integer", "string"))),
    ],
)  # fmt: skip
async def test_values_outside_the_schema_are_invalid(api: Client, widgets, spec, field, cause):
    reason, message = cause[0], cause[1].format(field)
    answer = await api.post(widgets, widget("a", **spec))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["causes"] == [{"reason": f"FieldValue{reason}", "message": message, "field": field}]
    assert answer.body["message"] == f'Widget.contract.test "a" is invalid: {field}: {message}'


async def test_values_within_the_schema_are_taken(api: Client, widgets):
    spec = {"size": 2.0, "mode": "b", "port": "http", "map": {"k": "v"}, "list": []}
    answer = await api.post(widgets, widget("a", **spec))
    assert (answer.status, answer.body["spec"]) == (201, {"name": "abc", **spec, "size": 2})


async def test_without_its_required_part_an_object_is_invalid(api: Client, widgets):
    body = {key: value for key, value in widget("a").items() if key != "spec"}
    answer = await api.post(widgets, body)
    assert answer.body["details"]["causes"] == [
        {"reason": "FieldValueRequired", "message": "Required value", "field": "spec"}
    ]


async def test_kind_and_version_must_be_named(api: Client, widgets):
    assert (await api.post(widgets, {"metadata": {"name": "a"}, "spec": {"name": "abc"}})).status == 400
    assert (await api.post(widgets, {**widget("a"), "apiVersion": "contract.test/v2"})).status == 400


async def test_patches_are_validated_as_well(api: Client, widgets):
    await api.post(widgets, widget("a"))
    assert (await api.patch(f"{widgets}/a", {"spec": {"size": "x"}})).status == 422
    assert (await api.patch(f"{widgets}/a", {"spec": {"extra": 1}})).body["spec"] == {"name": "abc", "size": 3}


async def test_custom_kinds_take_no_strategic_merge(api: Client, widgets):
    await api.post(widgets, widget("a"))
    answer = await api.patch(f"{widgets}/a", {}, STRATEGIC_PATCH)
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in answer.body["message"]


async def test_a_custom_object_is_replaced_only_with_its_resource_version(api: Client, widgets):
    created = await api.post(widgets, widget("a"))
    assert (await api.put(f"{widgets}/a", widget("a"))).status == 422
    assert (await api.put(f"{widgets}/a", {**created.body, "spec": {"name": "xyz"}})).status == 200


async def test_without_a_status_subresource_status_is_written_through_the_object(api: Client, widgets):
    created = await api.post(widgets, {**widget("a"), "status": {"status": "Created"}})
    operation = {"op": "replace", "path": "/status/status", "value": "Assigned"}
    answer = await api.patch(f"{widgets}/a", [operation], JSON_PATCH)
    assert (answer.status, answer.body["status"]) == (200, {"status": "Assigned"})
    assert answer.body["metadata"]["generation"] == created.body["metadata"]["generation"] + 1
    assert (await api.patch(f"{widgets}/a/status", {"status": {}})).status == 404


async def test_a_patch_below_a_missing_status_does_not_fit(api: Client, widgets):
    await api.post(widgets, widget("a"))
    operation = {"op": "replace", "path": "/status/status", "value": "Assigned"}
    assert (await api.patch(f"{widgets}/a", [operation], JSON_PATCH)).status == 422


async def test_generations_count_changes_outside_metadata(api: Client, widgets):
    name = f"{widgets}/a"
    created = await api.post(widgets, widget("a"))
    labelled = await api.patch(name, {"metadata": {"labels": {"a": "b"}}})
    resized = await api.patch(name, {"spec": {"size": 4}})
    again = await api.patch(name, {"spec": {"size": 4}})
    found = [answer.body["metadata"]["generation"] for answer in (created, labelled, resized, again)]
    assert found == [1, 1, 2, 2]


async def test_a_deletion_held_by_a_finalizer_counts_as_a_generation(api: Client, widgets):
    body = widget("a")
    body["metadata"]["finalizers"] = ["contract.test/hold"]
    await api.post(widgets, body)
    assert (await api.delete(f"{widgets}/a")).body["metadata"]["generation"] == 2
    await api.patch(f"{widgets}/a", {"metadata": {"finalizers": None}})


async def test_with_a_status_subresource_each_side_ignores_the_other(api: Client, gauges):
    gauge = {**widget("a"), "kind": "Gauge", "status": {"x": 1}}
    created = await api.post(gauges, gauge)
    assert "status" not in created.body
    main = await api.patch(f"{gauges}/a", {"status": {"x": 2}})
    assert (main.revision, "status" in main.body) == (created.revision, False)
    change = {"status": {"x": 3}, "spec": {"size": 9}, "metadata": {"labels": {"a": "b"}}}
    written = await api.patch(f"{gauges}/a/status", change)
    assert (written.status, written.body["status"], written.body["spec"]["size"]) == (200, {"x": 3}, 3)
    assert "labels" not in written.body["metadata"]
    assert written.body["metadata"]["generation"] == 1
    replaced = await api.put(f"{gauges}/a", {**written.body, "status": {"x": 9}, "spec": {"name": "xyz"}})
    assert (replaced.body["status"], replaced.body["metadata"]["generation"]) == ({"x": 3}, 2)


async def test_custom_objects_are_applied(api: Client, widgets):
    first = await api.patch(f"{widgets}/a", widget("a"), APPLY_PATCH, fieldManager="test")
    second = await api.patch(f"{widgets}/a", widget("a", size=9), APPLY_PATCH, fieldManager="test")
    assert (first.status, second.status, second.body["spec"]["size"]) == (201, 200, 9)


async def test_tables_show_the_printer_columns(api: Client, widgets):
    await api.post(widgets, widget("a", size=7))
    answer = await api.get(widgets, accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
    assert (answer.body["kind"], answer.body["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in answer.body["columnDefinitions"]] == ["Name", "Size"]
    [row] = answer.body["rows"]
    assert row["cells"] == ["a", 7]
    assert row["object"]["kind"] == "PartialObjectMetadata"
