"""VMs and scale sets, and the long-running operations that change their identities.

A PATCH starts an operation: the resource shows the new block and `Updating` at once, but the identities can be used
(IMDS serves them) only after the operation succeeded, and `propagation` seconds later where that is set. What an
operation does can be planned: fail, never end, or leave half of its work.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm_errors import ArmError
from podidentity.emulator.azure.identity_block import IdentityBlock, IdentityPatch, apply_patch
from podidentity.emulator.azure.resource_ids import key
from podidentity.emulator.azure.service import AT_ONCE, Span
from podidentity.emulator.azure.tokens import Principal

Kind = Literal["virtualMachines", "virtualMachineScaleSets"]
OperationStatus = Literal["InProgress", "Succeeded", "Failed", "Canceled"]


@dataclass(frozen=True, kw_only=True)
class OperationSettings:
    """How long operations take, and what a write does while another one runs."""

    vm_seconds: Span = (2.0, 2.0)
    """Real ones take 10 s to 60 s; short enough to watch in a demo."""
    scale_set_seconds: Span = (4.0, 4.0)
    """What upstream was measured with (upstream-observed: 4 s)."""
    propagation: Span = AT_ONCE
    """From the success of an operation until IMDS serves the identity; minutes have been seen in Azure."""
    overlap: Literal["conflict", "preempt"] = "conflict"
    """A write while another runs: refused with 409, or taken, which ends the earlier one as preempted."""


@dataclass(frozen=True, kw_only=True)
class OperationPlan:
    """What the next operation on a machine is to do instead of succeeding in the usual time."""

    seconds: float | None = None
    """None: never ends."""
    error: ArmError | None = None
    """None: succeeds."""
    leaves: Literal["nothing", "shown", "done"] = "nothing"
    """What a failed one leaves of its change: nothing, the block that GET shows, or all of it."""


@dataclass(kw_only=True)
class Operation:
    """One asynchronous operation. Times in seconds since the epoch."""

    id: str
    machine: "Machine"
    started: float
    before: IdentityBlock
    plan: OperationPlan
    status: OperationStatus = "InProgress"
    ended: float | None = None
    error: ArmError | None = None


@dataclass(frozen=True, kw_only=True)
class IdentityChange:
    """One effective change of what a machine may use. `at` is the event loop's time, seconds."""

    at: float
    resource_id: str
    before: IdentityBlock
    after: IdentityBlock

    @property
    def added(self) -> frozenset[str]:
        """Keys of the user-assigned identities that came."""
        return frozenset(self.after.users) - frozenset(self.before.users)

    @property
    def removed(self) -> frozenset[str]:
        """Keys of the user-assigned identities that went."""
        return frozenset(self.before.users) - frozenset(self.after.users)


@dataclass(kw_only=True)
class Machine:
    """A VM or a scale set."""

    resource_id: str
    kind: Kind
    location: str
    unique_id: str
    shown: IdentityBlock
    """What GET answers."""
    settled: IdentityBlock
    """What the last successful operation left: in effect once it has propagated."""
    effective: IdentityBlock
    """What IMDS serves."""
    system_principal: Principal
    provisioning_state: str = "Succeeded"
    """Tests may set it, to `Deleting` for instance."""
    operation: Operation | None = None
    """The one that runs, or ran last."""
    plans: deque[OperationPlan] = field(default_factory=deque)
    """Taken by the next operations, one each, first in first out."""

    @property
    def name(self) -> str:
        """Last segment of the resource ID."""
        return self.resource_id.rsplit("/", 1)[-1]

    @property
    def type(self) -> str:
        """ARM's resource type."""
        return f"Microsoft.Compute/{self.kind}"

    @property
    def busy(self) -> bool:
        """Whether an operation runs."""
        return self.operation is not None and self.operation.status == "InProgress"


