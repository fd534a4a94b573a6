"""What leaves a machine and what stays: grace, other users, foreign and protected identities, those of MIC."""

import asyncio
from math import inf

from podidentity.api.meta import Key
from podidentity.kube.resources import ASSIGNED_IDENTITIES, BINDINGS, IDENTITIES, NODES, PODS
from tests.controller.world import DONE, SOON, a_world, identity_id, watch_states
from tests.virtual_time import virtual_time


@virtual_time
async def test_an_identity_that_somebody_else_put_there_is_used_and_never_removed(signing_key):
    async with a_world(signing_key) as world:
        world.machine_here("pool", users=("x",), system=True)
        async with world.controller(unassign_after=0.0):
            await world.bind("x")
            await world.pod("p", "x")
            await asyncio.sleep(DONE)
            assert await world.assigned() == {"default/p-default-x": "Assigned"}
            await world.delete(PODS, "p")
            await asyncio.sleep(600)
        assert await world.assigned() == {}
        assert world.on("pool") == {"x"}
        assert world.machine("pool").effective.system
        assert world.patches() == []


@virtual_time
async def test_foreign_identities_and_the_system_assigned_one_survive_ours(signing_key):
    async with a_world(signing_key) as world:
        world.machine_here("pool", users=("foreign",), system=True)
        async with world.controller():
            await world.bind("x")
            await world.pod("p", "x")
            await asyncio.sleep(DONE)
            assert world.on("pool") == {"foreign", "x"}
            await world.delete(PODS, "p")
            await asyncio.sleep(60)
        assert world.on("pool") == {"foreign"}
        assert world.machine("pool").effective.system


@virtual_time
async def test_an_identity_leaves_its_machine_after_the_grace(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=10.0):
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "p")
        await asyncio.sleep(9.5)
        assert await world.assigned() == {}
        assert len(world.patches()) == 1
        await asyncio.sleep(1 + DONE)
        assert world.on("pool") == set()
        assert len(world.patches()) == 2


@virtual_time
async def test_an_identity_leaves_at_once_where_that_is_asked_for(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=0.0):
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "p")
        await asyncio.sleep(DONE)
        assert world.on("pool") == set()


@virtual_time
async def test_an_identity_stays_where_that_is_asked_for(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=inf):
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "p")
        await asyncio.sleep(24 * 3600)
        assert await world.assigned() == {}
        assert world.on("pool") == {"x"}


@virtual_time
async def test_a_job_that_follows_within_the_grace_finds_the_identity_still_there(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=10.0):
        await world.bind("x")
        await world.pod("one", "x")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "one")
        await asyncio.sleep(9)
        states = watch_states(world)
        await world.pod("two", "x")
        await asyncio.sleep(60)
        assert states("two-default-x") == ["Assigned"]
        assert len(world.patches()) == 1


@virtual_time
async def test_an_identity_that_another_pod_uses_stays(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=0.0):
        await world.bind("x")
        await world.pod("a", "x")
        await world.pod("b", "x")
        await asyncio.sleep(2 * DONE)
        await world.delete(PODS, "a")
        await asyncio.sleep(60)
        assert await world.assigned() == {"default/b-default-x": "Assigned"}
        assert world.on("pool") == {"x"}


@virtual_time
async def test_a_pod_that_comes_while_its_identity_is_being_removed_gets_it_again(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=0.0):
        await world.bind("x")
        await world.pod("a", "x")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "a")
        await asyncio.sleep(1)
        assert len(world.patches()) == 2
        await world.pod("b", "x")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {"default/b-default-x": "Created"}
        await asyncio.sleep(2 * DONE)
        assert await world.assigned() == {"default/b-default-x": "Assigned"}
        assert world.on("pool") == {"x"}


@virtual_time
async def test_protected_identities_stay(signing_key):
    async with a_world(signing_key) as world:
        world.azure.add_identity(identity_id("k"), client_id="kubelet")
        async with world.controller(unassign_after=0.0, immutable_client_ids=frozenset({"client-i"})):
            for identity in ("i", "k", "x"):
                await world.bind(identity, to="all")
            await world.pod("p", "all")
            await asyncio.sleep(DONE)
            assert world.on("pool") == {"i", "k", "x"}
            await world.delete(PODS, "p")
            await asyncio.sleep(60)
        assert world.on("pool") == {"i", "k"}


