"""Stories of the whole controller on virtual time: the cluster and Azure are the stand-ins, called in-process."""

import asyncio

from podidentity.api.meta import Key
from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm import error_response
from podidentity.emulator.azure.machines import OperationPlan
from podidentity.kube.resources import BINDINGS, IDENTITIES, PODS
from tests.controller.world import DONE, SOON, a_world, identity_id, watch_states
from tests.virtual_time import virtual_time


@virtual_time
async def test_a_bound_pod_is_created_and_then_assigned(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {"default/p-default-x": "Created"}
        assert world.on("pool") == set()
        await asyncio.sleep(DONE)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}
        assert world.on("pool") == {"x"}
        assert world.on("vm") == set()


@virtual_time
async def test_the_object_carries_what_node_agents_look_at(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        found = await world.assigned_object("p-default-x")
        assert found["metadata"]["labels"]["nodename"] == "n1"
        assert found["metadata"]["finalizers"] == ["azureassignedidentity.finalizers.aadpodidentity.k8s.io"]
        assert found["spec"]["nodename"] == "n1"
        assert (found["spec"]["pod"], found["spec"]["podNamespace"]) == ("p", "default")
        assert found["spec"]["azureIdentityRef"]["spec"]["clientID"] == "client-x"
        assert found["spec"]["azureBindingRef"]["spec"]["selector"] == "x"


@virtual_time
async def test_the_order_in_which_things_appear_does_not_matter(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.pod("p", "x", node="late")
        await asyncio.sleep(SOON)
        await world.binding("x", to="x")
        await asyncio.sleep(SOON)
        await world.identity("x")
        await asyncio.sleep(SOON)
        await world.node("late", "pool")
        await asyncio.sleep(DONE)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}


@virtual_time
async def test_what_is_wanted_together_is_one_patch(signing_key):
    async with a_world(signing_key) as world, world.controller():
        for identity in ("x", "y", "z"):
            await world.bind(identity, to="all")
        await world.pod("a", "all")
        await world.pod("b", "all")
        await asyncio.sleep(2 * DONE)
        assert set((await world.assigned()).values()) == {"Assigned"}
        assert len(await world.assigned()) == 6
        assert world.on("pool") == {"x", "y", "z"}
        assert len(world.patches()) <= 2


@virtual_time
async def test_pods_that_come_while_a_patch_runs_share_the_next_one(signing_key):
    async with a_world(signing_key) as world, world.controller():
        for identity in ("x", "y", "z"):
            await world.bind(identity)
        await world.pod("first", "x")
        await asyncio.sleep(SOON)
        await world.pod("second", "y")
        await world.pod("third", "z")
        await asyncio.sleep(2 * DONE)
        assert world.on("pool") == {"x", "y", "z"}
        assert len(world.patches()) == 2


@virtual_time
async def test_an_identity_that_is_there_already_is_assigned_at_creation_without_a_call(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("first", "x")
        await asyncio.sleep(DONE)
        world.arm.log.clear()
        states = watch_states(world)
        await world.pod("second", "x")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {
            "default/first-default-x": "Assigned",
            "default/second-default-x": "Assigned",
        }
        assert states("second-default-x") == ["Assigned"]
        assert world.arm.log == []


@virtual_time
async def test_a_machine_whose_operation_never_ends_delays_no_other(signing_key):
    async with a_world(signing_key) as world:
        world.machine_here("stuck")
        await world.node("n2", "stuck")
        world.machine("stuck").plans.append(OperationPlan(seconds=None))
        async with world.controller():
            await world.bind("x")
            await world.pod("stuck", "x", node="n2")
            await asyncio.sleep(SOON)
            await world.pod("fine", "x", node="n1")
            await asyncio.sleep(DONE)
            assert await world.assigned() == {
                "default/stuck-default-x": "Created",
                "default/fine-default-x": "Assigned",
            }


@virtual_time
async def test_a_namespaced_identity_serves_its_namespace_only_and_is_assigned_there(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.namespace("team")
        await world.identity("x", namespace="team", namespaced=True)
        await world.binding("x", to="x", namespace="team")
        await world.pod("inside", "x", namespace="team")
        await world.pod("outside", "x")
        await asyncio.sleep(DONE)
        assert await world.assigned() == {"team/inside-team-x": "Assigned"}


@virtual_time
async def test_an_identity_that_stops_being_namespaced_moves_its_object(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.namespace("team")
        await world.identity("x", namespace="team", namespaced=True)
        await world.binding("x", to="x", namespace="team")
        await world.pod("p", "x", namespace="team")
        await asyncio.sleep(DONE)
        off = {"metadata": {"annotations": {"aadpodidentity.k8s.io/Behavior": None, "other": "stays"}}}
        await world.kube.patch(IDENTITIES, Key("team", "x"), off)
        await asyncio.sleep(SOON)
        assert await world.assigned() == {"default/p-team-x": "Assigned"}


@virtual_time
async def test_an_identity_of_the_default_namespace_may_change_its_behaviour_and_settles(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.identity("x", namespaced=True)
        await world.kube.patch(IDENTITIES, Key("default", "x"), {"metadata": {"annotations": {"note": "a"}}})
        await world.binding("x", to="x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        off = {"metadata": {"annotations": {"aadpodidentity.k8s.io/Behavior": None}}}
        await world.kube.patch(IDENTITIES, Key("default", "x"), off)
        await asyncio.sleep(SOON)
        embedded = (await world.assigned_object("p-default-x"))["spec"]["azureIdentityRef"]
        assert "aadpodidentity.k8s.io/Behavior" not in embedded["metadata"].get("annotations", {})


@virtual_time
async def test_two_pods_whose_names_collide_get_an_object_each(signing_key):
    async with a_world(signing_key) as world, world.controller():
        for namespace in ("b-c", "c"):
            await world.namespace(namespace)
        await world.bind("x")
        await world.pod("a", "x", namespace="b-c")
        await world.pod("a-b", "x", namespace="c")
        await asyncio.sleep(2 * DONE)
        found = await world.assigned()
        assert len(found) == 2
        assert set(found.values()) == {"Assigned"}
        assert "default/a-b-c-x" in found


@virtual_time
async def test_a_node_without_a_provider_id_waits_until_it_has_one(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.node("young", None)
        await world.bind("x")
        await world.pod("p", "x", node="young")
        await asyncio.sleep(60)
        assert await world.assigned() == {"default/p-default-x": "Created"}
        await world.place("young", "pool")
        await asyncio.sleep(DONE)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}


@virtual_time
async def test_a_service_principal_needs_no_machine(signing_key):
    async with a_world(signing_key) as world, world.controller():
        secret = {"name": "s", "namespace": "default"}
        await world.identity("x", type=1, tenantID="t", clientPassword=secret)
        await world.binding("x", to="x")
        await world.pod("p", "x", node="nowhere")
        await asyncio.sleep(SOON)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}
        assert world.arm.log == []


@virtual_time
async def test_a_changed_identity_is_assigned_anew_and_the_old_one_released(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.azure.add_identity(identity_id("y"))
        change = {"spec": {"resourceID": identity_id("y"), "clientID": "client-y"}}
        await world.kube.patch(IDENTITIES, Key("default", "x"), change)
        await asyncio.sleep(SOON)
        assert await world.assigned() == {"default/p-default-x": "Created"}
        await asyncio.sleep(60)
        assert await world.assigned() == {"default/p-default-x": "Assigned"}
        assert world.on("pool") == {"y"}


@virtual_time
async def test_a_change_of_metadata_alone_writes_nothing(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        before = await world.assigned_object("p-default-x")
        await world.kube.patch(IDENTITIES, Key("default", "x"), {"metadata": {"labels": {"a": "b"}}})
        await world.kube.patch(BINDINGS, Key("default", "x"), {"metadata": {"annotations": {"a": "b"}}})
        await asyncio.sleep(60)
        assert await world.assigned_object("p-default-x") == before


@virtual_time
async def test_a_pod_that_moves_to_another_machine_takes_its_object_with_it(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("set-0", "x", node="n1")
        await asyncio.sleep(DONE)
        await world.delete(PODS, "set-0")
        await world.pod("set-0", "x", node="v1")
        await asyncio.sleep(60)
        assert await world.assigned() == {"default/set-0-default-x": "Assigned"}
        assert (await world.assigned_object("set-0-default-x"))["metadata"]["labels"]["nodename"] == "v1"
        assert (world.on("vm"), world.on("pool")) == ({"x"}, set())


@virtual_time
async def test_a_change_that_leaves_the_identity_in_place_never_interrupts_its_pod(signing_key):
    async with a_world(signing_key) as world:
        await world.bind("x")
        await world.pod("p", "x")
        async with world.controller():
            await asyncio.sleep(DONE)
        await world.kube.patch(BINDINGS, Key("default", "x"), {"spec": {"weight": 5}})
        world.arm.faults.add(error_response(arm_errors.server_error(503)))
        states = watch_states(world)
        async with world.controller():
            await asyncio.sleep(60)
        assert set(states("p-default-x")) == {"Assigned"}
        assert (await world.assigned_object("p-default-x"))["spec"]["azureBindingRef"]["spec"]["weight"] == 5
