import asyncio

from podidentity.emulator.kubernetes import ClusterState
from tests.contract.client import Client

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


async def test_bookmarks_come_at_the_interval_of_the_settings(state: ClusterState, api: Client):
    async with api.watch(LEASES, resourceVersion=state.revision, allowWatchBookmarks="true") as stream:
        begin = asyncio.get_running_loop().time()
        await api.post("/api/v1/nodes", {"metadata": {"name": "moves-the-revision"}})
        events = await stream.take(2)
        assert asyncio.get_running_loop().time() - begin < 5
    assert [event["type"] for event in events] == ["BOOKMARK", "BOOKMARK"]
    assert events[1]["object"] == {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"resourceVersion": str(state.revision)},
    }


async def test_a_bookmark_is_never_ahead_of_an_event(state: ClusterState, api: Client):
    async with api.watch(LEASES, resourceVersion=state.revision, allowWatchBookmarks="true") as stream:
        for number in range(20):
            await api.post(LEASES, {"metadata": {"name": f"l{number}"}, "spec": {}})
            await asyncio.sleep(0.01)
        state.faults.end_streams()
        events = await stream.rest()
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert revisions == sorted(revisions)
    assert sum(event["type"] == "ADDED" for event in events) == 20


async def test_watched_tables_name_their_columns_once(api: Client, session):
    for name in "ab":
        await api.post(LEASES, {"metadata": {"name": name}, "spec": {}})
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    async with session.get(LEASES, params={"watch": "1"}, headers=headers) as answer:
        first, second = [await answer.content.readline() for _ in range(2)]
    assert b'"columnDefinitions":[{' in first
    assert b'"columnDefinitions":null' in second
