import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.emulator.kubernetes.errors import ApiError
from podidentity.emulator.kubernetes.patches import json_patch, merge_patch, strategic_merge

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3)


@given(json_objects, json_objects)
def test_a_merge_patch_applied_twice_is_applied_once(target, patch):
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(json_objects, json_objects)
def test_patches_leave_their_input_alone(target, patch):
    before = copy.deepcopy((target, patch))
    merge_patch(target, patch)
    strategic_merge(target, patch)
    json_patch(target, [{"op": "add", "path": "/a", "value": patch}, {"op": "remove", "path": "/a"}])
    assert (target, patch) == before


@given(json_objects)
def test_an_empty_patch_changes_nothing(target):
    assert merge_patch(target, {}) == strategic_merge(target, {}) == json_patch(target, []) == target


# The examples of RFC 6902, appendix A.
@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [
        ({"foo": ["bar", "baz"]}, {"op": "add", "path": "/foo/1", "value": "qux"}, {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["bar", "qux"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["bar"]}),
        ({"foo": ["a", "b"]}, {"op": "move", "from": "/foo/0", "path": "/foo/1"}, {"foo": ["b", "a"]}),
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/-", "value": ["x"]}, {"foo": ["bar", ["x"]]}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/1", "value": 3}, {"a": [1, 3]}),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
    ],
)
def test_json_patch_does_as_the_rfc_says(document, operation, result):
    assert json_patch(document, [operation]) == result


@pytest.mark.parametrize("path", ["/a/5", "/a/x", "a", "/b/c"])
def test_json_patch_refuses_positions_that_are_not_there(path):
    with pytest.raises(ApiError) as caught:
        json_patch({"a": [1]}, [{"op": "add", "path": path, "value": 1}])
    assert caught.value.code == 422


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"env": [{"name": "a", "value": "1"}]}, {"env": [{"name": "b"}]}, ["a", "b"]),
        ({"env": [{"name": "a"}, {"name": "b"}]}, {"env": [{"name": "a", "$patch": "delete"}]}, ["b"]),
        ({"env": [{"name": "a"}]}, {"env": [{"$patch": "replace"}, {"name": "c"}]}, ["c"]),
    ],
)
def test_strategic_merge_matches_by_key(target: Any, patch: Any, result: list[str]):
    assert [entry["name"] for entry in strategic_merge(target, patch)["env"]] == result


def test_strategic_merge_obeys_directives():
    target = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    patch = {"a": {"$patch": "replace", "n": 2}, "b": {"$patch": "delete"}, "c": {"$retainKeys": ["w"], "w": 3}}
    assert strategic_merge(target, patch) == {"a": {"n": 2}, "c": {"w": 3}}
