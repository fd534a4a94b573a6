"""The races of one target, with a machine whose calls end when the test says so."""

import asyncio
import random
from collections.abc import Collection
from dataclasses import replace

from prometheus_client import CollectorRegistry

from podidentity.api.identities import AssignedState, AzureAssignedIdentity
from podidentity.api.ids import Target, TargetKind
from podidentity.api.matching import Match
from podidentity.api.meta import Key
from podidentity.azure.compute import IdentitySet
from podidentity.azure.errors import ArmError
from podidentity.controller.ledger import Ledger
from podidentity.controller.worker import Worker, needs_machine
from podidentity.telemetry.metrics import ControllerMetrics
from tests.controller.builders import assigned, binding, identity, pod, resource_id
from tests.controller.world import SETTINGS, a_world
from tests.virtual_time import settle, virtual_time

POOL = Target(TargetKind.SCALE_SET, "sub", "rg", "pool")
X, Y = resource_id("x"), resource_id("y")


class HeldMachine:
    """A machine; calls of a kind that is held wait until `release`."""

    def __init__(self, *identities: str) -> None:
        self.identities = set(identities)
        self._gates = {"read": asyncio.Event(), "update": asyncio.Event()}
        self.release()
        self.calls: list[str] = []
        self.error: Exception | None = None

    async def read(self, target: Target) -> IdentitySet:
        self.calls.append("read")
        await self._gates["read"].wait()
        return IdentitySet(kind="UserAssigned", client_ids=dict.fromkeys(self.identities, "client"))

    async def update(
        self, target: Target, now: IdentitySet, *, add: Collection[str], remove: Collection[str]
    ) -> None:
        self.calls.append("update")
        await self._gates["update"].wait()
        if self.error is not None:
            raise self.error
        self.identities = (self.identities | set(add)) - set(remove)

    def hold(self, kind: str) -> None:
        self._gates[kind].clear()

    def release(self) -> None:
        for gate in self._gates.values():
            gate.set()


class Bench:
    """A worker on a machine, with the objects that a test puts into `objects`."""

    def __init__(self, world, machine: HeldMachine, **settings):
        self.machine = machine
        self.objects: list[AzureAssignedIdentity] = []
        self.marked: list[Key] = []
        self.may_remove = True
        self.ledger = Ledger(world.kube, "default")
        self.worker = Worker(
            POOL,
            settings=replace(SETTINGS, **{"unassign_after": 0.0, **settings}),
            machines=machine,
            ledger=self.ledger,
            objects=lambda _target: self.objects,
            mark=lambda it: self.marked.append(it.key),
            may_remove=lambda: self.may_remove,
            metrics=ControllerMetrics(CollectorRegistry()),
            rng=random.Random(1),
        )

    async def __aenter__(self):
        self._task = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])

    async def uses(self, *names: str, state=AssignedState.ASSIGNED, **more):
        self.objects = [
            assigned(pod(), Match(binding(to=name), identity(name), "default"), name=name, state=state, **more)
            for name in names
        ]
        self.worker.wake()
        await asyncio.sleep(0.5)


async def running(world, *present, owned=(), **settings):
    bench = Bench(world, HeldMachine(*present), **settings)
    if owned:
        await bench.ledger.write(POOL, owned)
    return bench


@virtual_time
async def test_a_reservation_made_while_the_machine_is_read_saves_its_identity(signing_key):
    async with a_world(signing_key) as world, await running(world, X, owned={X}) as bench:
        await bench.uses("x")
        assert bench.worker.holds(X)
        bench.machine.hold("read")
        await bench.uses()
        assert not bench.worker.reserve(Key("default", "new"), X)
        bench.machine.release()
        await asyncio.sleep(1)
        assert "update" not in bench.machine.calls
        assert bench.worker.holds(X)


@virtual_time
async def test_what_is_being_removed_is_promised_to_nobody_and_comes_back_for_who_reserved_it(signing_key):
    async with a_world(signing_key) as world, await running(world, X, owned={X}) as bench:
        await bench.uses("x")
        bench.machine.hold("update")
        await bench.uses()
        assert not bench.worker.reserve(Key("default", "new"), X)
        bench.machine.release()
        await asyncio.sleep(1)
        assert bench.machine.identities == {X}
        assert bench.machine.calls.count("update") == 2


