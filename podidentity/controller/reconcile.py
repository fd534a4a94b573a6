"""From pods, bindings and identities to AzureAssignedIdentities, one pod at a time.

Every event only marks the keys of the pods that it can matter to; a worker then looks at such a pod afresh.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

import structlog

from podidentity.api.identities import (
    FINALIZER,
    AssignedState,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
)
from podidentity.api.matching import Match
from podidentity.api.meta import Key
from podidentity.api.workloads import Pod
from podidentity.controller.changes import changes
from podidentity.controller.desired import desired
from podidentity.controller.fleet import Fleet
from podidentity.controller.objects import MANAGED_BY, OURS, assigned_body, assigned_name, assigned_patch
from podidentity.controller.settings import ControllerSettings
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import NotFound
from podidentity.kube.informer import Informer
from podidentity.kube.resources import ASSIGNED_IDENTITIES
from podidentity.kube.store import Change
from podidentity.kube.workqueue import WorkQueue
from podidentity.telemetry.metrics import ControllerMetrics

_log = structlog.get_logger(__name__)


class Reconciler:
    """Marks pods as dirty and makes their AzureAssignedIdentities what they should be."""

    def __init__(
        self,
        *,
        settings: ControllerSettings,
        client: KubeClient,
        fleet: Fleet,
        pods: Informer[Pod],
        bindings: Informer[AzureIdentityBinding],
        identities: Informer[AzureIdentity],
        assigned: Informer[AzureAssignedIdentity],
        metrics: ControllerMetrics,
        queue: WorkQueue[Key],
    ) -> None:
        self._settings = settings
        self._client = client
        self._fleet = fleet
        self._pods = pods.store
        self._bindings = bindings.store
        self._identities = identities.store
        self._assigned = assigned.store
        self._metrics = metrics
        self._queue = queue
        pods.add_handler(lambda change: queue.add(change.key))
        bindings.add_handler(self._binding_changed)
        identities.add_handler(self._identity_changed)
        assigned.add_handler(self._assigned_changed)
        # Until each pod that there was at the start has been looked at once, an identity may only seem unused.
        self._unseen = {pod.key for pod in self._pods} | {it.pod for it in self._assigned}
        self._seen_all = asyncio.Event()
        if not self._unseen:
            self._seen_all.set()

    async def run(self) -> None:
        """Reconcile dirty pods for ever, and allow removals from machines once every pod was looked at."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._settings.workers):
                tasks.create_task(self._queue.work(self.reconcile), name=f"reconcile {number}")
            await self._seen_all.wait()
            self._fleet.allow_removals()

    async def reconcile(self, key: Key) -> None:
        """Make the AzureAssignedIdentities of one pod what they should be."""
        try:
            await self._reconcile(key)
        finally:
            self._unseen.discard(key)
            if not self._unseen:
                self._seen_all.set()

    async def _reconcile(self, key: Key) -> None:
        pod = self._pods.get(key)
        bindings = self._bindings.by("selector", pod.binding_label) if pod else []
        wanted = desired(pod, bindings, self._identities.get, namespaced=self._settings.namespaced)
        todo = changes(pod, wanted, self._assigned.by("pod", key))
        for assigned in todo.release:
            await self._release(assigned)
        for assigned in todo.delete:
            await self._delete(assigned)
        if pod is None:
            return
        for assigned, match in todo.update:
            await self._update(assigned, pod, match)
        freed = {it.key for it in todo.release + todo.delete if {FINALIZER}.issuperset(it.metadata.finalizers or ())}
        for match in todo.create:
            await self._create(pod, match, freed)

    async def _create(self, pod: Pod, match: Match, freed: Collection[Key]) -> None:
        name = assigned_name(pod.key, match, lambda taken: taken in freed or self._assigned.get(taken) is None)
        key = Key(match.namespace, name)
        # Whatever becomes of this call, its answer may be lost: the reservation ends with the object or by itself.
        state = self._reserved_state(key, pod, match)
        await self._client.create(ASSIGNED_IDENTITIES, match.namespace, assigned_body(name, pod, match, state))
        self._metrics.additions.inc()
        _log.info("assigned_identity_created", name=str(key), pod=str(pod.key), state=state.value)

    async def _update(self, assigned: AzureAssignedIdentity, pod: Pod, match: Match) -> None:
        await self._taken_over(assigned)
        state = self._next_state(assigned, pod, match)
        await self._client.patch(ASSIGNED_IDENTITIES, assigned.key, assigned_patch(pod, match, state))
        self._metrics.updates.inc()
        _log.info("assigned_identity_updated", name=str(assigned.key), pod=str(pod.key), state=state.value)

    async def _delete(self, assigned: AzureAssignedIdentity) -> None:
        """Delete, then drop the finalizer: from the first moment on, no node agent issues a token on it."""
        await self._taken_over(assigned)
        try:
            await self._client.delete(ASSIGNED_IDENTITIES, assigned.key, uid=assigned.metadata.uid)
            await self._release(assigned)
        except NotFound:
            return
        self._metrics.deletions.inc()
        _log.info("assigned_identity_deleted", name=str(assigned.key), pod=str(assigned.pod))

    async def _release(self, assigned: AzureAssignedIdentity) -> None:
        """Let a deleted object go."""
        await self._taken_over(assigned)
        others = [it for it in assigned.metadata.finalizers or () if it != FINALIZER]
        patch = {"metadata": {"finalizers": others or None, "uid": assigned.metadata.uid}}
        with suppress(NotFound):
            await self._client.patch(ASSIGNED_IDENTITIES, assigned.key, patch)

    def _reserved_state(self, key: Key, pod: Pod, match: Match) -> AssignedState:
        """Reserve the identity on its machine and return the state: Assigned when nothing is to be done in Azure."""
        if match.identity.type is not IdentityType.USER_ASSIGNED:
            return AssignedState.ASSIGNED
        worker = self._fleet.worker_of(pod.spec.node_name)
        present = worker is not None and worker.reserve(key, match.identity.resource_id)
        return AssignedState.ASSIGNED if present else AssignedState.CREATED

    def _next_state(self, assigned: AzureAssignedIdentity, pod: Pod, match: Match) -> AssignedState:
        """Keep the state of an object that stays on its node with its identity: its pod goes on getting tokens."""
        kept, wanted = assigned.identity, match.identity
        stays = (kept.type, kept.resource_id, assigned.node) == (wanted.type, wanted.resource_id, pod.spec.node_name)
        if stays and assigned.usable:
            return AssignedState.ASSIGNED
        return self._reserved_state(assigned.key, pod, match)

    async def _taken_over(self, assigned: AzureAssignedIdentity) -> None:
        """Wait, with an object of MIC, until the worker has on record that its identity is ours to remove."""
        if assigned.metadata.label(MANAGED_BY) == OURS:
            return
        if worker := self._fleet.worker_of(assigned.node):
            await worker.taken_over()

    def _binding_changed(self, change: Change[AzureIdentityBinding]) -> None:
        for binding in (change.old, change.new):
            if binding is not None:
                self._mark_label(binding.selector)

    def _identity_changed(self, change: Change[AzureIdentity]) -> None:
        for binding in self._bindings.by("identity", change.key):
            self._mark_label(binding.selector)

    def _assigned_changed(self, change: Change[AzureAssignedIdentity]) -> None:
        for pod in {it.pod for it in (change.old, change.new) if it is not None}:
            self._queue.add(pod)

    def _mark_label(self, selector: str) -> None:
        for pod in self._pods.by("label", selector):
            self._queue.add(pod.key)
