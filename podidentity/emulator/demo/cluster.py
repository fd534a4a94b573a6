"""The demo's hands on the Kubernetes API: kubectl, scheduler and kubelet in a few calls."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from podidentity.api.errors import ConfigurationError
from podidentity.api.meta import Key
from podidentity.emulator.demo.screen import StepFailed
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import ApiError, Conflict, KubernetesError, NotFound
from podidentity.kube.resources import ASSIGNED_IDENTITIES, BINDINGS, CONFIG_MAPS, IDENTITIES, NODES, PODS, Resource

NAMESPACE = "demo"
_CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
_NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
_ACCOUNTS = Resource("", "v1", "serviceaccounts")
_KINDS = {"AzureIdentity": IDENTITIES, "AzureIdentityBinding": BINDINGS, "Pod": PODS}
_POLL = 0.05
"""Seconds; what is waited for shows within that."""


def manifests() -> Path:
    """Return the folder of the manifests: beside the package in a clone, inside it when installed."""
    package = Path(__file__).parents[2]
    inside = package / "_manifests"
    return inside if inside.is_dir() else package.parent / "manifests"


class DemoCluster:
    """What the demo does to the API server, and takes back."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._made: list[tuple[Resource, Key]] = []
        self.created_at: dict[str, float] = {}
        """When each object of the README was created; seconds of the monotonic clock."""

    async def refuse_if_used(self) -> None:
        """Refuse a cluster that has identities: the demo's controller would act on them."""
        for resource in (IDENTITIES, BINDINGS, ASSIGNED_IDENTITIES):
            with suppress(NotFound):
                if (await self._client.list(resource))["items"]:
                    raise ConfigurationError(
                        f"the cluster has {resource.plural} of its own, and the demo would act on them: "
                        "use an empty one"
                    )

    async def install_crds(self) -> int:
        """Apply the CRDs and wait until they are served; return how many there are."""
        files = sorted((manifests() / "crds").glob("*.yaml"))
        for file in files:
            await self._make(_CRDS, "", yaml.safe_load(file.read_text()))
        for resource in (IDENTITIES, BINDINGS, ASSIGNED_IDENTITIES):
            await self._until_served(resource)
        return len(files)

    async def add_node(self, name: str, provider_id: str) -> None:
        """Register a node as the cloud provider does."""
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"providerID": provider_id}}
        await self._make(NODES, "", body)

    async def prepare_namespace(self) -> None:
        """Make the namespace and its default account, which a controller manager would make."""
        await self._make(_NAMESPACES, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        with suppress(Conflict):
            await self._client.create(_ACCOUNTS, NAMESPACE, account)

    async def apply(self, node: str, addresses: dict[str, str]) -> None:
        """Apply the README's objects; put the pods on the node and give them their addresses, as kubelet does."""
        for document in objects():
            body = dict(document)
            resource = _KINDS[body["kind"]]
            if resource is PODS:
                body["spec"] = {**body["spec"], "nodeName": node}
            name = body["metadata"]["name"]
            self.created_at[name] = time.monotonic()
            await self._make(resource, NAMESPACE, body)
            if resource is PODS:
                await self._run_pod(name, addresses)

    async def _run_pod(self, name: str, addresses: dict[str, str]) -> None:
        address = addresses[name]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        await self._client.patch_status(PODS, Key(NAMESPACE, name), {"status": status})

    async def assigned_state(self, pod: str) -> str | None:
        """Return the state of the pod's AzureAssignedIdentity; None when there is none."""
        found = await self._client.list(ASSIGNED_IDENTITIES)
        mine = (item for item in found["items"] if item["spec"]["pod"] == pod)
        return next((item.get("status", {}).get("status", "") for item in mine), None)

    async def wait_for_state(self, pod: str, state: str | None, *, seconds: float) -> None:
        """Wait until the pod's AzureAssignedIdentity has a state (None: is gone)."""
        deadline = time.monotonic() + seconds
        while (seen := await self.assigned_state(pod)) != state:
            if time.monotonic() > deadline:
                raise StepFailed(f"the AzureAssignedIdentity of {pod} is {seen or 'absent'} after {seconds:.0f} s")
            await asyncio.sleep(_POLL)

    async def delete_pods(self, *names: str) -> None:
        """Delete pods and end them, as kubelet does."""
        for name in names:
            await self._delete(PODS, Key(NAMESPACE, name))

    async def clean_up(self) -> None:
        """Take back all that was made, the last first, and what the controller made."""
        for resource, namespace in ((ASSIGNED_IDENTITIES, ""), (CONFIG_MAPS, NAMESPACE)):
            with suppress(KubernetesError):
                for item in (await self._client.list(resource, namespace))["items"]:
                    key = Key(item["metadata"]["namespace"], item["metadata"]["name"])
                    await self._client.patch(resource, key, {"metadata": {"finalizers": None}})
                    await self._delete(resource, key)
        for resource, key in reversed(self._made):
            await self._delete(resource, key)

    async def _make(self, resource: Resource, namespace: str, body: dict[str, Any]) -> None:
        try:
            await self._client.create(resource, namespace, body)
        except Conflict:
            return  # somebody else's: not ours to take back
        self._made.append((resource, Key(namespace, body["metadata"]["name"])))

    async def _delete(self, resource: Resource, key: Key) -> None:
        with suppress(KubernetesError):
            await self._client.delete(resource, key, grace=0)

    async def _until_served(self, resource: Resource) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    await self._client.list(resource)
                except ApiError:
                    await asyncio.sleep(_POLL)
                else:
                    return


def objects() -> Iterator[dict[str, Any]]:
    """Yield the README's objects."""
    yield from yaml.safe_load_all((manifests() / "demo.yaml").read_text())