@virtual_time
async def test_a_pod_that_finishes_releases_its_identity(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("job", "x")
        await asyncio.sleep(DONE)
        await world.finish("job")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {}
        await asyncio.sleep(30)
        assert world.on("pool") == set()


@virtual_time
async def test_an_object_that_somebody_deletes_goes_and_comes_back_under_its_name(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        before = await world.assigned_object("p-default-x")
        await world.delete(ASSIGNED_IDENTITIES, "p-default-x")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}
        after = await world.assigned_object("p-default-x")
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        await asyncio.sleep(60)
        assert world.on("pool") == {"x"}


@virtual_time
async def test_objects_of_mic_are_adopted_and_their_identities_are_ours_to_remove(signing_key):
    async with a_world(signing_key) as world:
        world.put_by_hand("pool", "x", "foreign")
        await world.bind("x")
        await world.pod("p", "x")
        await world.by_mic("p", "x")
        before = await world.assigned_object("p-default-x")
        async with world.controller():
            await asyncio.sleep(60)
            assert await world.assigned_object("p-default-x") == before
            assert world.patches() == []
            await world.delete(PODS, "p")
            await asyncio.sleep(60)
        assert await world.assigned() == {}
        assert world.on("pool") == {"foreign"}


@virtual_time
async def test_identities_of_mic_do_not_leak_when_their_pods_went_while_nobody_was_there(signing_key):
    async with a_world(signing_key) as world:
        world.put_by_hand("pool", "x")
        await world.bind("x")
        await world.by_mic("gone", "x")
        async with world.controller():
            await asyncio.sleep(60)
        assert await world.assigned() == {}
        assert world.on("pool") == set()


@virtual_time
async def test_what_mic_left_unassigned_is_taken_up_again(signing_key):
    async with a_world(signing_key) as world:
        await world.bind("x")
        await world.pod("p", "x")
        await world.by_mic("p", "x", state="Unassigned")
        async with world.controller():
            await asyncio.sleep(2 * DONE)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}
        assert world.on("pool") == {"x"}


@virtual_time
async def test_an_object_of_mic_that_gets_a_foreign_identity_does_not_make_it_ours(signing_key):
    async with a_world(signing_key) as world:
        world.put_by_hand("pool", "x", "foreign")
        await world.bind("x")
        await world.pod("p", "x")
        await world.by_mic("p", "x")
        async with world.controller():
            await asyncio.sleep(SOON)
            world.azure.add_identity(identity_id("foreign"))
            await world.kube.patch(IDENTITIES, Key("default", "x"), {"spec": {"resourceID": identity_id("foreign")}})
            await asyncio.sleep(60)
            assert world.on("pool") == {"foreign"}
        async with world.controller():
            await world.delete(PODS, "p")
            await asyncio.sleep(60)
        assert await world.assigned() == {}
        assert world.on("pool") == {"foreign"}


@virtual_time
async def test_a_removed_binding_ends_the_right_at_once(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        await world.delete(BINDINGS, "x")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {}


@virtual_time
async def test_a_machine_without_nodes_is_cleaned_by_the_next_controller(signing_key):
    async with a_world(signing_key) as world:
        async with world.controller():
            await world.bind("x")
            await world.pod("p", "x")
            await asyncio.sleep(DONE)
        await world.delete(PODS, "p")
        await world.kube.delete(
            NODES, Key("", "n1"), uid=(await world.kube.get(NODES, Key("", "n1")))["metadata"]["uid"]
        )
        async with world.controller():
            await asyncio.sleep(60)
        assert world.on("pool") == set()


@virtual_time
async def test_an_identity_that_an_administrator_took_off_and_put_back_is_his(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.put_by_hand("pool")
        await world.delete(PODS, "p")
        await asyncio.sleep(600)
        assert await world.ledgers() == {"pool": "[]"}
        world.put_by_hand("pool", "x")
        await world.bind("y")
        await world.pod("q", "y")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "q")
        await asyncio.sleep(600)
        assert world.on("pool") == {"x"}
