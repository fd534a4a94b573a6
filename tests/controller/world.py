"""A small world for the controller: a cluster and a tenant, both in-process, and words to change and to look at them.

Identities are called by one word (`x` is the AzureIdentity `default/x` for the managed identity `x`); node `n1` is on
the scale set `pool`, `v1` on the VM `vm`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from prometheus_client import CollectorRegistry

from podidentity.api.identities import API_VERSION, FINALIZER
from podidentity.api.meta import BINDING_LABEL, Key
from podidentity.azure.config import AzureConfig
from podidentity.controller.app import Controller
from podidentity.controller.settings import ControllerSettings
from podidentity.controller.worker import Machines
from podidentity.emulator.azure.arm import Arm, ArmSettings
from podidentity.emulator.azure.identity_block import IdentityBlock
from podidentity.emulator.azure.machines import Machine, OperationSettings
from podidentity.emulator.azure.resource_ids import scale_set_id, user_identity_id, virtual_machine_id
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import ClusterState, kubernetes_app
from podidentity.kube.client import MERGE_PATCH, KubeClient
from podidentity.kube.resources import (
    ASSIGNED_IDENTITIES,
    BINDINGS,
    CONFIG_MAPS,
    IDENTITIES,
    NODES,
    PODS,
    Resource,
)
from podidentity.telemetry.metrics import ControllerMetrics
from tests.controller.azure_in_process import CLOUD, compute_of

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
EPOCH = 1_700_000_000.0
SCALE_SET_SECONDS = 4.0
SOON = 0.5
"""Virtual seconds for everything that waits for nothing: hundreds of steps."""
DONE = SCALE_SET_SECONDS + 1
QUIET = 900.0
"""Virtual seconds after which every backoff, grace and pause is over."""
CRDS = Path(__file__).parents[2] / "manifests" / "crds"
_CRD = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
_NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
SETTINGS = ControllerSettings(azure=AzureConfig(cloud=CLOUD, user_assigned_client_id="KUBELET"), unassign_after=10.0)


def identity_id(name: str) -> str:
    return user_identity_id(SUBSCRIPTION, "rg-ids", name)


def machine_id(name: str) -> str:
    made = virtual_machine_id if name.startswith("vm") else scale_set_id
    return made(SUBSCRIPTION, "rg-nodes", name)


class World:
    """Make it inside a running loop; `await world.start()` before use, `await world.close()` at the end."""

    def __init__(self, signing_key: rsa.RSAPrivateKey, *, seed: int, clock: Callable[[], float] | None) -> None:
        loop = asyncio.get_running_loop()
        clock = clock or (lambda: EPOCH + loop.time())
        self.seed = seed
        self.cluster = ClusterState(clock=clock, rng=random.Random(seed))
        self.azure = AzureState(clock=clock, rng=random.Random(seed), signing_key=signing_key)
        self.azure.machines.settings = OperationSettings(
            vm_seconds=(2.0, 2.0), scale_set_seconds=(SCALE_SET_SECONDS, SCALE_SET_SECONDS)
        )
        self.arm = Arm(self.azure, ArmSettings())
        compute, self._arm_service = compute_of(self.azure, self.arm)
        self.machines: Machines = compute
        self._transports: list[InProcessTransport] = []
        self.kube = KubeClient(self.transport())

    def transport(self) -> InProcessTransport:
        made = InProcessTransport(kubernetes_app(self.cluster))
        self._transports.append(made)
        return made

    async def start(self) -> None:
        for path in sorted(CRDS.glob("*.yaml")):
            await self.kube.create(_CRD, "", yaml.safe_load(path.read_text()))
        for name in ("pool", "vm"):
            self.machine_here(name)
        await self.node("n1", "pool")
        await self.node("v1", "vm")

    async def close(self) -> None:
        for transport in self._transports:
            await transport.close()
        await self._arm_service.close()

    @asynccontextmanager
    async def controller(self, **changes: Any) -> AsyncIterator[Controller]:
        """Run a controller for the length of the block; at its end it is killed."""
        settings = replace(SETTINGS, **changes)
        controller = Controller(
            settings,
            transport=self.transport(),
            machines=self.machines,
            metrics=ControllerMetrics(CollectorRegistry()),
            rng=random.Random(self.seed),
        )
        task = asyncio.create_task(controller.run(), name="controller")
        try:
            yield controller
            if task.done():
                await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    # --- Azure

    def machine_here(self, name: str, *, users: tuple[str, ...] = (), system: bool = False) -> Machine:
        add = self.azure.add_virtual_machine if name.startswith("vm") else self.azure.add_scale_set
        return add(machine_id(name), users=[identity_id(user) for user in users], system=system)

    def machine(self, name: str) -> Machine:
        machine = self.azure.machines.get(machine_id(name))
        assert machine is not None
        return machine

    def put_by_hand(self, machine: str, *users: str, system: bool = False) -> None:
        block = IdentityBlock.of([identity_id(user) for user in users], system=system)
        self.azure.machines.set_identity(self.machine(machine), block)

    def on(self, machine: str) -> set[str]:
        """The user-assigned identities that a machine may use."""
        return {key.rsplit("/", 1)[-1] for key in self.machine(machine).effective.users}

    def patches(self, machine: str = "") -> list[Any]:
        path = machine_id(machine).lower() if machine else ""
        return [it for it in self.arm.log if it.method == "PATCH" and it.path.lower().startswith(path)]

    # --- Kubernetes

    async def node(self, name: str, machine: str | None) -> None:
        provider = "" if machine is None else f"azure://{machine_id(machine)}"
        if machine is not None and not machine.startswith("vm"):
            provider += "/virtualMachines/0"
        body = {"metadata": {"name": name}, "spec": {"providerID": provider} if provider else {}}
        await self.kube.create(NODES, "", body)

    async def place(self, name: str, machine: str) -> None:
        """Write the providerID of a node that had none."""
        provider = f"azure://{machine_id(machine)}/virtualMachines/0"
        await self.kube.patch(NODES, Key("", name), {"spec": {"providerID": provider}})

    async def namespace(self, name: str) -> None:
        await self.kube.create(_NAMESPACES, "", {"metadata": {"name": name}})

    async def identity(self, name: str, *, namespace: str = "default", namespaced: bool = False, **spec: Any) -> None:
        if self.azure.identity(identity_id(name)) is None:
            self.azure.add_identity(identity_id(name), client_id=f"client-{name}")
        annotations = {"aadpodidentity.k8s.io/Behavior": "namespaced"} if namespaced else {}
        body = {
            "apiVersion": API_VERSION,
            "kind": "AzureIdentity",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"type": 0, "resourceID": identity_id(name), "clientID": f"client-{name}", **spec},
        }
        await self.kube.create(IDENTITIES, namespace, body)

    async def bind(self, identity: str, *, to: str | None = None, namespace: str = "default") -> None:
        """Create the identity and a binding of the same name, selecting pods by `to` (else by the name)."""
        await self.identity(identity, namespace=namespace)
        await self.binding(identity, to=to or identity, namespace=namespace)

    async def binding(self, identity: str, *, to: str, name: str = "", namespace: str = "default") -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "AzureIdentityBinding",
            "metadata": {"name": name or identity},
            "spec": {"azureIdentity": identity, "selector": to},
        }
        await self.kube.create(BINDINGS, namespace, body)

    async def pod(self, name: str, label: str, *, node: str = "n1", namespace: str = "default") -> None:
        body = {
            "metadata": {"name": name, "labels": {BINDING_LABEL: label}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        }
        await self.kube.create(PODS, namespace, body)

    async def finish(self, name: str, *, namespace: str = "default") -> None:
        path, body = PODS.path(namespace, name) + "/status", b'{"status": {"phase": "Succeeded"}}'
        await self._transports[0].request("PATCH", path, body=body, content=MERGE_PATCH)

    async def delete(self, resource: Resource, name: str, *, namespace: str = "default") -> None:
        found = await self.kube.get(resource, Key(namespace, name))
        await self.kube.delete(resource, Key(namespace, name), uid=found["metadata"]["uid"])

    async def by_mic(self, pod: str, identity: str, *, node: str = "n1", state: str = "Assigned") -> None:
        """Create an AzureAssignedIdentity as MIC writes it: refs as they were read, its finalizer and label."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "AzureAssignedIdentity",
            "metadata": {
                "name": f"{pod}-default-{identity}",
                "finalizers": [FINALIZER],
                "labels": {"nodename": node},
            },
            "spec": {
                "azureIdentityRef": await self.kube.get(IDENTITIES, Key("default", identity)),
                "azureBindingRef": await self.kube.get(BINDINGS, Key("default", identity)),
                "pod": pod,
                "podNamespace": "default",
                "nodename": node,
                "replicas": None,
            },
            "status": {"status": state, "availableReplicas": 1},
        }
        await self.kube.create(ASSIGNED_IDENTITIES, "default", body)

    async def assigned(self) -> dict[str, str]:
        """State by namespace/name of all AzureAssignedIdentities."""
        found = await self.kube.list(ASSIGNED_IDENTITIES)
        return {
            f"{it['metadata']['namespace']}/{it['metadata']['name']}": it["status"]["status"] for it in found["items"]
        }

    async def assigned_object(self, name: str, namespace: str = "default") -> Any:
        return await self.kube.get(ASSIGNED_IDENTITIES, Key(namespace, name))

    async def ledgers(self) -> dict[str, str]:
        """What is owned, as written, by target."""
        found = await self.kube.list(CONFIG_MAPS, "default")
        return {it["data"]["target"].rsplit("/", 1)[-1]: it["data"]["owned"] for it in found["items"]}


