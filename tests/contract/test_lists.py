import base64
import json

import pytest

from tests.contract.client import Client


async def fill(api: Client, collection: str, *names: str) -> str:
    """Create objects; return the resource version of the last."""
    revision = ""
    for name in names:
        labels = {"name": name, "tier": "x" if name < "c" else "y"}
        revision = (await api.post(collection, {"metadata": {"name": name, "labels": labels}})).revision
    return revision


async def test_lists_come_in_the_order_of_names(api: Client, path):
    await fill(api, path("configmaps"), "c", "a", "b")
    answer = await api.get(path("configmaps"))
    assert (answer.body["kind"], answer.names) == ("ConfigMapList", ["a", "b", "c"])


async def test_items_of_built_in_kinds_carry_no_kind(api: Client, path):
    await fill(api, path("configmaps"), "a")
    item = (await api.get(path("configmaps"))).body["items"][0]
    assert "kind" not in item
    assert "apiVersion" not in item


async def test_items_of_custom_kinds_carry_their_kind(api: Client, widgets):
    body = {"apiVersion": "contract.test/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"name": "abc"}}
    await api.post(widgets, body)
    item = (await api.get(widgets)).body["items"][0]
    assert (item["kind"], item["apiVersion"]) == ("Widget", "contract.test/v1")


async def test_pages_show_one_snapshot_whatever_happens_in_between(api: Client, path):
    await fill(api, path("configmaps"), "a", "b", "c", "d", "e")
    first = await api.get(path("configmaps"), limit=2)
    assert first.names == ["a", "b"]
    assert first.body["metadata"]["remainingItemCount"] == 3
    await api.delete(path("configmaps", "c"))
    await fill(api, path("configmaps"), "bb")
    second = await api.get(path("configmaps"), limit=2, **{"continue": first.body["metadata"]["continue"]})
    third = await api.get(path("configmaps"), limit=2, **{"continue": second.body["metadata"]["continue"]})
    assert (second.names, third.names) == (["c", "d"], ["e"])
    assert first.revision == second.revision == third.revision
    assert "continue" not in third.body["metadata"]


async def test_continue_tokens_name_revision_and_last_key(api: Client, path):
    await fill(api, path("configmaps"), "a", "b")
    page = await api.get(path("configmaps"), limit=1)
    token = page.body["metadata"]["continue"]
    decoded = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    assert decoded == {"v": "meta.k8s.io/v1", "rv": int(page.revision), "start": "/a\0"}


async def test_pages_with_a_selector_do_not_say_how_many_remain(api: Client, path):
    await fill(api, path("configmaps"), "a", "b", "c", "d")
    page = await api.get(path("configmaps"), limit=1, labelSelector="tier=x")
    assert page.names == ["a"]
    assert "remainingItemCount" not in page.body["metadata"]
    rest = await api.get(
        path("configmaps"), labelSelector="tier=x", **{"continue": page.body["metadata"]["continue"]}
    )
    assert rest.names == ["b"]


async def test_resource_version_zero_ignores_the_limit(api: Client, path):
    await fill(api, path("configmaps"), "a", "b")
    answer = await api.get(path("configmaps"), resourceVersion=0, limit=1)
    assert "continue" not in answer.body["metadata"]


async def test_a_bare_resource_version_is_a_lower_bound_without_and_an_exact_snapshot_with_a_limit(api: Client, path):
    revision = await fill(api, path("configmaps"), "a")
    await fill(api, path("configmaps"), "b")
    assert (await api.get(path("configmaps"), resourceVersion=revision)).names == ["a", "b"]
    exact = await api.get(path("configmaps"), resourceVersion=revision, limit=500)
    assert (exact.names, exact.revision) == (["a"], revision)


async def test_resource_version_match_says_which(api: Client, path):
    revision = await fill(api, path("configmaps"), "a")
    await fill(api, path("configmaps"), "b")

    async def matched(how: str):
        return await api.get(path("configmaps"), resourceVersion=revision, resourceVersionMatch=how, limit=500)

    assert (await matched("NotOlderThan")).names == ["a", "b"]
    assert (await matched("Exact")).names == ["a"]


async def test_snapshots_show_deleted_objects_and_old_content(api: Client, path):
    await fill(api, path("configmaps"), "a", "b")
    changed = await api.patch(path("configmaps", "a"), {"data": {"k": "old"}})
    await api.patch(path("configmaps", "a"), {"data": {"k": "new"}})
    await api.delete(path("configmaps", "b"))
    answer = await api.get(path("configmaps"), resourceVersion=changed.revision, resourceVersionMatch="Exact")
    assert answer.names == ["a", "b"]
    assert answer.body["items"][0]["data"] == {"k": "old"}


@pytest.mark.parametrize("extra", [{}, {"resourceVersionMatch": "NotOlderThan"}])
async def test_a_resource_version_still_to_come_times_out_with_its_own_cause(api: Client, path, extra):
    answer = await api.get(path("configmaps"), resourceVersion=99999999, **extra)
    assert (answer.status, answer.body["reason"]) == (504, "Timeout")
    assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert answer.body["details"]["retryAfterSeconds"] == 1
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"resourceVersion": "x"}, 400),
        ({"limit": "x"}, 400),
        ({"continue": "abc"}, 400),
        ({"labelSelector": "a b"}, 400),
        ({"labelSelector": "a in ("}, 400),
        ({"fieldSelector": "spec.nope=1"}, 400),
        ({"fieldSelector": "metadata.name"}, 400),
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422),
        ({"resourceVersionMatch": "Nope", "resourceVersion": "1"}, 422),
        ({"sendInitialEvents": "true"}, 422),
        ({"watch": "1", "sendInitialEvents": "true"}, 422),
    ],
)
async def test_queries_that_make_no_sense_are_refused(api: Client, path, query, status):
    assert (await api.get(path("configmaps"), **query)).status == status


