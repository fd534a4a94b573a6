import asyncio

import pytest

from podidentity.api.ids import Target, TargetKind
from podidentity.api.meta import Key
from podidentity.controller.ledger import Ledger
from podidentity.kube.errors import ApiError
from podidentity.kube.resources import CONFIG_MAPS
from tests.controller.world import a_world
from tests.virtual_time import virtual_time

POOL = Target(TargetKind.SCALE_SET, "sub", "rg", "pool")
VM = Target(TargetKind.VM, "sub", "rg", "pool")


@virtual_time
async def test_without_a_record_nothing_is_known(signing_key):
    async with a_world(signing_key) as world:
        assert await Ledger(world.kube, "default").read(POOL) is None


@virtual_time
async def test_what_is_written_is_read_for_each_target_of_its_own(signing_key):
    async with a_world(signing_key) as world:
        ledger = Ledger(world.kube, "default")
        await ledger.write(POOL, {"/b", "/a"})
        await ledger.write(VM, {"/c"})
        await ledger.write(POOL, {"/a"})
        assert await ledger.read(POOL) == frozenset({"/a"})
        assert await ledger.read(VM) == frozenset({"/c"})


@virtual_time
async def test_only_targets_on_which_we_own_something_are_named(signing_key):
    async with a_world(signing_key) as world:
        ledger = Ledger(world.kube, "default")
        await ledger.write(POOL, {"/a"})
        await ledger.write(VM, set())
        foreign = {"metadata": {"name": "foreign"}, "data": {"target": "x", "owned": '["/z"]'}}
        await world.kube.create(CONFIG_MAPS, "default", foreign)
        assert await ledger.targets() == [POOL]


@virtual_time
async def test_two_controllers_that_write_the_first_record_at_once_both_succeed(signing_key):
    async with a_world(signing_key) as world:
        world.cluster.faults.delay(0.1, times=None)
        ledger = Ledger(world.kube, "default")
        await asyncio.gather(ledger.write(POOL, {"/a"}), ledger.write(POOL, {"/a"}))
        assert await ledger.read(POOL) == frozenset({"/a"})


@virtual_time
async def test_fields_of_a_newer_format_survive_our_writing(signing_key):
    async with a_world(signing_key) as world:
        ledger = Ledger(world.kube, "default")
        await ledger.write(POOL, {"/a"})
        (name,) = [it["metadata"]["name"] for it in (await world.kube.list(CONFIG_MAPS, "default"))["items"]]
        await world.kube.patch(CONFIG_MAPS, Key("default", name), {"data": {"since": "x"}})
        await ledger.write(POOL, {"/b"})
        assert (await world.kube.get(CONFIG_MAPS, Key("default", name)))["data"]["since"] == "x"


@pytest.mark.parametrize("owned", ["no json", "{}", "[1]", None])
@pytest.mark.parametrize("target", ["virtualMachineScaleSets/sub/rg/pool", "nonsense", "a/b/c/d"])
def test_a_record_that_cannot_be_read_owns_nothing(signing_key, owned, target):
    @virtual_time
    async def story():
        async with a_world(signing_key) as world:
            ledger = Ledger(world.kube, "default")
            await ledger.write(POOL, {"/a"})
            (name,) = [it["metadata"]["name"] for it in (await world.kube.list(CONFIG_MAPS, "default"))["items"]]
            await world.kube.patch(CONFIG_MAPS, Key("default", name), {"data": {"owned": owned, "target": target}})
            assert await ledger.read(POOL) == frozenset()
            assert await ledger.targets() == []

    story()


@virtual_time
async def test_a_failure_is_the_caller_s(signing_key):
    async with a_world(signing_key) as world:
        world.cluster.faults.answer(500, times=None)
        with pytest.raises(ApiError):
            await Ledger(world.kube, "default").write(POOL, {"/a"})
