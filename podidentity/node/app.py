"""The node agent as a whole: what is started, in which order, and how it stops.

preflight (kernel, capability) -> listeners (a taken port ends us) -> rules -> caches -> ready
stop: requests under way finish -> listeners close; the rules stay, so that pods are refused, never handed the
identities of the machine
"""

import asyncio
import socket
from contextlib import AsyncExitStack, aclosing, closing

import aiohttp
import structlog
from prometheus_client import CollectorRegistry

from podidentity.azure.imds import ImdsClient, imds_session
from podidentity.kube.caches import Caches
from podidentity.kube.client import KubeClient
from podidentity.kube.transport import Transport, connect
from podidentity.node import redirect
from podidentity.node.address import node_address
from podidentity.node.callers import LiveLookup
from podidentity.node.drift import drifts
from podidentity.node.issuing import Cluster, Issuer
from podidentity.node.nftables import NetfilterError
from podidentity.node.protocol import PodProtocol
from podidentity.node.redirect import Redirect
from podidentity.node.server import Server
from podidentity.node.settings import NodeSettings
from podidentity.node.tokens import TokenService
from podidentity.telemetry.endpoints import Endpoints
from podidentity.telemetry.lifecycle import run_until, unless_stopped
from podidentity.telemetry.metrics import NodeMetrics
from podidentity.telemetry.serving import listen, serving

_log = structlog.get_logger(__name__)
_DRAIN = 5.0
"""Seconds for requests under way at a stop; a held one is told to come again by the next agent."""
_KEEP_ALIVE = 30
"""Seconds; SDKs send the real request on the connection of their probe."""
_RULES_RETRY = 5.0
"""Seconds until rules that the kernel refused are tried again."""


async def run(settings: NodeSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises ConfigurationError or NetfilterError when it cannot start."""
    registry = CollectorRegistry()
    rules = _rules(settings)
    redirect.preflight(rules)
    async with AsyncExitStack() as stack:
        probes = _opened(stack, settings.probe_port, "0.0.0.0", flag="--http-probe-port")
        metrics = _opened(stack, settings.metrics_port, "0.0.0.0", flag="--prometheus-port")
        addresses = (str(rules.listen_address), "127.0.0.1")
        pods = _opened(stack, rules.listen_port, *addresses, flag="--nmi-port, --nmi-listen-address")
        # From here on pods wait for us or are refused: they do not reach the real service any more.
        redirect.apply(rules)
        transport = await unless_stopped(stop, connect(settings.kubeconfig))
        stack.push_async_callback(transport.close)
        session = await stack.enter_async_context(imds_session())
        agent = Agent(settings, rules, transport, session, NodeMetrics(registry))
        endpoints = Endpoints(registry=registry, ready=agent.problem, active=lambda: not agent.problem())
        served = serving(endpoints, probes + metrics, drain=_DRAIN, keep_alive=_KEEP_ALIVE)
        await stack.enter_async_context(served)
        served = serving(agent.server.app, pods, drain=_DRAIN, keep_alive=_KEEP_ALIVE, protocol=PodProtocol)
        await stack.enter_async_context(served)
        _log.info("node_started", node=settings.node, listen=str(rules.listen_address), api_server=transport.server)
        await run_until(stop, agent.run())
        _log.info("node_stopped", rules="stay: pods are refused until an agent runs again")


class Agent:
    """Caches, server and rules of one node."""

    def __init__(
        self,
        settings: NodeSettings,
        rules: Redirect,
        transport: Transport,
        session: aiohttp.ClientSession,
        metrics: NodeMetrics,
    ) -> None:
        caches = Caches(transport)
        self._settings = settings
        self._rules = rules
        self._cluster = Cluster(
            pods=caches.pods_on(settings.node),
            assigned=caches.assigned_identities(settings.node if settings.label_filter else ""),
            bindings=caches.bindings(),
            identities=caches.identities(),
        )
        tokens = TokenService(
            ImdsClient(session, f"http://{settings.metadata_address}:{settings.metadata_port}"),
            max_age=settings.token_max_age,
            concurrency=settings.imds_concurrency,
            metrics=metrics,
        )
        lookup = LiveLookup(KubeClient(transport), settings.node)
        self._issuer = Issuer(settings, cluster=self._cluster, lookup=lookup, tokens=tokens)
        self.server = Server(
            self._issuer, metadata_header_required=settings.metadata_header_required, metrics=metrics
        )
        self._rules_hold = False

    def problem(self) -> str:
        """Say why pods cannot be served; empty when they can."""
        if not self._rules_hold:
            return "the netfilter rules are not in place"
        if waiting := [name for name, informer in self._cluster.informers.items() if not informer.has_synced]:
            return f"waiting for the first list of {', '.join(waiting)}"
        if self._cluster.age > self._settings.stale_cache_limit:
            return "the Kubernetes API has not answered for too long"
        return ""

    async def run(self) -> None:
        """Follow the cluster and guard the rules, until cancelled; then nothing is held any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, informer in self._cluster.informers.items():
                    tasks.create_task(informer.run(), name=f"informer {name}")
                tasks.create_task(self._guard_rules(), name="rules")
        finally:
            self._issuer.close()

    async def _guard_rules(self) -> None:
        """Put the rules back whenever somebody takes or changes them; a failure is tried again, never fatal."""
        while True:
            try:
                self._rules_hold = redirect.installed(self._rules)
                async with aclosing(drifts(self._rules, self._settings.rules_interval)) as drifted:
                    async for _ in drifted:
                        self._rules_hold = False
                        redirect.apply(self._rules)
                        self._rules_hold = True
                        _log.warning("rules_reasserted", table=self._rules.table)
            except NetfilterError as error:
                self._rules_hold = False
                _log.error("rules_failed", error=str(error), retry_in=_RULES_RETRY)
            await asyncio.sleep(_RULES_RETRY)


def _rules(settings: NodeSettings) -> Redirect:
    return Redirect(
        settings.metadata_address,
        settings.metadata_port,
        settings.listen_address or node_address(),
        settings.listen_port,
    )


def _opened(stack: AsyncExitStack, port: int, *addresses: str, flag: str) -> list[socket.socket]:
    """Open listening sockets that are closed with the stack."""
    return [stack.enter_context(closing(listen(address, port, flag=flag))) for address in addresses]
