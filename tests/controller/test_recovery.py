"""Whatever happens to the controller, to ARM or to the API server: nothing leaks, nothing foreign is touched.

Each story ends with `at_peace`: what design.md says must hold when things have gone quiet.
"""

import asyncio
import random
from dataclasses import replace

import pytest

from podidentity.api.meta import Key
from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm import error_response
from podidentity.emulator.azure.machines import OperationPlan
from podidentity.kube.resources import ASSIGNED_IDENTITIES, PODS
from tests.controller.world import DONE, QUIET, World, a_world, at_peace, identity_id, slow
from tests.virtual_time import virtual_time

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
                assert set(await world.assigned()) == {
                    f"default/{pod}-default-{it}" for pod, (_, it) in living.items()
                }
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
            plan = OperationPlan(seconds=1.0, error=error)
            plans = [plan, replace(plan, leaves="shown"), replace(plan, leaves="done")]
            world.machine("pool").plans.append(rng.choice(plans))
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
async def test_an_object_of_mic_stays_until_its_identity_is_on_record(signing_key):
    async with a_world(signing_key) as world:
        world.put_by_hand("pool", "x")
        await world.bind("x")
        await world.by_mic("gone", "x")
        world.cluster.faults.answer(500, times=None, match=lambda call: "configmaps" in call.path)
        async with world.controller():
            await asyncio.sleep(60)
            assert await world.assigned() == {"default/gone-default-x": "Assigned"}
        world.cluster.faults.clear()
        async with world.controller():
            await asyncio.sleep(QUIET)
        assert await world.assigned() == {}
        assert world.on("pool") == set()


@virtual_time
async def test_after_a_start_nothing_is_removed_that_a_pod_without_an_object_is_about_to_use(signing_key):
    async with a_world(signing_key) as world:
        await world.bind("x")
        await world.pod("p", "x")
        async with world.controller(unassign_after=0.0):
            await asyncio.sleep(DONE)
        object_of_p = await world.assigned_object("p-default-x")
        key = Key("default", "p-default-x")
        await world.kube.patch(ASSIGNED_IDENTITIES, key, {"metadata": {"finalizers": None}})
        await world.kube.delete(ASSIGNED_IDENTITIES, key, uid=object_of_p["metadata"]["uid"])
        await world.bind("y")
        for earlier in ("a", "b", "c"):
            await world.pod(earlier, "y")
        world.cluster.faults.delay(2.0, times=None, match=lambda call: call.method == "POST")
        async with world.controller(unassign_after=0.0, workers=1):
            await asyncio.sleep(60)
        await at_peace(world, pool={"x", "y"})
        assert not any(change.removed for change in world.azure.machines.changes)
