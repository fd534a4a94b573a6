"""ARM and the API server at their worst: refusals, throttling, silence, lost answers, lagging caches."""

import asyncio
from collections.abc import Collection

import pytest

from podidentity.api.ids import Target
from podidentity.api.meta import Key
from podidentity.azure.compute import IdentitySet
from podidentity.azure.errors import ArmError
from podidentity.controller.worker import Machines
from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm import error_response
from podidentity.emulator.azure.machines import OperationPlan
from podidentity.emulator.azure.service import Hang
from podidentity.kube.resources import ASSIGNED_IDENTITIES, BINDINGS, IDENTITIES, PODS
from tests.controller.world import DONE, QUIET, World, a_world, at_peace, identity_id
from tests.virtual_time import virtual_time


@virtual_time
async def test_a_429_of_arm_is_waited_out_however_busy_the_cluster_is(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.bind("y")
        world.arm.faults.add(error_response(arm_errors.throttled(30)), method="PATCH", times=1)
        await world.pod("p", "x")
        await asyncio.sleep(1)
        calls = len(world.arm.log)
        for number in range(20):
            await world.pod(f"q{number}", "y")
            await asyncio.sleep(1)
        assert len(world.arm.log) == calls
        await asyncio.sleep(60)
        await at_peace(world, pool={"x", "y"})


@virtual_time
async def test_an_ill_machine_does_not_fill_memory_with_timers_nor_arm_with_calls(signing_key):
    async with a_world(signing_key) as world:
        world.machine("pool").provisioning_state = "Deleting"
        async with world.controller():
            await world.bind("x")
            for number in range(10):
                await world.pod(f"p{number}", "x")
                await asyncio.sleep(1)
            world.arm.log.clear()
            await asyncio.sleep(3600)
            assert 50 <= len(world.arm.log) <= 70
            assert world.patches() == []


@virtual_time
async def test_one_bad_identity_delays_no_good_one_on_the_same_machine(signing_key):
    async with a_world(signing_key) as world, world.controller():
        for identity in ("bad", "good", "x"):
            await world.bind(identity)
        refuse(world, "bad")
        for identity in ("bad", "good", "x"):
            await world.pod(f"p-{identity}", identity)
        await asyncio.sleep(2 * DONE + 1)
        assert world.on("pool") == {"good", "x"}
        assert await world.assigned() == {
            "default/p-bad-default-bad": "Created",
            "default/p-good-default-good": "Assigned",
            "default/p-x-default-x": "Assigned",
        }


@virtual_time
async def test_a_bad_identity_that_only_the_operation_finds_out_delays_no_good_one(signing_key):
    async with a_world(signing_key) as world, world.controller():
        for identity in ("bad", "good"):
            await world.bind(identity)
        error = arm_errors.failed_identity_operation("t", f"Resource '{identity_id('bad')}' was not found.")
        world.machine("pool").plans.append(OperationPlan(seconds=1.0, error=error))
        await world.pod("p-bad", "bad")
        await world.pod("p-good", "good")
        await asyncio.sleep(2 * DONE)
        assert world.on("pool") == {"good"}
        await asyncio.sleep(QUIET)
        await at_peace(world, pool={"bad", "good"})


@virtual_time
async def test_a_mended_identity_is_assigned_within_minutes_or_at_once_when_bound_anew(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("bad")
        refuse(world, "bad")
        await world.pod("p", "bad")
        await asyncio.sleep(600)
        assert 3 < len(world.patches()) < 20
        refuse(world, "bad", still=False)
        await world.delete(BINDINGS, "bad")
        await asyncio.sleep(0.5)
        await world.binding("bad", to="bad")
        await asyncio.sleep(2 * DONE)
        await at_peace(world, pool={"bad"})


def refuse(world: World, name: str, *, still: bool = True) -> None:
    found = world.azure.identity(identity_id(name))
    assert found is not None
    found.assignable = not still


@virtual_time
async def test_an_arm_that_hangs_is_survived(signing_key):
    async with a_world(signing_key) as world, world.controller():
        world.arm.faults.add(Hang(), method="PATCH", times=1)
        world.arm.faults.add(Hang(), method="GET", times=1)
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(3600)
        await at_peace(world, pool={"x"})


@virtual_time
async def test_a_machine_that_is_gone_is_forgotten_without_users_and_without_end_of_calls(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.azure.machines.remove(world.machine("pool").resource_id)
        await world.delete(PODS, "p")
        await asyncio.sleep(QUIET)
        assert await world.ledgers() == {"pool": "[]"}
        world.arm.log.clear()
        await asyncio.sleep(QUIET)
        assert world.arm.log == []


@virtual_time
async def test_a_404_that_is_not_about_the_machine_forgets_nothing(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.arm.faults.add(error_response(arm_errors.ArmError(404, "SubscriptionNotFound", "no right to see it")))
        await world.delete(PODS, "p")
        await asyncio.sleep(QUIET)
        assert world.on("pool") == {"x"}
        world.arm.faults.clear()
        await asyncio.sleep(QUIET)
        assert world.on("pool") == set()


@virtual_time
async def test_a_failed_removal_is_tried_again_and_nobody_is_promised_what_may_be_gone(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=0.0):
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.machine("pool").plans.append(OperationPlan(seconds=4.0, error=arm_errors.server_error(), leaves="done"))
        await world.delete(PODS, "p")
        await asyncio.sleep(4.4)
        world.arm.faults.add(error_response(arm_errors.server_error(503)))
        await world.pod("q", "x")
        await asyncio.sleep(1)
        assert await world.assigned() == {"default/q-default-x": "Created"}
        world.arm.faults.clear()
        await asyncio.sleep(QUIET)
        await at_peace(world, pool={"x"})
        await world.delete(PODS, "q")
        await asyncio.sleep(QUIET)
        await at_peace(world, pool=set())


@pytest.mark.parametrize("status", [409, 429, 500, 503])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_refused_write_is_done_again(signing_key, method, status):
    @virtual_time
    async def story() -> None:
        async with a_world(signing_key) as world, world.controller():
            await world.bind("x")
            await world.pod("p", "x")
            if method == "DELETE":
                await asyncio.sleep(DONE)
                await world.delete(PODS, "p")
            world.cluster.faults.answer(
                status, times=3, match=lambda call: call.method == method and "azureassigned" in call.path
            )
            await asyncio.sleep(QUIET)
            await at_peace(world, pool=set() if method == "DELETE" else {"x"})
            assert len(await world.assigned()) == (method != "DELETE")

    story()


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_write_whose_answer_is_lost_is_not_done_twice(signing_key, method):
    @virtual_time
    async def story() -> None:
        async with a_world(signing_key) as world, world.controller(unassign_after=0.0):
            await world.bind("x")
            world.cluster.faults.lose_answer(
                times=2, match=lambda call: call.method == method and "azureassigned" in call.path
            )
            await world.pod("p", "x")
            await asyncio.sleep(QUIET)
            assert await world.assigned() == {"default/p-default-x": "Assigned"}
            await world.delete(PODS, "p")
            await asyncio.sleep(QUIET)
            assert await world.assigned() == {}
            assert world.on("pool") == set()

    story()


@virtual_time
async def test_a_foreign_finalizer_is_left_to_its_owner(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        key = Key("default", "p-default-x")
        ours = (await world.assigned_object("p-default-x"))["metadata"]["finalizers"]
        await world.kube.patch(ASSIGNED_IDENTITIES, key, {"metadata": {"finalizers": [*ours, "other.example/f"]}})
        await asyncio.sleep(1)
        await world.delete(PODS, "p")
        await asyncio.sleep(1)
        left = await world.assigned_object("p-default-x")
        assert left["metadata"]["finalizers"] == ["other.example/f"]
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        assert "Assigned" in {state for name, state in (await world.assigned()).items() if name != str(key)}


@virtual_time
async def test_a_machine_whose_deletion_fails_is_cleaned_after_all(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.machine("pool").provisioning_state = "Deleting"
        await world.delete(PODS, "p")
        await asyncio.sleep(QUIET)
        assert world.on("pool") == {"x"}
        world.machine("pool").provisioning_state = "Succeeded"
        await asyncio.sleep(QUIET)
        assert world.on("pool") == set()


@virtual_time
async def test_a_name_that_was_just_freed_is_taken_again_although_the_cache_lags(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.namespace("team")
        await world.identity("x", namespace="team")
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        world.cluster.faults.stall_streams(lambda call: "azureassigned" in call.path)
        await world.delete(BINDINGS, "x")
        await asyncio.sleep(0.1)
        await world.binding("x", to="x", namespace="team")
        await asyncio.sleep(0.1)
        assert set(await world.assigned()) == {"default/p-default-x"}
        await asyncio.sleep(QUIET)
        await at_peace(world, pool={"x"})


@virtual_time
async def test_a_state_that_was_decided_for_another_identity_is_not_written(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        world.azure.add_identity(identity_id("y"))
        world.cluster.faults.delay(
            3.0, times=1, match=lambda call: call.method == "PATCH" and "azureassigned" in call.path
        )
        await world.pod("p", "x")
        await asyncio.sleep(DONE)  # x is there, and the news of it is on its way
        await world.kube.patch(IDENTITIES, Key("default", "x"), {"spec": {"resourceID": identity_id("y")}})
        await asyncio.sleep(3)
        assert "y" not in world.on("pool")
        assert await world.assigned() == {"default/p-default-x": "Created"}
        await asyncio.sleep(QUIET)
        await at_peace(world, pool={"y"})


@virtual_time
async def test_an_identity_that_somebody_takes_off_by_hand_comes_back_within_minutes(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(2 * DONE)
        world.put_by_hand("pool")
        assert world.on("pool") == set()
        await asyncio.sleep(180 * 1.2 + 2 * DONE)
        await at_peace(world, pool={"x"})


@virtual_time
async def test_what_an_administrator_assigns_after_arm_refused_it_to_us_is_not_ours(signing_key):
    async with a_world(signing_key) as world, world.controller(unassign_after=0.0):
        await world.bind("x")
        refuse(world, "x")
        await world.pod("p", "x")
        await asyncio.sleep(5)
        world.put_by_hand("pool", "x")
        await world.delete(PODS, "p")
        await asyncio.sleep(3600)
        assert world.on("pool") == {"x"}


@virtual_time
async def test_a_long_retry_after_of_arm_is_obeyed(signing_key):
    async with a_world(signing_key) as world, world.controller():
        await world.bind("x")
        world.arm.faults.add(error_response(arm_errors.throttled(600)), method="PATCH", times=1)
        await world.pod("p", "x")
        await asyncio.sleep(590)
        assert len(world.patches()) == 1
        await asyncio.sleep(30)
        await at_peace(world, pool={"x"})


@virtual_time
async def test_removals_do_not_wait_for_a_cluster_that_is_never_quiet(signing_key):
    async with a_world(signing_key) as world:
        await world.bind("x")
        await world.bind("y")
        async with world.controller(unassign_after=1.0):
            await world.pod("p", "x")
            await asyncio.sleep(2 * DONE)
            await world.delete(PODS, "p")
            for number in range(300):
                await world.pod(f"q{number}", "y")
                await asyncio.sleep(0.05)
            await asyncio.sleep(DONE)
            assert "x" not in world.on("pool")


class Refusing:
    """Machines that refuse every change with a certain identity in it, in words that do not quote it."""

    def __init__(self, machines: Machines, identity: str) -> None:
        self._machines = machines
        self._identity = identity_id(identity).lower()

    async def read(self, target: Target) -> IdentitySet:
        return await self._machines.read(target)

    async def update(
        self, target: Target, now: IdentitySet, *, add: Collection[str], remove: Collection[str]
    ) -> None:
        if self._identity in {*add, *remove}:
            raise ArmError(400, "LinkedInvalidPropertyId", "Property id '' is invalid.")
        await self._machines.update(target, now, add=add, remove=remove)


@virtual_time
async def test_a_bad_identity_that_arm_does_not_name_delays_good_ones_by_little(signing_key):
    async with a_world(signing_key) as world:
        world.machines = Refusing(world.machines, "bad")
        async with world.controller():
            names = ["a", "b", "bad", "c", "d"]
            for name in names:
                await world.bind(name)
                await world.pod(f"p-{name}", name)
            await asyncio.sleep(5 * DONE)
            assert world.on("pool") == {"a", "b", "c", "d"}
            await asyncio.sleep(3600)
            assert len(world.patches()) < 60


@virtual_time
async def test_a_removal_that_azure_refuses_delays_no_addition(signing_key):
    async with a_world(signing_key) as world:
        async with world.controller(unassign_after=0.0):
            await world.bind("bad")
            await world.pod("p", "bad")
            await asyncio.sleep(2 * DONE)
        world.machines = Refusing(world.machines, "bad")
        async with world.controller(unassign_after=0.0):
            await world.delete(PODS, "p")
            await world.bind("good")
            await world.pod("q", "good")
            await asyncio.sleep(3 * DONE)
            assert world.on("pool") == {"bad", "good"}