@asynccontextmanager
async def a_world(
    signing_key: rsa.RSAPrivateKey, *, seed: int = 7, clock: Callable[[], float] | None = None
) -> AsyncIterator[World]:
    world = World(signing_key, seed=seed, clock=clock)
    await world.start()
    try:
        yield world
    finally:
        await world.close()


def slow(world: World) -> None:
    """Give every call some time, so that a kill finds it under way."""
    world.cluster.faults.delay(0.013, times=None, match=lambda call: not call.is_watch)
    world.arm.latency = (0.03, 0.11)


async def at_peace(world: World, **machines: set[str]) -> None:
    """All objects are Assigned and on their machines, and each machine has exactly these identities."""
    found = await world.assigned()
    assert set(found.values()) <= {"Assigned"}, found
    assert {name: world.on(name) for name in machines} == machines


def watch_states(world: World) -> Callable[[str], list[str]]:
    """Return a function that lists the states an AzureAssignedIdentity has had since now."""
    resource = world.cluster.registry.find("aadpodidentity.k8s.io", "v1", "azureassignedidentities")
    assert resource is not None
    start = world.cluster.revision

    def seen(name: str) -> list[str]:
        changes = world.cluster.collection(resource).since(start)
        objects = [change.after for change in changes if change.after and change.after["metadata"]["name"] == name]
        return [it["status"]["status"] for it in objects]

    return seen
