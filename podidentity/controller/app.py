"""The controller as a whole: what is started, in which order, and how it stops.

listeners (a taken port ends us at once) -> caches -> all synced -> workers of pods and targets
stop: workers -> caches -> listeners, which answer probes to the end
"""

import asyncio
import random
import time
from contextlib import AsyncExitStack, closing
from typing import Any

import structlog
from azure.core.credentials_async import AsyncTokenCredential
from prometheus_client import CollectorRegistry

from podidentity.api.meta import Key
from podidentity.azure.compute import Compute, shared_transport
from podidentity.azure.credentials import ManagedIdentityCredential, ServicePrincipalCredential
from podidentity.azure.errors import AzureError
from podidentity.azure.imds import ImdsClient, imds_session
from podidentity.controller.fleet import Fleet
from podidentity.controller.reconcile import Reconciler
from podidentity.controller.settings import ControllerSettings
from podidentity.controller.worker import Machines
from podidentity.kube.caches import Caches
from podidentity.kube.client import KubeClient
from podidentity.kube.informer import Informer
from podidentity.kube.transport import Transport, connect
from podidentity.kube.workqueue import WorkQueue
from podidentity.telemetry.endpoints import Endpoints
from podidentity.telemetry.lifecycle import run_until, unless_stopped
from podidentity.telemetry.metrics import ControllerMetrics
from podidentity.telemetry.serving import listen, serving

_log = structlog.get_logger(__name__)
_DRAIN = 1.0
"""Seconds for probes under way."""
_KEEP_ALIVE = 15
"""Seconds; probes and scrapers come again sooner or open a new connection."""


async def run(settings: ControllerSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises ConfigurationError when it cannot start."""
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry)
    async with AsyncExitStack() as stack:
        ports = {"--http-probe-port": settings.probe_port, "--prometheus-port": settings.metrics_port}
        sockets = [stack.enter_context(closing(listen("0.0.0.0", port, flag=flag))) for flag, port in ports.items()]
        transport = await unless_stopped(stop, connect(settings.kubeconfig))
        stack.push_async_callback(transport.close)
        machines = await _machines(settings, stack)
        controller = Controller(settings, transport=transport, machines=machines, metrics=metrics)
        endpoints = Endpoints(registry=registry, ready=controller.problem, active=lambda: not controller.problem())
        await stack.enter_async_context(serving(endpoints, sockets, drain=_DRAIN, keep_alive=_KEEP_ALIVE))
        _log.info("controller_started", api_server=transport.server, cloud=settings.azure.cloud.name)
        await run_until(stop, _logged_in(machines, controller))
        _log.info("controller_stopped")


class Controller:
    """Caches and workers, on any transport and any machines: also those of a simulation."""

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        transport: Transport,
        machines: Machines,
        metrics: ControllerMetrics,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._client = KubeClient(transport)
        self._machines = machines
        self._metrics = metrics
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        caches = Caches(transport, rng=self._rng)
        self._pods = caches.bound_pods()
        self._nodes = caches.nodes()
        self._identities = caches.identities()
        self._bindings = caches.bindings()
        self._assigned = caches.assigned_identities()
        self._informers: dict[str, Informer[Any]] = {
            "pods": self._pods,
            "nodes": self._nodes,
            "azureidentities": self._identities,
            "azureidentitybindings": self._bindings,
            "azureassignedidentities": self._assigned,
        }

    def problem(self) -> str:
        """Say what the controller waits for; empty when it is at work."""
        waiting = [name for name, informer in self._informers.items() if not informer.has_synced]
        return f"waiting for the first list of {', '.join(waiting)}" if waiting else ""

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            for name, informer in self._informers.items():
                tasks.create_task(informer.run(), name=f"informer {name}")
            for informer in self._informers.values():
                await informer.wait_synced()
            _log.info("caches_synced", pods=len(self._pods.store), assigned=len(self._assigned.store))
            fleet = Fleet(
                settings=self._settings,
                client=self._client,
                machines=self._machines,
                nodes=self._nodes,
                assigned=self._assigned,
                metrics=self._metrics,
                tasks=tasks,
                rng=self._rng,
            )
            queue: WorkQueue[Key] = WorkQueue(rng=self._rng)
            reconciler = Reconciler(
                settings=self._settings,
                client=self._client,
                fleet=fleet,
                pods=self._pods,
                bindings=self._bindings,
                identities=self._identities,
                assigned=self._assigned,
                metrics=self._metrics,
                queue=queue,
            )
            tasks.create_task(reconciler.run(), name="reconciler")
            tasks.create_task(fleet.run(), name="fleet")


async def _logged_in(machines: Compute, controller: Controller) -> None:
    """Run the controller, and log in to Azure beside it."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(controller.run(), name="controller")
        try:
            await machines.log_in()
        except AzureError as error:
            _log.warning("azure_login_failed", error=str(error))
        else:
            _log.info("azure_login_succeeded")


async def _machines(settings: ControllerSettings, stack: AsyncExitStack) -> Compute:
    credential: AsyncTokenCredential
    if settings.azure.use_managed_identity:
        session = await stack.enter_async_context(imds_session())
        credential = ManagedIdentityCredential(ImdsClient(session), settings.azure.user_assigned_client_id)
    else:
        credential = ServicePrincipalCredential(settings.azure, clock=time.time)
    stack.push_async_callback(credential.close)
    compute = Compute(settings.azure.cloud, credential, shared_transport())
    stack.push_async_callback(compute.close)
    return compute
