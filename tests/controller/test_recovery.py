"""Whatever happens to the controller, to ARM or to the API server: nothing leaks, nothing foreign is touched.

Each story ends with `at_peace`: what design.md says must hold when things have gone quiet.
"""

import asyncio
import random

import pytest

from podidentity.api.meta import Key
from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm import error_response
from podidentity.emulator.azure.machines import OperationPlan
from podidentity.emulator.azure.service import Hang
from podidentity.kube.resources import ASSIGNED_IDENTITIES, BINDINGS, PODS
from tests.controller.world import SCALE_SET_SECONDS, World, a_world, identity_id
from tests.virtual_time import virtual_time

DONE = SCALE_SET_SECONDS + 1
QUIET = 900.0
"""Virtual seconds after which every backoff, grace and pause is over."""


def slow(world: World) -> None:
    """Give every call some time, so that a kill finds it under way."""
    world.cluster.faults.delay(0.013, times=None, match=lambda call: not call.is_watch)
    world.arm.latency = (0.03, 0.11)


async def at_peace(world: World, **machines: set[str]) -> None:
    """All objects are Assigned and on their machines, and each machine has exactly these identities."""
    found = await world.assigned()
    assert set(found.values()) <= {"Assigned"}, found
    assert {name: world.on(name) for name in machines} == machines


KILL_AT = [round(0.02 + 0.043 * step, 3) for step in range(10)] + [0.6, 1.0, 2.5, 3.9, 4.1, 4.2, 4.3, 4.6]


@pytest.mark.parametrize("grace", [0.0, 10.0])
@pytest.mark.parametrize("killed_after", KILL_AT)
def test_killed_at_any_moment_and_started_again_it_assigns_everything_once(signing_key, killed_after, grace):
    @virtual_time
    async def story() -> None:
        async with a_world(signing_key) as world:
            world.machine_here("pool", users=("foreign",), system=True)
            for identity in ("x", "y"):
                await world.bind(identity, to="both")
            await world.pod("p", "both")
            await world.pod("q", "both", node="v1")
            slow(world)
            async with world.controller(unassign_after=grace):
                await asyncio.sleep(killed_after)
            async with world.controller(unassign_after=grace):
                await asyncio.sleep(QUIET)
                assert len(await world.assigned()) == 4
                await at_peace(world, pool={"foreign", "x", "y"}, vm={"x", "y"})
                await world.delete(PODS, "p")
                await world.delete(PODS, "q")
                await asyncio.sleep(QUIET)
                assert await world.assigned() == {}
                await at_peace(world, pool={"foreign"}, vm=set())
                assert world.machine("pool").effective.system

    story()


@pytest.mark.parametrize("grace", [0.0, 10.0])
@pytest.mark.parametrize("killed_after", [*KILL_AT, 10.1, 10.2, 12.0, 14.2, 14.4])
def test_killed_while_it_cleans_up_it_leaves_nothing_behind(signing_key, killed_after, grace):
    @virtual_time
    async def story() -> None:
        async with a_world(signing_key) as world:
            world.put_by_hand("pool", "foreign", "inherited")
            for identity in ("x", "y", "inherited", "foreign"):
                await world.bind(identity)
                await world.pod(f"p-{identity}", identity)
            await world.by_mic("p-inherited", "inherited")
            async with world.controller(unassign_after=grace):
                await asyncio.sleep(3 * DONE)
            assert world.on("pool") == {"foreign", "inherited", "x", "y"}
            slow(world)
            async with world.controller(unassign_after=grace):
                for identity in ("x", "inherited", "foreign"):
                    await world.delete(PODS, f"p-{identity}")
                await asyncio.sleep(killed_after)
            async with world.controller(unassign_after=grace):
                await asyncio.sleep(QUIET)
            assert await world.assigned() == {"default/p-y-default-y": "Assigned"}
            await at_peace(world, pool={"foreign", "y"})

    story()


@pytest.mark.parametrize("killed_after", KILL_AT)
def test_killed_while_it_takes_over_from_mic_it_still_knows_what_is_its_own(signing_key, killed_after):
    @virtual_time
    async def story() -> None:
        async with a_world(signing_key) as world:
            world.put_by_hand("pool", "foreign", "x", "y")
            for identity in ("x", "y"):
                await world.bind(identity)
                await world.by_mic("gone", identity)
            await world.pod("p", "y")
            slow(world)
            async with world.controller():
                await asyncio.sleep(killed_after)
            async with world.controller():
                await asyncio.sleep(QUIET)
                await at_peace(world, pool={"foreign", "y"})
                assert await world.assigned() == {"default/p-default-y": "Assigned"}

    story()