async def test_continue_excludes_a_resource_version(api: Client, path):
    await fill(api, path("configmaps"), "a", "b")
    token = (await api.get(path("configmaps"), limit=1)).body["metadata"]["continue"]
    assert (await api.get(path("configmaps"), resourceVersion=1, **{"continue": token})).status == 400


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("name=a", ["a"]),
        ("name==a", ["a"]),
        ("name!=a", ["b", "c"]),
        ("name in (a, c)", ["a", "c"]),
        ("name notin (a,c)", ["b"]),
        ("tier=x,name!=a", ["b"]),
        ("tier", ["a", "b", "c"]),
        ("!tier", []),
        ("missing!=a", ["a", "b", "c"]),
        ("missing notin (a)", ["a", "b", "c"]),
        ("name=", []),
    ],
)
async def test_label_selectors(api: Client, path, selector, names):
    await fill(api, path("configmaps"), "a", "b", "c")
    assert (await api.get(path("configmaps"), labelSelector=selector)).names == names


async def test_field_selectors_on_names(api: Client, path, namespace):
    await fill(api, path("configmaps"), "a", "b")
    assert (await api.get(path("configmaps"), fieldSelector="metadata.name=a")).names == ["a"]
    assert (await api.get(path("configmaps"), fieldSelector="metadata.name!=a")).names == ["b"]
    everywhere = f"metadata.namespace={namespace},metadata.name=b"
    assert (await api.get("/api/v1/configmaps", fieldSelector=everywhere)).names == ["b"]


async def test_pods_are_selected_by_node_and_phase(api: Client, path):
    for name, node in (("a", "node-1"), ("b", "node-2"), ("c", None)):
        spec = {"containers": [{"name": "c", "image": "i"}]} | ({"nodeName": node} if node else {})
        await api.post(path("pods"), {"metadata": {"name": name}, "spec": spec})
    assert (await api.get(path("pods"), fieldSelector="spec.nodeName=node-1")).names == ["a"]
    assert (await api.get(path("pods"), fieldSelector="spec.nodeName=")).names == ["c"]
    assert (await api.get(path("pods"), fieldSelector="spec.nodeName!=node-1,status.phase=Pending")).names == [
        "b",
        "c",
    ]


async def test_lists_over_all_namespaces_hold_them_all(api: Client, path, namespace):
    await fill(api, path("configmaps"), "a")
    found = [
        i for i in (await api.get("/api/v1/configmaps")).body["items"] if i["metadata"]["namespace"] == namespace
    ]
    assert [item["metadata"]["name"] for item in found] == ["a"]
