from tests.contract.client import Client, Endpoint


async def test_history_that_is_forgotten_answers_410_everywhere(server: Endpoint, api: Client, path):
    collection = path("configmaps")
    for name in ("a", "b", "c"):
        created = await api.post(collection, {"metadata": {"name": name}})
    page = await api.get(collection, limit=1)
    old = created.revision
    await api.delete(path("configmaps", "c"))
    await api.post(path("secrets"), {"metadata": {"name": "moves-the-revision"}})
    await server.forget_history()

    async with api.watch(collection, resourceVersion=old) as stream:
        assert stream.status == 200
        [event] = await stream.rest()
    assert event["type"] == "ERROR"
    assert (event["object"]["kind"], event["object"]["code"], event["object"]["reason"]) == ("Status", 410, "Expired")
    assert event["object"]["message"].startswith(f"too old resource version: {old} (")

    exact = await api.get(collection, resourceVersion=old, resourceVersionMatch="Exact")
    assert (exact.status, exact.body["reason"]) == (410, "Expired")

    assert (await api.get(collection, resourceVersion=old)).names == ["a", "b"]

    late = await api.get(collection, limit=1, **{"continue": page.body["metadata"]["continue"]})
    assert (late.status, late.body["reason"]) == (410, "Expired")
    rest = await api.get(collection, **{"continue": late.body["metadata"]["continue"]})
    assert rest.names == ["b"]