@pytest.mark.parametrize("seed", range(12))
def test_any_churn_under_faults_and_kills_ends_in_peace(signing_key, seed):
    """One seed decides what people do, when services fail, and when the controller dies."""
    rng = random.Random(seed)

    @virtual_time
    async def story() -> None:
        async with a_world(signing_key, seed=seed) as world:
            world.machine_here("pool", users=("foreign",))
            for identity in ("x", "y", "z", "foreign"):
                await world.bind(identity)
            slow(world)
            living: dict[str, tuple[str, str]] = {}
            grace = rng.choice([0.0, 3.0, 10.0])
            for _life in range(4):
                async with world.controller(unassign_after=grace):
                    for _ in range(8):
                        await churn(world, rng, living)
                        break_something(world, rng)
                        await asyncio.sleep(rng.choice([0.01, 0.1, 1.0, 6.0]) * rng.random())
            world.arm.faults.clear()
            world.cluster.faults.clear()
            async with world.controller(unassign_after=grace):
                await asyncio.sleep(QUIET)
                wanted = {"pool": {"foreign"}, "vm": set[str]()}
                for node, identity in living.values():
                    wanted["pool" if node == "n1" else "vm"].add(identity)
                assert set(await world.assigned()) == {f"default/{pod}-default-{it}" for pod, (_, it) in living.items()}
                await at_peace(world, **wanted)

    story()


async def churn(world: World, rng: random.Random, living: dict[str, tuple[str, str]]) -> None:
    name = f"p{rng.randrange(5)}"
    world.cluster.faults.clear()  # people's own calls succeed
    slow(world)
    if name in living:
        del living[name]
        await world.delete(PODS, name)
    else:
        living[name] = rng.choice(["n1", "v1"]), rng.choice(["x", "y", "z", "foreign"])
        await world.pod(name, living[name][1], node=living[name][0])


def break_something(world: World, rng: random.Random) -> None:
    match rng.randrange(7):
        case 0:
            world.arm.faults.add(error_response(arm_errors.throttled(3)), times=2)
        case 1:
            world.arm.faults.add(error_response(arm_errors.server_error(503)), times=2)
        case 2:
            error = arm_errors.server_error(500)
            leaves = rng.choice(["nothing", "shown", "done"])
            world.machine("pool").plans.append(OperationPlan(seconds=1.0, error=error, leaves=leaves))
        case 3:
            world.cluster.faults.answer(429, times=3, retry_after=1)
        case 4:
            world.cluster.faults.lose_answer(times=2, match=lambda call: call.method != "GET")
        case 5:
            world.cluster.faults.cut_streams()
        case 6:
            world.cluster.faults.compact()
            world.cluster.faults.cut_streams()


@virtual_time
async def test_the_record_of_ownership_is_written_before_azure_is_changed(signing_key):
    async with a_world(signing_key) as world, world.controller():
        seen: list[dict[str, str]] = []
        world.arm.faults.add_source(
            lambda request: seen.append(recorded(world)) if request.method == "PATCH" else None
        )
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(DONE)
        assert len(seen) == 1
        assert identity_id("x").lower() in seen[0]["pool"]


def recorded(world: World) -> dict[str, str]:
    resource = world.cluster.registry.find("", "v1", "configmaps")
    assert resource is not None
    found = world.cluster.collection(resource).objects.values()
    return {it["data"]["target"].rsplit("/", 1)[-1]: it["data"]["owned"] for it in found}


@virtual_time
async def test_no_record_no_change(signing_key):
    async with a_world(signing_key) as world, world.controller():
        world.cluster.faults.answer(
            500, times=None, match=lambda call: "configmaps" in call.path and call.method != "GET"
        )
        await world.bind("x")
        await world.pod("p", "x")
        await asyncio.sleep(60)
        assert world.patches() == []
        world.cluster.faults.clear()
        await asyncio.sleep(QUIET)
        await at_peace(world, pool={"x"})


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