class Machines:
    """All VMs and scale sets, their operations, and the log of effective changes."""

    def __init__(self, *, clock: Callable[[], float], rng: random.Random, new_id: Callable[[], str]) -> None:
        self.settings = OperationSettings()
        self.operations: dict[str, Operation] = {}
        self.changes: list[IdentityChange] = []
        self._by_key: dict[str, Machine] = {}
        self._clock = clock
        self._rng = rng
        self._new_id = new_id

    def add(self, resource_id: str, *, kind: Kind, location: str, identity: IdentityBlock) -> Machine:
        """Create a machine whose identities are in effect already."""
        unique_id = self._new_id()
        principal = Principal(client_id=self._new_id(), object_id=self._new_id(), resource_id=resource_id)
        machine = Machine(
            resource_id=resource_id,
            kind=kind,
            location=location,
            unique_id=unique_id,
            shown=identity,
            settled=identity,
            effective=identity,
            system_principal=principal,
        )
        self._by_key[key(resource_id)] = machine
        return machine

    def get(self, resource_id: str) -> Machine | None:
        """Return the machine with this ID in any spelling."""
        return self._by_key.get(key(resource_id))

    def remove(self, resource_id: str) -> None:
        """Delete a machine. Raises KeyError where there is none."""
        del self._by_key[key(resource_id)]

    def resource_ids(self) -> list[str]:
        """Return the IDs of all machines."""
        return [machine.resource_id for machine in self._by_key.values()]

    def update_identity(self, machine: Machine, patch: IdentityPatch) -> Operation:
        """Start the operation that applies `patch`.

        Raises ArmError: 409 where the machine is being deleted or (by the settings) already changed, 400 for a patch
        that leaves an impossible block.
        """
        if machine.provisioning_state == "Deleting":
            raise arm_errors.marked_for_deletion(machine.resource_id)
        if machine.busy and self.settings.overlap == "conflict":
            raise arm_errors.operation_in_progress()
        after = apply_patch(machine.resource_id, machine.shown, patch)
        if machine.operation and machine.busy:
            self._end(machine.operation, "Canceled", arm_errors.operation_preempted())
        return self._begin(machine, after)

    def set_identity(self, machine: Machine, identity: IdentityBlock) -> None:
        """Change a machine's identities as an administrator beside us would: at once, shown and in effect."""
        machine.shown = machine.settled = identity
        self._take_effect(machine)

    def _begin(self, machine: Machine, after: IdentityBlock) -> Operation:
        plan = machine.plans.popleft() if machine.plans else OperationPlan(seconds=self._usual_seconds(machine))
        operation = Operation(
            id=self._new_id(), machine=machine, started=self._clock(), before=machine.shown, plan=plan
        )
        self.operations[operation.id] = operation
        machine.operation = operation
        machine.shown = after
        machine.provisioning_state = "Updating"
        if plan.seconds is not None:
            asyncio.get_running_loop().call_later(plan.seconds, self._finish, operation)
        return operation

    def _usual_seconds(self, machine: Machine) -> float:
        vm = machine.kind == "virtualMachines"
        return self._rng.uniform(*(self.settings.vm_seconds if vm else self.settings.scale_set_seconds))

    def _finish(self, operation: Operation) -> None:
        if operation.status != "InProgress":
            return
        machine, plan = operation.machine, operation.plan
        failed = plan.error is not None
        self._end(operation, "Failed" if failed else "Succeeded", plan.error)
        machine.provisioning_state = operation.status
        if failed and plan.leaves == "nothing":
            machine.shown = operation.before
        if not failed or plan.leaves == "done":
            machine.settled = machine.shown
            self._propagate(machine)

    def _end(self, operation: Operation, status: OperationStatus, error: ArmError | None) -> None:
        operation.status = status
        operation.ended = self._clock()
        operation.error = error

    def _propagate(self, machine: Machine) -> None:
        seconds = self._rng.uniform(*self.settings.propagation)
        if seconds > 0:
            asyncio.get_running_loop().call_later(seconds, self._take_effect, machine)
        else:
            self._take_effect(machine)

    def _take_effect(self, machine: Machine) -> None:
        # What is settled now, not when the timer was set: a slow timer must not bring an older block back.
        before, after = machine.effective, machine.settled
        if before == after:
            return
        if after.system and not before.system:
            # A system-assigned identity that was taken off and given again is another one.
            machine.system_principal = replace(
                machine.system_principal, client_id=self._new_id(), object_id=self._new_id()
            )
        machine.effective = after
        at = asyncio.get_running_loop().time()
        self.changes.append(IdentityChange(at=at, resource_id=machine.resource_id, before=before, after=after))