@virtual_time
async def test_a_reservation_keeps_its_identity_until_the_object_with_it_is_seen(signing_key):
    async with a_world(signing_key) as world, await running(world, X, Y, owned={X, Y}) as bench:
        await bench.uses("x", "y")
        assert bench.worker.reserve(Key("default", "y"), X)
        bench.worker.settle(Key("default", "y"), Y)  # an older version of the object, from the watch
        await bench.uses("y")
        assert bench.machine.identities == {X, Y}
        bench.worker.settle(Key("default", "y"), X)
        bench.worker.wake()
        await asyncio.sleep(1)
        assert bench.machine.identities == {Y}


@virtual_time
async def test_a_reservation_that_leads_to_nothing_ends_by_itself(signing_key):
    async with a_world(signing_key) as world, await running(world, X, owned={X}) as bench:
        await bench.uses("x")
        bench.worker.reserve(Key("default", "never"), X)
        await bench.uses()
        await asyncio.sleep(50)
        assert bench.machine.identities == {X}
        await asyncio.sleep(20)
        assert bench.machine.identities == set()


@virtual_time
async def test_nothing_is_removed_before_every_pod_was_looked_at(signing_key):
    async with a_world(signing_key) as world, await running(world, X, owned={X}) as bench:
        bench.may_remove = False
        await bench.uses()
        await asyncio.sleep(100)
        assert bench.machine.identities == {X}
        bench.may_remove = True
        bench.worker.wake()
        await asyncio.sleep(1)
        assert bench.machine.identities == set()


@virtual_time
async def test_no_object_is_marked_before_its_identity_is_there(signing_key):
    async with a_world(signing_key) as world, await running(world, Y) as bench:
        bench.machine.hold("update")
        await bench.uses("x", "y", state=AssignedState.CREATED)
        assert set(bench.marked) == {Key("default", "y")}
        bench.machine.release()
        await asyncio.sleep(1)
        assert set(bench.marked) == {Key("default", "x"), Key("default", "y")}


@virtual_time
async def test_after_a_failed_removal_nobody_is_promised_the_identity_until_it_was_seen_again(signing_key):
    async with a_world(signing_key) as world, await running(world, X, owned={X}) as bench:
        await bench.uses("x")
        bench.machine.error = ArmError(500, "E", "oops")
        await bench.uses()
        assert not bench.worker.holds(X)
        bench.machine.error = None
        assert not bench.worker.reserve(Key("default", "new"), X)
        await asyncio.sleep(10)
        assert bench.worker.holds(X)
        assert bench.machine.identities == {X}


@virtual_time
async def test_a_bug_in_one_round_ends_no_worker(signing_key):
    async with a_world(signing_key) as world, await running(world) as bench:
        bench.machine.error = RuntimeError("bug")
        await bench.uses("x")
        bench.machine.error = None
        await asyncio.sleep(10)
        assert bench.machine.identities == {X}


@virtual_time
async def test_a_machine_without_users_and_records_is_never_asked(signing_key):
    async with a_world(signing_key) as world, await running(world, X) as bench:
        await bench.uses()
        assert bench.machine.calls == []


@virtual_time
async def test_taking_over_is_over_when_it_is_on_record(signing_key):
    async with a_world(signing_key) as world, await running(world, X, Y) as bench:
        bench.may_remove = False
        world.cluster.faults.delay(1.0, times=None)
        match = Match(binding(), identity("x"), "default")
        bench.objects = [
            assigned(pod(), match, name="by-mic", ours=False, deleted=True),
            assigned(pod(), Match(binding(), identity("y"), "default"), name="ours"),
        ]
        await bench.worker.taken_over()
        world.cluster.faults.clear()
        assert await bench.ledger.read(POOL) == {X}


@virtual_time
async def test_a_quiet_target_is_read_every_few_minutes_and_changed_by_nobody(signing_key):
    async with a_world(signing_key) as world, await running(world) as bench:
        await bench.uses("x", state=AssignedState.CREATED)
        await bench.uses("x")
        before = len(bench.machine.calls)
        await asyncio.sleep(3600)
        await settle()
        later = bench.machine.calls[before:]
        assert set(later) == {"read"}
        assert 3600 / (180 * 1.2) - 1 <= len(later) <= 3600 / 180


def test_only_living_objects_of_user_assigned_identities_need_a_machine():
    match = Match(binding(), identity(), "default")
    assert needs_machine(assigned(pod(), match))
    assert not needs_machine(assigned(pod(), match, deleted=True))
    assert not needs_machine(assigned(pod(), match, state=AssignedState.UNASSIGNED))
    assert not needs_machine(assigned(pod(), match, problem="broken"))
    principal = Match(binding(), identity(type=1), "default")
    assert not needs_machine(assigned(pod(), principal))
