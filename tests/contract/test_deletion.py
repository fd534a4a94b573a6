from tests.contract.client import Client, summary

FINALIZER = "contract.test/hold"


async def test_deleting_answers_a_status_that_names_the_object(api: Client, path):
    created = await api.post(path("configmaps"), {"metadata": {"name": "a"}})
    answer = await api.delete(path("configmaps", "a"))
    assert answer.status == 200
    details = {"name": "a", "kind": "configmaps", "uid": created.body["metadata"]["uid"]}
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }


async def test_preconditions_that_do_not_hold_are_conflicts(api: Client, path):
    created = await api.post(path("configmaps"), {"metadata": {"name": "a"}})
    for wanted in ({"uid": "other"}, {"resourceVersion": "1"}):
        answer = await api.delete(path("configmaps", "a"), {"preconditions": wanted})
        assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    holds = {"uid": created.body["metadata"]["uid"], "resourceVersion": created.revision}
    assert (await api.delete(path("configmaps", "a"), {"preconditions": holds})).status == 200


async def test_a_finalizer_holds_an_object_until_it_is_removed(api: Client, path):
    collection, name = path("configmaps"), path("configmaps", "a")
    created = await api.post(collection, {"metadata": {"name": "a", "finalizers": [FINALIZER]}})
    async with api.watch(collection, resourceVersion=created.revision) as stream:
        marked = await api.delete(name)
        assert marked.body["metadata"]["deletionTimestamp"]
        assert marked.body["metadata"]["deletionGracePeriodSeconds"] == 0
        again = await api.delete(name)
        assert again.revision == marked.revision
        changed = await api.patch(name, {"data": {"k": "v"}})
        assert changed.status == 200
        gone = await api.patch(name, {"metadata": {"finalizers": None}})
        assert gone.status == 200
        events = await stream.take(3)
    assert summary(events) == [("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert (await api.get(name)).status == 404


async def test_nothing_brings_back_what_is_being_deleted(api: Client, path):
    name = path("configmaps", "a")
    await api.post(path("configmaps"), {"metadata": {"name": "a", "finalizers": [FINALIZER]}})
    marked = await api.delete(name)
    kept = await api.patch(name, {"metadata": {"deletionTimestamp": None}})
    assert (kept.status, kept.revision) == (200, marked.revision)
    more = await api.patch(name, {"metadata": {"finalizers": [FINALIZER, "contract.test/late"]}})
    assert more.status == 422
    assert more.body["details"]["causes"][0]["field"] == "metadata.finalizers"
    twice = await api.post(path("configmaps"), {"metadata": {"name": "a"}})
    assert (twice.status, twice.body["reason"]) == (409, "AlreadyExists")
    await api.patch(name, {"metadata": {"finalizers": []}})
    assert (await api.post(path("configmaps"), {"metadata": {"name": "a"}})).status == 201


async def test_deleting_a_collection_takes_what_the_selector_takes(api: Client, path):
    for name, team in (("a", "x"), ("b", "y"), ("c", "x")):
        await api.post(path("configmaps"), {"metadata": {"name": name, "labels": {"team": team}}})
    answer = await api.delete(path("configmaps"), labelSelector="team=x")
    assert (answer.status, sorted(answer.names)) == (200, ["a", "c"])
    assert (await api.get(path("configmaps"))).names == ["b"]


async def test_a_dry_run_deletes_nothing(api: Client, path):
    await api.post(path("configmaps"), {"metadata": {"name": "a"}})
    assert (await api.delete(path("configmaps", "a"), dryRun="All")).status == 200
    assert (await api.get(path("configmaps", "a"))).status == 200


async def test_pods_without_a_node_and_pods_without_grace_go_at_once(api: Client, path):
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.post(path("pods"), {"metadata": {"name": "a"}, "spec": spec})
    await api.post(path("pods"), {"metadata": {"name": "b"}, "spec": {**spec, "nodeName": "n"}})
    before = await api.get(path("pods"))
    async with api.watch(path("pods"), resourceVersion=before.revision) as stream:
        first = await api.delete(path("pods", "a"))
        assert first.body["kind"] == "Pod"
        await api.delete(path("pods", "b"), gracePeriodSeconds=0)
        events = await stream.take(4)
    assert summary(events) == [("MODIFIED", "a"), ("DELETED", "a"), ("MODIFIED", "b"), ("DELETED", "b")]
    assert (await api.get(path("pods"))).names == []


async def test_namespaces_that_are_being_deleted_take_nothing_new(api: Client, path, namespace):
    await api.post(path("configmaps"), {"metadata": {"name": "a", "finalizers": [FINALIZER]}})
    answer = await api.delete(f"/api/v1/namespaces/{namespace}")
    assert (answer.status, answer.body["status"]["phase"]) == (200, "Terminating")
    refused = await api.post(path("configmaps"), {"metadata": {"name": "b"}})
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await api.patch(path("configmaps", "a"), {"metadata": {"finalizers": None}})


async def test_the_namespaces_of_the_system_stay(api: Client):
    answer = await api.delete("/api/v1/namespaces/default")
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
