"""The demo's hands on the Kubernetes API: what it makes there carries a mark, by which it is taken back."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import yaml

from podidentity.api.errors import ConfigurationError
from podidentity.api.meta import Key
from podidentity.emulator.demo.screen import StepFailed
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import ApiError, Conflict, KubernetesError, NotFound
from podidentity.kube.resources import (
    ASSIGNED_IDENTITIES,
    BINDINGS,
    CONFIG_MAPS,
    EVENTS,
    IDENTITIES,
    NODES,
    PODS,
    Resource,
)
from podidentity.kube.transport import JSON, Transport

NAMESPACE = "demo"
_CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
_NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
_ACCOUNTS = Resource("", "v1", "serviceaccounts")
_MARK = ("app.kubernetes.io/managed-by", "podidentity-demo")
"""The label of all that the demo makes: by it a demo knows what one before it, that was killed, has left."""
_ROOT_CA = Key(NAMESPACE, "kube-root-ca.crt")
"""The ConfigMap that a controller manager puts into every namespace."""
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

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._client = KubeClient(transport)
        self.created_at: dict[str, float] = {}
        """When each object of the README was created; seconds of the monotonic clock."""

    async def check_answers(self) -> None:
        """Read something that every cluster has. Raises KubernetesError."""
        await self._client.list(_NAMESPACES)

    async def refuse_if_used(self) -> None:
        """Refuse a cluster that has identities: the demo's controller would act on them. Its own do not count."""
        namespace = await self._namespace()
        if namespace is not None and not _is_marked(namespace):
            if namespace["metadata"].get("deletionTimestamp"):
                raise ConfigurationError(_still_terminating(f"the namespace {NAMESPACE}"))
            raise ConfigurationError(f"the cluster has a namespace {NAMESPACE} of its own: use an empty one")
        for resource in (IDENTITIES, BINDINGS, ASSIGNED_IDENTITIES):
            with suppress(NotFound):
                if not all(_is_own(item) for item in (await self._client.list(resource))["items"]):
                    raise ConfigurationError(
                        f"the cluster has {resource.plural} of its own, and the demo would act on them: "
                        "use an empty one"
                    )

    async def clear_leftovers(self, *, seconds: float) -> list[str]:
        """Take back what a demo that was killed has left, wait until it is gone, and return its names."""
        found = await self._marked()
        await self.take_back()
        deadline = time.monotonic() + seconds
        while left := await self._marked():
            if time.monotonic() > deadline:
                raise StepFailed(_still_terminating(", ".join(left)))
            await asyncio.sleep(_POLL)
        return found

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
        await self._make(_ACCOUNTS, NAMESPACE, account)

    async def apply(self, node: str) -> None:
        """Apply the README's objects, the pods as if they were scheduled already."""
        for document in objects():
            body = dict(document)
            resource = _KINDS[body["kind"]]
            if resource is PODS:
                body["spec"] = {**body["spec"], "nodeName": node}
            name = body["metadata"]["name"]
            self.created_at[name] = time.monotonic()
            await self._make(resource, NAMESPACE, body)

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

    async def take_back(self) -> None:
        """Remove what a demo has made, this one or one that was killed, and what the controller made of it.

        Call it only for a cluster that `refuse_if_used` did not refuse: the whole namespace goes.
        """
        with suppress(KubernetesError):
            namespace = await self._namespace()
            managed = namespace is not None and await self._is_managed()
            await self._remove_all(ASSIGNED_IDENTITIES)
            if namespace is not None:
                for resource in (PODS, BINDINGS, IDENTITIES, CONFIG_MAPS, _ACCOUNTS, EVENTS):
                    await self._remove_all(resource, NAMESPACE)
            for resource in (_NAMESPACES, NODES, _CRDS):
                await self._remove_all(resource, query=_marked_ones())
            if namespace is not None and not managed:
                await self._finalize_namespace()

    async def _marked(self) -> list[str]:
        """Return the names of what carries the mark and belongs to no namespace."""
        lists = [await self._client.list(resource, query=_marked_ones()) for resource in (_NAMESPACES, NODES, _CRDS)]
        return [item["metadata"]["name"] for found in lists for item in found["items"]]

    async def _namespace(self) -> Any:
        try:
            return await self._client.get(_NAMESPACES, Key("", NAMESPACE))
        except NotFound:
            return None

    async def _is_managed(self) -> bool:
        """Tell whether a controller manager is at work, which finishes namespaces that are deleted."""
        try:
            await self._client.get(CONFIG_MAPS, _ROOT_CA)
        except NotFound:
            return False
        return True

    async def _finalize_namespace(self) -> None:
        """Finish the namespace, empty by now, in place of the controller manager that is not there."""
        namespace = await self._namespace()
        if namespace is not None:
            body = msgspec.json.encode({**namespace, "spec": {"finalizers": []}})
            path = f"{_NAMESPACES.path(name=NAMESPACE)}/finalize"
            await self._transport.request("PUT", path, body=body, content=JSON)

    async def _make(self, resource: Resource, namespace: str, body: dict[str, Any]) -> None:
        """Create an object with the demo's mark; one that is there already is somebody else's and stays as it is."""
        metadata = body["metadata"]
        labels = metadata.get("labels", {}) | dict([_MARK])
        with suppress(Conflict):
            await self._client.create(resource, namespace, {**body, "metadata": {**metadata, "labels": labels}})

    async def _remove_all(
        self, resource: Resource, namespace: str = "", *, query: Mapping[str, str] | None = None
    ) -> None:
        with suppress(KubernetesError):  # one kind that cannot be removed must not keep the others
            for item in (await self._client.list(resource, namespace, query=query))["items"]:
                key = Key(item["metadata"].get("namespace", ""), item["metadata"]["name"])
                if resource is ASSIGNED_IDENTITIES:  # the controller, which would take its finalizer off, has ended
                    await self._client.patch(resource, key, {"metadata": {"finalizers": None}})
                await self._delete(resource, key)

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


def _is_marked(item: dict[str, Any]) -> bool:
    return _MARK in item["metadata"].get("labels", {}).items()


def _marked_ones() -> dict[str, str]:
    return {"labelSelector": "=".join(_MARK)}


def _is_own(item: dict[str, Any]) -> bool:
    """Tell whether an identity, binding or assigned identity is a demo's, given that the namespace is."""
    return NAMESPACE in (item["metadata"].get("namespace"), item.get("spec", {}).get("podNamespace"))


def _still_terminating(what: str) -> str:
    return (
        f"{what} of an earlier run is still being deleted (Terminating): wait until it is gone; where no controller "
        "manager runs that would finish it, use a fresh API server"
    )
