import pytest

from podidentity.api.meta import Key
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import Conflict, MalformedAnswer, NotFound
from podidentity.kube.resources import CONFIG_MAPS, NODES
from tests.kube.cluster import put

A = Key("default", "a")


@pytest.fixture
def client(transport) -> KubeClient:
    return KubeClient(transport)


async def test_an_object_is_created_read_patched_replaced_and_deleted(client):
    created = await client.create(CONFIG_MAPS, "default", {"metadata": {"name": "a"}, "data": {"k": "1", "l": "1"}})
    assert await client.get(CONFIG_MAPS, A) == created
    patched = await client.patch(CONFIG_MAPS, A, {"data": {"k": "2", "l": None}})
    assert patched["data"] == {"k": "2"}
    replaced = await client.replace(CONFIG_MAPS, A, patched | {"data": {"k": "3"}})
    assert replaced["data"] == {"k": "3"}
    await client.delete(CONFIG_MAPS, A, uid=created["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, A)


async def test_a_list_takes_selectors(client, state):
    put(state, "a", color="red")
    put(state, "b", color="blue")
    found = await client.list(CONFIG_MAPS, "default", query={"labelSelector": "color=blue"})
    assert [item["metadata"]["name"] for item in found["items"]] == ["b"]
    assert len((await client.list(CONFIG_MAPS))["items"]) == 2


async def test_a_replacement_of_what_somebody_else_has_changed_is_a_conflict(client, state):
    put(state, "a")
    mine = await client.get(CONFIG_MAPS, A)
    put(state, "a", k="theirs")
    with pytest.raises(Conflict):
        await client.replace(CONFIG_MAPS, A, mine | {"data": {"k": "mine"}})


async def test_the_same_name_twice_is_a_conflict(client, state):
    put(state, "a")
    with pytest.raises(Conflict) as raised:
        await client.create(CONFIG_MAPS, "default", {"metadata": {"name": "a"}})
    assert raised.value.reason == "AlreadyExists"


async def test_a_deletion_does_not_hit_the_successor_of_the_same_name(client, state):
    put(state, "a")
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, A, uid="of-its-predecessor")
    assert await client.get(CONFIG_MAPS, A)


@pytest.mark.parametrize(
    "key",
    [
        Key("default", ""),
        Key("default", ".."),
        Key("default", "../other"),
        Key("default", "a/status"),
        Key("default", "a?b"),
        Key("default", "%2e%2e"),
        Key("default", "a\n"),
        Key("..", "a"),
        Key("", "a"),
    ],
)
async def test_a_name_that_is_a_path_reaches_nothing(client, state, key):
    put(state, "a")
    for call in (
        client.get(CONFIG_MAPS, key),
        client.patch(CONFIG_MAPS, key, {}),
        client.replace(CONFIG_MAPS, key, {}),
        client.delete(CONFIG_MAPS, key, uid=""),
    ):
        with pytest.raises(NotFound, match="no configmaps can have the name"):
            await call
    assert len((await client.list(CONFIG_MAPS))["items"]) == 1


async def test_an_object_without_a_namespace_is_addressed_by_its_name(client):
    await client.create(NODES, "", {"metadata": {"name": "node-a"}})
    assert (await client.get(NODES, Key("", "node-a")))["metadata"]["name"] == "node-a"


async def test_an_answer_that_is_no_json_says_so():
    async def proxy(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>welcome</html>"})

    with pytest.raises(MalformedAnswer, match="GET /api/v1/namespaces/default/configmaps/a was answered with"):
        await KubeClient(InProcessTransport(proxy)).get(CONFIG_MAPS, A)
