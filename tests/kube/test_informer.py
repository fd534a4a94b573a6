import asyncio
from contextlib import asynccontextmanager

import pytest

from podidentity.api.meta import Key
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import kubernetes_app
from podidentity.kube.informer import Informer
from podidentity.kube.store import Change
from tests.kube.cluster import ConfigMap, is_list, is_watch, put, reflector, remove
from tests.virtual_time import settle, virtual_time

A = Key("default", "a")


@asynccontextmanager
async def informed(state, **indexers):
    """An informer that runs, on virtual time; a list of what a handler was told is `told`."""
    transport = InProcessTransport(kubernetes_app(state))
    informer = Informer(reflector(transport), indexers)
    told = []
    informer.add_handler(lambda change: told.append((change.old and change.old.data, change.new and change.new.data)))
    task = asyncio.create_task(informer.run())
    await settle()
    yield informer, told
    if task.done():
        task.result()
    task.cancel()
    await asyncio.wait([task])
    await transport.close()


@virtual_time
async def test_a_handler_is_told_of_each_change_with_what_was_before(state):
    put(state, "a", k="1")
    async with informed(state) as (_, told):
        put(state, "a", k="2")
        remove(state, "a")
        await settle()
    assert told == [(None, {"k": "1"}), ({"k": "1"}, {"k": "2"}), ({"k": "2"}, None)]


@virtual_time
async def test_the_store_and_its_indexes_are_changed_before_a_handler_is_told(state):
    async with informed(state, color=lambda it: [it.color]) as (informer, _):
        seen = []

        def look(change) -> None:
            assert informer.store.get(change.key) is change.new
            seen.append([item.metadata.name for item in informer.store.by("color", "red")])

        informer.add_handler(look)
        put(state, "a", color="red")
        await settle()
        put(state, "b", color="red")
        await settle()
        put(state, "a", color="blue")
        await settle()
    assert seen == [["a"], ["a", "b"], ["b"]]


@virtual_time
async def test_a_late_handler_is_told_of_what_is_there(state):
    put(state, "a", k="1")
    async with informed(state) as (informer, _):
        late: list[Change[ConfigMap]] = []
        informer.add_handler(late.append)
        put(state, "a", k="2")
        await settle()
    assert [(change.key, change.old and change.old.data, change.new and change.new.data) for change in late] == [
        (A, None, {"k": "1"}),
        (A, {"k": "1"}, {"k": "2"}),
    ]


@virtual_time
async def test_several_handlers_are_told_in_the_order_in_which_they_came(state):
    async with informed(state) as (informer, _):
        order = []
        informer.add_handler(lambda _: order.append("first"))
        informer.add_handler(lambda _: order.append("second"))
        put(state, "a")
        await settle()
    assert order == ["first", "second"]


@virtual_time
async def test_it_has_synced_when_the_handlers_know_the_first_list(state):
    put(state, "a")
    state.faults.answer(500, match=is_list, times=3)
    async with informed(state) as (informer, told):
        assert not informer.has_synced
        await informer.wait_synced()
        assert told == [(None, {})]
        assert informer.has_synced
        assert asyncio.get_running_loop().time() > 1


@virtual_time
async def test_an_empty_collection_syncs_too(state):
    async with informed(state) as (informer, told):
        await informer.wait_synced()
    assert told == []


@virtual_time
async def test_what_went_while_nobody_looked_is_told_after_the_next_list(state):  # "final state unknown"
    put(state, "a", k="1")
    put(state, "b", k="1")
    async with informed(state) as (informer, told):
        told.clear()
        state.faults.stall_streams()
        remove(state, "a")
        put(state, "b", k="2")
        put(state, "c", k="1")
        state.compact()
        await asyncio.sleep(71)
        assert informer.store.get(A) is None
    assert told == [({"k": "1"}, None), ({"k": "1"}, {"k": "2"}), (None, {"k": "1"})]


@virtual_time
async def test_an_object_deleted_and_created_while_nobody_looked_is_one_change_of_uid(state):
    put(state, "a")
    async with informed(state) as (informer, _):
        changes: list[Change[ConfigMap]] = []
        state.faults.stall_streams()
        before = informer.store.get(A)
        informer.add_handler(changes.append)
        remove(state, "a")
        put(state, "a")
        state.compact()
        await asyncio.sleep(71)
    assert [change.old for change in changes] == [None, before]
    after = changes[1].new
    assert before is not None
    assert after is not None
    assert after.metadata.uid != before.metadata.uid


@virtual_time
async def test_a_list_that_brings_nothing_new_tells_nobody(state):
    put(state, "a")
    async with informed(state) as (_, told):
        told.clear()
        state.faults.answer(500, match=is_watch)
        state.faults.end_streams()
        await asyncio.sleep(10)
    assert told == []


@virtual_time
async def test_the_age_says_since_when_the_server_gives_no_sign_of_life(state):
    transport = InProcessTransport(kubernetes_app(state))
    transport.refusing = True
    informer = Informer(reflector(transport))
    assert informer.age == float("inf")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(informer.run())
        await asyncio.sleep(100)
        assert informer.age == float("inf")
        transport.refusing = False
        await informer.wait_synced()
        for _ in range(200):
            # Nothing changes, so nothing is sent: the server lives all the same, and what is held is right.
            assert informer.age <= 71
            await asyncio.sleep(7)
        transport.refusing = True
        state.faults.cut_streams()
        await asyncio.sleep(600)
        assert informer.age >= 600
        task.cancel()
    await transport.close()


@virtual_time
async def test_a_broken_handler_is_not_hidden(state):
    transport = InProcessTransport(kubernetes_app(state))
    informer = Informer(reflector(transport))

    def broken(_change) -> None:
        raise ZeroDivisionError

    informer.add_handler(broken)
    put(state, "a")
    with pytest.raises(ZeroDivisionError):
        await informer.run()
    await settle()
    assert state.faults.streams == set()
    await transport.close()


async def test_it_follows_a_server_over_sockets(state, transport, server):
    put(state, "a")
    informer = Informer(reflector(transport))
    changed = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        task = tasks.create_task(informer.run())
        await informer.wait_synced()
        informer.add_handler(lambda change: changed.set() if change.key.name == "b" else None)
        server.abort_connections()
        put(state, "b")
        await changed.wait()
        task.cancel()
    assert sorted(key.name for key in informer.store.keys()) == ["a", "b"]  # noqa: SIM118 - a store is no dict
