"""All targets: which node stands on which, and the worker of each."""

import asyncio
import random
from contextlib import suppress

import structlog

from podidentity.api.identities import AssignedState, AzureAssignedIdentity
from podidentity.api.ids import Target
from podidentity.api.meta import Key
from podidentity.api.workloads import Node
from podidentity.controller.ledger import Ledger
from podidentity.controller.objects import state_patch
from podidentity.controller.settings import ControllerSettings
from podidentity.controller.worker import Machines, Worker
from podidentity.kube.backoff import Backoff
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import KubernetesError, NotFound
from podidentity.kube.informer import Informer
from podidentity.kube.resources import ASSIGNED_IDENTITIES
from podidentity.kube.store import Change
from podidentity.kube.workqueue import WorkQueue
from podidentity.telemetry.metrics import ControllerMetrics

_log = structlog.get_logger(__name__)


class Fleet:
    """Starts a worker for a target at the first sight of it, and wakes it when something there changes."""

    def __init__(
        self,
        *,
        settings: ControllerSettings,
        client: KubeClient,
        machines: Machines,
        nodes: Informer[Node],
        assigned: Informer[AzureAssignedIdentity],
        metrics: ControllerMetrics,
        tasks: asyncio.TaskGroup,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._client = client
        self._machines = machines
        self._nodes = nodes.store
        self._assigned = assigned.store
        self._metrics = metrics
        self._tasks = tasks
        self._rng = rng
        self._ledger = Ledger(client, settings.namespace)
        self._workers: dict[Target, Worker] = {}
        self._marks: WorkQueue[Key] = WorkQueue(rng=rng)
        self._may_remove = False
        nodes.add_handler(self._node_changed)
        assigned.add_handler(self._assigned_changed)

    async def run(self) -> None:
        """Write the states that the workers ask for, for ever, and visit the targets that only our records know."""
        for number in range(self._settings.workers):
            self._tasks.create_task(self._marks.work(self._mark_assigned), name=f"mark assigned {number}")
        await self._visit_recorded()

    async def _visit_recorded(self) -> None:
        """Visit the targets of our own records: one may have lost its last node while nobody looked."""
        backoff = Backoff(asyncio.get_running_loop().time, self._rng)
        while True:
            try:
                targets = await self._ledger.targets()
            except KubernetesError as error:
                wait = backoff.step()
                _log.warning("ledger_unreadable", error=str(error), retry_in=round(wait, 1))
                await asyncio.sleep(wait)
                continue
            for target in targets:
                self._wake(target)
            return

    def allow_removals(self) -> None:
        """Say that every pod has been looked at once: what nobody uses now, nobody uses."""
        self._may_remove = True
        for worker in self._workers.values():
            worker.wake()

    def worker_of(self, node: str) -> Worker | None:
        """The worker of the target under a node; None while that is not known."""
        found = self._nodes.get(Key("", node))
        return self._worker(found.target) if found is not None and found.target is not None else None

    def _worker(self, target: Target) -> Worker:
        worker = self._workers.get(target)
        if worker is None:
            worker = self._workers[target] = Worker(
                target,
                settings=self._settings,
                machines=self._machines,
                ledger=self._ledger,
                objects=self._objects,
                mark=lambda assigned: self._marks.add(assigned.key),
                may_remove=lambda: self._may_remove,
                metrics=self._metrics,
                rng=self._rng,
            )
            self._tasks.create_task(worker.run(), name=str(target))
        return worker

    def _wake(self, target: Target | None) -> None:
        if target is not None:
            self._worker(target).wake()

    def _node_changed(self, change: Change[Node]) -> None:
        old, new = (it.target if it else None for it in (change.old, change.new))
        if old != new:
            self._wake(old)
            self._wake(new)

    def _assigned_changed(self, change: Change[AzureAssignedIdentity]) -> None:
        for node in {it.node for it in (change.old, change.new) if it}:
            if worker := self.worker_of(node):
                if change.new is not None:
                    worker.settle(change.key, change.new.identity.resource_id)
                worker.wake()

    def _objects(self, target: Target) -> list[AzureAssignedIdentity]:
        nodes = self._nodes.by("target", target)
        return [it for node in nodes for it in self._assigned.by("node", node.metadata.name)]

    async def _mark_assigned(self, key: Key) -> None:
        """Write the state, unless the object or the target changed meanwhile."""
        assigned = self._assigned.get(key)
        if assigned is None or assigned.state is not AssignedState.CREATED:
            return
        worker = self.worker_of(assigned.node)
        if worker is None or not worker.holds(assigned.identity.resource_id):
            return
        patch = state_patch(AssignedState.ASSIGNED)
        # It holds only against the version that was looked at, whose identity is the one in place.
        patch["metadata"] = {"resourceVersion": assigned.metadata.resource_version}
        with suppress(NotFound):
            await self._client.patch(ASSIGNED_IDENTITIES, key, patch)
