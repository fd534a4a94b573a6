"""One worker for each VM and scale set. None waits for another.

A worker is level-based: woken by any change, it looks at what the cache says is wanted on its target, at what is
known to be there, and closes the gap with one PATCH. Whatever is wanted meanwhile waits for the next round, whose
PATCH carries all of it. An identity that is known to be there already needs no call to Azure at all.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from podidentity.api.errors import PodIdentityError
from podidentity.api.identities import AssignedState, AzureAssignedIdentity, IdentityType
from podidentity.api.ids import Target, TargetKind
from podidentity.api.meta import Key
from podidentity.azure.compute import IdentitySet
from podidentity.azure.errors import TargetGone
from podidentity.controller.ledger import Ledger
from podidentity.controller.objects import MANAGED_BY, OURS
from podidentity.controller.plan import Plan, Situation, plan
from podidentity.controller.settings import ControllerSettings
from podidentity.kube.backoff import Backoff, BackoffSettings
from podidentity.telemetry.metrics import ControllerMetrics

_log = structlog.get_logger(__name__)
_RETRY = BackoffSettings(first=1.0, longest=60.0, reset_after=300.0)
"""After a failure on a target: ARM's faults pass in seconds or in minutes, and each PATCH costs quota."""
_DELETING_PAUSE = 60.0
"""Seconds until a target that is being deleted is looked at again, if pods still stand on it."""
_RESERVATION = 60.0
"""Seconds after which a reservation ends by itself: the watch shows a new object within a fraction of one."""
_NONE: frozenset[str] = frozenset()


class Machines(Protocol):
    """What the workers need of Azure; `azure.compute.Compute` is it."""

    async def read(self, target: Target) -> IdentitySet:
        """Return the identity block of the target."""
        ...

    async def update(
        self, target: Target, now: IdentitySet, *, add: Collection[str], remove: Collection[str]
    ) -> None:
        """Change the identity block; returns when Azure has done it."""
        ...


