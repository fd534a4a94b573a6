"""One worker for each VM and scale set. None waits for another.

A worker is level-based: woken by any change, it looks at what the cache says is wanted on its target, at what is
known to be there, and closes the gap with one PATCH. Whatever is wanted meanwhile waits for the next round, whose
PATCH carries all of it. An identity that is known to be there already needs no call to Azure at all.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from contextlib import suppress
from math import inf
from typing import Protocol

import structlog

from podidentity.api.errors import PodIdentityError
from podidentity.api.identities import AssignedState, AzureAssignedIdentity, IdentityType
from podidentity.api.ids import Target, TargetKind
from podidentity.api.meta import Key
from podidentity.azure.compute import IdentitySet
from podidentity.azure.errors import ArmError, TargetGone
from podidentity.controller.ledger import Ledger
from podidentity.controller.objects import MANAGED_BY, OURS
from podidentity.controller.plan import LARGEST_CHANGE, Plan, Situation, plan
from podidentity.controller.refused import Refused, blamed, concerns_identities
from podidentity.controller.settings import ControllerSettings
from podidentity.kube.backoff import Backoff, BackoffSettings
from podidentity.telemetry.metrics import ControllerMetrics

_log = structlog.get_logger(__name__)
_RETRY = BackoffSettings(longest_wish=900.0, first=1.0, longest=60.0, reset_after=300.0)
"""After a failure on a target: ARM's faults pass in seconds or in minutes, and each PATCH costs quota."""
_REREAD_JITTER = 0.2
"""Of the time between two reads of a quiet target: a thousand of them do not ask ARM at once."""
_DELETING_PAUSE = 60.0
"""Seconds until a target that is being deleted is looked at again, if pods still stand on it."""
_RESERVATION = 60.0
"""Seconds after which a reservation ends by itself: the watch shows a new object within a fraction of one."""
_NONE: frozenset[str] = frozenset()
_NOTHING = IdentitySet(kind="None", client_ids={})


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

    `objects` returns the AzureAssignedIdentities of the target; `mark` takes those that are to become Assigned;
    `may_remove` says whether the cluster is known well enough to take anything off.
    """

    def __init__(
        self,
        target: Target,
        *,
        settings: ControllerSettings,
        machines: Machines,
        ledger: Ledger,
        objects: Callable[[Target], list[AzureAssignedIdentity]],
        mark: Callable[[AzureAssignedIdentity], None],
        may_remove: Callable[[], bool],
        metrics: ControllerMetrics,
        rng: random.Random,
    ) -> None:
        self._target = target
        self._settings = settings
        self._machines = machines
        self._ledger = ledger
        self._objects = objects
        self._mark = mark
        self._may_remove = may_remove
        self._metrics = metrics
        self._rng = rng
        self._log = _log.bind(target=str(target))
        self._now = asyncio.get_running_loop().time
        self._wake = asyncio.Event()
        self._backoff = Backoff(self._now, rng, _RETRY)
        self._owned: frozenset[str] | None = None
        """What is ours to remove; None: not looked up yet."""
        self._recorded = asyncio.Event()
        self._present = _NOTHING
        """What is on the target and to stay, as far as we know: what is being taken off left it with the decision."""
        self._in_effect = _NONE
        """Of those, what a change that succeeded left there."""
        self._must_read = True
        """Whether to read the target before deciding anything on what we know."""
        self._doubted_at = inf
        """When to read it anyway: somebody else may have changed it."""
        self._reserved: dict[Key, tuple[str, float]] = {}
        self._unused_since: dict[str, float] = {}
        self._refused = Refused(self._now, rng)
        self._largest_change = LARGEST_CHANGE
        """Identities in the next PATCH: halved while ARM refuses without saying which."""

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    async def taken_over(self) -> None:
        """Wait until it is on record what MIC assigned here: before that, its objects are the only record."""
        self.wake()
        await self._recorded.wait()

    def reserve(self, assigned: Key, identity: str) -> bool:
        """Say that an AzureAssignedIdentity is about to exist; return whether its identity is on the target already.

        Until `settle`, or for a minute, the identity counts as in use and is not taken off.
        """
        self._reserved[assigned] = (identity, self._now() + _RESERVATION)
        return self.holds(identity)

    def settle(self, assigned: Key, identity: str) -> None:
        """End a reservation: the object is in the cache, with the identity that was announced."""
        if assigned in self._reserved and self._reserved[assigned][0] == identity:
            del self._reserved[assigned]

    def holds(self, identity: str) -> bool:
        """Whether an identity is known to be on the target, in effect, and to stay."""
        return identity in self._present.client_ids and identity in self._in_effect

    async def run(self) -> None:
        """Close the gap whenever woken, for ever."""
        look_again: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(look_again):
                    await self._wake.wait()
            self._wake.clear()
            try:
                look_again = await self._round()
            except Exception as error:  # noqa: BLE001 - whatever happens here concerns this target only
                # Slept out whatever happens meanwhile: a busy cluster must not hammer an Azure that asked for a rest.
                await asyncio.sleep(self._failed(error))
                look_again = 0.0
            else:
                self._backoff = Backoff(self._now, self._rng, _RETRY)

    def _failed(self, error: Exception) -> float:
        self._must_read = True
        wait = self._backoff.step(getattr(error, "retry_after", None))
        unexpected = None if isinstance(error, PodIdentityError) else error
        self._log.warning("target_failed", error=str(error), retry_in=round(wait, 1), exc_info=unexpected)
        return wait

    async def _round(self) -> float | None:
        """Compare once and change at most once; return the seconds until it is worth to look again, if known."""
        if self._owned is None:
            self._owned = await self._take_over()
            self._recorded.set()
        wanted = self._wanted()
        self._refused.keep(wanted | (self._owned or _NONE))
        if not wanted and not self._owned:
            return None
        fresh = self._must_read or self._now() >= self._doubted_at
        if fresh and not await self._look():
            return _DELETING_PAUSE
        self._mark_assigned()
        todo = self._plan()
        if todo.empty:
            return self._until(todo)
        if not fresh:
            # What is to be removed counts as gone before anything is awaited: nobody is promised it any more.
            self._present = self._present.without(todo.remove)
            if not await self._look():
                return _DELETING_PAUSE
            todo = self._plan()
        await self._change(todo)
        return 0.0

    async def _look(self) -> bool:
        """Read what is on the target; False when it is gone or going, and is to be left alone."""
        self._must_read, gone = True, False
        try:
            with self._metrics.cloud_call(f"{self._kind}_get"):
                present = await self._machines.read(self._target)
        except TargetGone:
            present, gone = _NOTHING, True
        if not (gone or present.deleting):
            there = present.user_assigned
            self._present, self._must_read = present, False
            self._doubted_at = self._now() + self._settings.reread_after * (1 + _REREAD_JITTER * self._rng.random())
            self._in_effect = there if present.settled else there & self._in_effect
            return True
        self._log.info("target_gone" if gone else "target_deleting")
        self._present = _NOTHING
        if gone and not self._wanted():
            await self._own(_NONE)
        return False

    async def _change(self, todo: Plan) -> None:
        """Bring the target, which was just read, one PATCH nearer to what is wanted."""
        before = self._present
        self._present = before.without(todo.remove)
        # Should the removal fail half-way, ARM may show an identity that is not in effect any more.
        self._in_effect -= todo.remove
        if todo.add or todo.remove:
            # What is shown already was recorded when we put it there, or is foreign and stays so.
            owned = self._owned or _NONE
            await self._own(owned | (todo.add - before.user_assigned))
            try:
                await self._patch(before, todo)
            except ArmError as error:
                if error.status >= 400:  # ARM took nothing of it, so nothing of it became ours
                    await self._own(owned)
                self._refuse(error, todo.add | todo.remove)
                return
            self._largest_change = min(self._largest_change * 2, LARGEST_CHANGE)
            self._present = before.changed(add=todo.add, remove=todo.remove)
            self._in_effect = self._present.user_assigned
        self._mark_assigned()
        await self._own((self._owned or _NONE) - todo.remove - todo.forget)

    async def _patch(self, before: IdentitySet, todo: Plan) -> None:
        self._log.info("target_update", add=sorted(todo.add), remove=sorted(todo.remove))
        started = self._now()
        with self._metrics.cloud_call(f"{self._kind}_update"):
            await self._machines.update(self._target, before, add=todo.add, remove=todo.remove)
        self._log.info("target_updated", seconds=round(self._now() - started, 2))

    def _refuse(self, error: ArmError, changed: frozenset[str]) -> None:
        """Leave out the identities that the error is about, so that the next round serves the others; or raise it.

        An error that is about some identity, but does not say which, halves the next change until one is left.
        """
        bad = blamed(error, changed)
        if not bad and not concerns_identities(error):
            raise error
        self._must_read = True
        if not bad and len(changed) > 1:
            self._largest_change = len(changed) // 2
            self._log.warning("change_refused", error=str(error), next_change=self._largest_change)
            return
        for identity in sorted(bad or changed):
            wait = self._refused.add(identity)
            self._log.warning("identity_refused", identity=identity, error=str(error), retry_in=round(wait, 1))

    async def _take_over(self) -> frozenset[str]:
        """Learn what is ours: our own record, and what MIC assigned before we came."""
        inherited = {
            assigned.identity.resource_id
            for assigned in self._objects(self._target)
            if assigned.metadata.label(MANAGED_BY) != OURS and _is_user_assigned(assigned)
        }
        recorded = await self._ledger.read(self._target)
        owned = (recorded or _NONE) | inherited
        if owned != (recorded or _NONE):
            await self._ledger.write(self._target, owned)
        return owned

    async def _own(self, owned: frozenset[str]) -> None:
        if owned != self._owned:
            await self._ledger.write(self._target, owned)
            self._owned = owned

    def _plan(self) -> Plan:
        wanted, owned, now = self._wanted(), self._owned or _NONE, self._now()
        self._unused_since = {identity: self._unused_since.get(identity, now) for identity in owned - wanted}
        situation = Situation(
            wanted=wanted,
            present=self._present,
            in_effect=self._present.user_assigned & self._in_effect,
            owned=owned if self._may_remove() else _NONE,
            unused_since=self._unused_since,
            refused_until=self._refused.until,
            protected_client_ids=self._settings.protected_client_ids,
            unassign_after=self._settings.unassign_after,
            largest_change=self._largest_change,
        )
        return plan(situation, now)

    def _until(self, todo: Plan) -> float:
        times = [self._doubted_at, *(until for _, until in self._reserved.values())]
        if todo.look_again_at is not None:
            times.append(todo.look_again_at)
        return max(0.0, min(times) - self._now())

    def _users(self) -> list[AzureAssignedIdentity]:
        return [assigned for assigned in self._objects(self._target) if needs_machine(assigned)]

    def _wanted(self) -> frozenset[str]:
        now = self._now()
        self._reserved = {key: entry for key, entry in self._reserved.items() if entry[1] > now}
        in_use = {assigned.identity.resource_id for assigned in self._users()}
        return frozenset(in_use | {identity for identity, _ in self._reserved.values()})

    def _mark_assigned(self) -> None:
        for assigned in self._users():
            if assigned.state is AssignedState.CREATED and self.holds(assigned.identity.resource_id):
                self._mark(assigned)

    @property
    def _kind(self) -> str:
        return "vm" if self._target.kind is TargetKind.VM else "vmss"


def needs_machine(assigned: AzureAssignedIdentity) -> bool:
    """Whether this object makes its identity wanted on the machine under its node."""
    alive = not assigned.metadata.terminating and assigned.state is not AssignedState.UNASSIGNED
    return _is_user_assigned(assigned) and not assigned.problem and alive


def _is_user_assigned(assigned: AzureAssignedIdentity) -> bool:
    return assigned.identity.type is IdentityType.USER_ASSIGNED and bool(assigned.identity.resource_id)
