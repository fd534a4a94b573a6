import asyncio
from typing import Any

import pytest

from tests.contract.client import Client, summary

END_OF_INITIAL = {"k8s.io/initial-events-end": "true"}


def labelled(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


async def now(api: Client, collection: str) -> str:
    return (await api.get(collection)).revision


async def test_a_watch_tells_what_happens_after_its_resource_version(api: Client, path):
    collection = path("configmaps")
    await api.post(collection, labelled("before"))
    async with api.watch(collection, resourceVersion=await now(api, collection)) as stream:
        created = await api.post(collection, labelled("a"))
        changed = await api.patch(path("configmaps", "a"), {"data": {"k": "v"}})
        await api.delete(path("configmaps", "a"))
        events = await stream.take(3)
    assert summary(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert [event["object"] for event in events[:2]] == [created.body, changed.body]


async def test_a_deleted_event_carries_the_last_state_with_the_revision_of_the_deletion(api: Client, path):
    collection = path("configmaps")
    created = await api.post(collection, {**labelled("a"), "data": {"k": "v"}})
    async with api.watch(collection, resourceVersion=created.revision) as stream:
        await api.delete(path("configmaps", "a"))
        [event] = await stream.take(1)
    assert event["object"]["data"] == {"k": "v"}
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(created.revision)


async def test_a_watch_can_begin_in_the_past(api: Client, path):
    collection = path("configmaps")
    revision = await now(api, collection)
    await api.post(collection, labelled("a"))
    await api.delete(path("configmaps", "a"))
    await api.post(collection, labelled("b"))
    async with api.watch(collection, resourceVersion=revision) as stream:
        assert summary(await stream.take(3)) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b")]


@pytest.mark.parametrize("query", [{}, {"resourceVersion": 0}])
async def test_without_a_resource_version_a_watch_begins_with_what_is_there(api: Client, path, query):
    collection = path("configmaps")
    await api.post(collection, labelled("b"))
    await api.post(collection, labelled("a"))
    async with api.watch(collection, **query) as stream:
        assert sorted(summary(await stream.take(2))) == [("ADDED", "a"), ("ADDED", "b")]
        await api.post(collection, labelled("c"))
        assert summary(await stream.take(1)) == [("ADDED", "c")]


@pytest.mark.parametrize(
    "query", [{}, {"resourceVersion": 0}, {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}]
)
async def test_with_bookmarks_the_end_of_the_initial_events_is_marked(api: Client, path, query):
    collection = path("configmaps")
    created = await api.post(collection, labelled("a"))
    async with api.watch(collection, allowWatchBookmarks="true", **query) as stream:
        added, mark = await stream.take(2)
    assert (added["type"], mark["type"]) == ("ADDED", "BOOKMARK")
    assert (mark["object"]["kind"], mark["object"]["apiVersion"]) == ("ConfigMap", "v1")
    assert mark["object"]["metadata"]["annotations"] == END_OF_INITIAL
    assert int(mark["object"]["metadata"]["resourceVersion"]) >= int(created.revision)


async def test_without_initial_events_a_watch_begins_now(api: Client, path):
    collection = path("configmaps")
    await api.post(collection, labelled("a"))
    query = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    async with api.watch(collection, **query) as stream:
        await api.post(collection, labelled("b"))
        assert summary(await stream.take(1)) == [("ADDED", "b")]


async def test_a_watch_ends_cleanly_when_its_time_is_up(api: Client, path):
    begin = asyncio.get_running_loop().time()
    async with api.watch(path("configmaps"), timeoutSeconds=1) as stream:
        assert await stream.rest() == []
    assert 0.9 < asyncio.get_running_loop().time() - begin < 5


async def test_shortly_before_the_end_a_bookmark_tells_how_far_the_watch_came(api: Client, path):
    collection = path("configmaps")
    query = {"resourceVersion": await now(api, collection), "allowWatchBookmarks": "true", "timeoutSeconds": 4}
    async with api.watch(collection, **query) as stream:
        created = await api.post(collection, labelled("a"))
        events = await stream.rest()
    added, *bookmarks = events
    assert added["type"] == "ADDED"
    assert {event["type"] for event in bookmarks} == {"BOOKMARK"}
    assert int(bookmarks[-1]["object"]["metadata"]["resourceVersion"]) >= int(created.revision)
    assert "name" not in bookmarks[-1]["object"]["metadata"]


async def test_a_quiet_watch_gets_no_bookmark(api: Client, path):
    collection = path("leases")
    query = {"resourceVersion": await now(api, collection), "allowWatchBookmarks": "true", "timeoutSeconds": 3}
    async with api.watch(collection, **query) as stream:
        assert await stream.rest() == []


async def test_a_watch_from_the_future_is_quiet_until_then(api: Client, path):
    async with api.watch(path("configmaps"), resourceVersion=99999999, timeoutSeconds=1) as stream:
        await api.post(path("configmaps"), labelled("a"))
        assert (stream.status, await stream.rest()) == (200, [])


async def test_entering_and_leaving_a_label_selector_is_added_and_deleted(api: Client, path):
    collection = path("configmaps")
    query = {"resourceVersion": await now(api, collection), "labelSelector": "team=x"}
    async with api.watch(collection, **query) as stream:
        await api.post(collection, labelled("a", team="y"))
        await api.patch(path("configmaps", "a"), {"metadata": {"labels": {"team": "x"}}})
        await api.patch(path("configmaps", "a"), {"data": {"k": "v"}})
        left = await api.patch(path("configmaps", "a"), {"metadata": {"labels": {"team": "z"}}})
        await api.delete(path("configmaps", "a"))
        await api.post(collection, labelled("b", team="x"))
        events = await stream.take(4)
    assert summary(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]
    gone = events[2]["object"]["metadata"]
    assert (gone["labels"]["team"], gone["resourceVersion"]) == ("x", left.revision)


async def test_field_selectors_hold_for_watches(api: Client, path):
    collection = path("pods")
    query = {"resourceVersion": await now(api, collection), "fieldSelector": "spec.nodeName=node-1"}
    async with api.watch(collection, **query) as stream:
        for name, node in (("a", "node-2"), ("b", "node-1")):
            spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
            await api.post(collection, {"metadata": {"name": name}, "spec": spec})
        assert summary(await stream.take(1)) == [("ADDED", "b")]


async def test_writes_that_change_nothing_make_no_event(api: Client, path):
    collection = path("configmaps")
    created = await api.post(collection, labelled("a", team="x"))
    async with api.watch(collection, resourceVersion=created.revision) as stream:
        await api.patch(path("configmaps", "a"), {"metadata": {"labels": {"team": "x"}}})
        await api.post(collection, labelled("b"))
        assert summary(await stream.take(1)) == [("ADDED", "b")]


async def test_watches_of_a_namespace_hear_only_of_it(api: Client, path):
    collection = path("configmaps")
    async with api.watch(collection, resourceVersion=await now(api, collection)) as stream:
        elsewhere = await api.post("/api/v1/namespaces/default/configmaps", {"metadata": {"generateName": "x-"}})
        await api.post(collection, labelled("a"))
        assert summary(await stream.take(1)) == [("ADDED", "a")]
    await api.delete(f"/api/v1/namespaces/default/configmaps/{elsewhere.body['metadata']['name']}")


async def test_an_object_deleted_and_made_again_has_another_uid(api: Client, path):
    collection = path("configmaps")
    first = await api.post(collection, labelled("a"))
    async with api.watch(collection, resourceVersion=first.revision) as stream:
        await api.delete(path("configmaps", "a"))
        await api.post(collection, labelled("a"))
        deleted, added = await stream.take(2)
    assert deleted["object"]["metadata"]["uid"] != added["object"]["metadata"]["uid"]