class Worker:
    """One target.

    `users` returns the AzureAssignedIdentities that want something on the target; `mark` takes those that are to
    become Assigned; `may_remove` says whether the cluster is known well enough to take anything off.
    """

    def __init__(
        self,
        target: Target,
        *,
        settings: ControllerSettings,
        machines: Machines,
        ledger: Ledger,
        users: Callable[[Target], list[AzureAssignedIdentity]],
        mark: Callable[[AzureAssignedIdentity], None],
        may_remove: Callable[[], bool],
        metrics: ControllerMetrics,
        rng: random.Random,
    ) -> None:
        self._target = target
        self._settings = settings
        self._machines = machines
        self._ledger = ledger
        self._users = users
        self._mark = mark
        self._may_remove = may_remove
        self._metrics = metrics
        self._log = _log.bind(target=str(target))
        self._now = asyncio.get_running_loop().time
        self._wake = asyncio.Event()
        self._backoff = Backoff(self._now, rng, _RETRY)
        self._owned: frozenset[str] | None = None
        """What is ours to remove; None: not looked up yet."""
        self._present: IdentitySet | None = None
        """What is on the target as far as we know; None: read it first."""
        self._leaving = _NONE
        """What is being taken off: it counts as gone from the moment of the decision."""
        self._reserved: dict[Key, tuple[str, float]] = {}
        self._unused_since: dict[str, float] = {}

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    def reserve(self, assigned: Key, identity: str) -> bool:
        """Say that an AzureAssignedIdentity is about to exist; return whether its identity is on the target already.

        Until `settle` the identity counts as in use and is not taken off.
        """
        self._reserved[assigned] = (identity, self._now() + _RESERVATION)
        return self.holds(identity)

    def settle(self, assigned: Key) -> None:
        """End a reservation: the object is in the cache, or will never be."""
        self._reserved.pop(assigned, None)

    def holds(self, identity: str) -> bool:
        """Whether an identity is known to be on the target, and to stay."""
        return self._present is not None and identity in self._present.user_assigned - self._leaving

    async def run(self) -> None:
        """Close the gap whenever woken, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                look_again = await self._round()
            except Exception as error:  # noqa: BLE001 - whatever happens here concerns this target only
                self._present = None
                look_again = self._backoff.step(getattr(error, "retry_after", None))
                unexpected = None if isinstance(error, PodIdentityError) else error
                self._log.warning(
                    "target_failed", error=str(error), retry_in=round(look_again, 1), exc_info=unexpected
                )
            if look_again is not None:
                asyncio.get_running_loop().call_later(look_again, self._wake.set)

    async def _round(self) -> float | None:
        """Compare once and change at most once; return the seconds until it is worth to look again, if known."""
        if self._owned is None:
            self._owned = await self._take_over()
        if not self._wanted() and not self._owned:
            return None
        if self._present is None:
            self._present = await self._read()
        self._mark_assigned()
        todo = self._plan(self._present)
        if not (todo.add or todo.remove):
            return None if todo.look_again_at is None else max(0.0, todo.look_again_at - self._now())
        return await self._change(todo)

    async def _change(self, todo: Plan) -> float:
        """Bring the target one PATCH nearer to what is wanted; what we know may be old, so read it first."""
        self._leaving = todo.remove
        try:
            present = await self._read()
            if present.deleting:
                return await self._leave_alone()
            todo = self._plan(present)
            self._present, self._leaving = present, todo.remove
            if todo.add or todo.remove:
                await self._own(self._owned | todo.add if self._owned else todo.add)
                await self._patch(present, todo)
        finally:
            self._leaving = _NONE
        self._mark_assigned()
        await self._own((self._owned or _NONE) - todo.remove)
        return 0.0

    async def _leave_alone(self) -> float:
        self._log.info("target_deleting")
        self._present = None
        if not self._wanted():
            await self._own(_NONE)
        return _DELETING_PAUSE

    async def _patch(self, present: IdentitySet, todo: Plan) -> None:
        self._log.info("target_update", add=sorted(todo.add), remove=sorted(todo.remove))
        started = self._now()
        with self._metrics.cloud_call(f"{self._kind}_update"):
            await self._machines.update(self._target, present, add=todo.add, remove=todo.remove)
        self._log.info("target_updated", seconds=round(self._now() - started, 2))
        stay = {identity: client for identity, client in present.client_ids.items() if identity not in todo.remove}
        # Client IDs of additions are learnt by the next read, and a removal always reads first.
        self._present = IdentitySet(kind=present.kind, client_ids=stay | dict.fromkeys(todo.add, ""))

    async def _read(self) -> IdentitySet:
        try:
            with self._metrics.cloud_call(f"{self._kind}_get"):
                return await self._machines.read(self._target)
        except TargetGone:
            return IdentitySet(kind="None", client_ids={}, deleting=True)

    async def _take_over(self) -> frozenset[str]:
        """Learn what is ours: our own record, and what MIC assigned before we came."""
        recorded = await self._ledger.read(self._target)
        inherited = {
            assigned.identity.resource_id
            for assigned in self._users(self._target)
            if assigned.metadata.label(MANAGED_BY) != OURS
        }
        owned = (recorded or _NONE) | inherited
        if owned != recorded:
            await self._ledger.write(self._target, owned)
        return owned

    async def _own(self, owned: frozenset[str]) -> None:
        if owned != self._owned:
            await self._ledger.write(self._target, owned)
            self._owned = owned

    def _plan(self, present: IdentitySet) -> Plan:
        wanted, owned, now = self._wanted(), self._owned or _NONE, self._now()
        self._unused_since = {identity: self._unused_since.get(identity, now) for identity in owned - wanted}
        situation = Situation(
            wanted=wanted,
            present=present,
            owned=owned if self._may_remove() else _NONE,
            unused_since=self._unused_since,
            protected_client_ids=self._settings.protected_client_ids,
            unassign_after=self._settings.unassign_after,
        )
        return plan(situation, now)

    def _wanted(self) -> frozenset[str]:
        now = self._now()
        self._reserved = {key: entry for key, entry in self._reserved.items() if entry[1] > now}
        in_use = {assigned.identity.resource_id for assigned in self._users(self._target)}
        return frozenset(in_use | {identity for identity, _ in self._reserved.values()})

    def _mark_assigned(self) -> None:
        for assigned in self._users(self._target):
            if assigned.state is AssignedState.CREATED and self.holds(assigned.identity.resource_id):
                self._mark(assigned)

    @property
    def _kind(self) -> str:
        return "vm" if self._target.kind is TargetKind.VM else "vmss"


def needs_machine(assigned: AzureAssignedIdentity) -> bool:
    """Whether this object makes its identity wanted on the machine under its node."""
    return (
        assigned.identity.type is IdentityType.USER_ASSIGNED
        and not assigned.problem
        and not assigned.metadata.terminating
        and assigned.state is not AssignedState.UNASSIGNED
    )
