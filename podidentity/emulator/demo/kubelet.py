"""The demo's scheduler and kubelet, as far as they touch the Kubernetes API: nothing else would run the pods."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from podidentity.api.meta import Key
from podidentity.emulator.demo.cluster import NAMESPACE
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import Conflict, KubernetesError, NotFound
from podidentity.kube.resources import PODS
from podidentity.kube.transport import JSON, Transport

_LOOK_SECONDS = 0.2
"""Between two looks: at once to a person, and next to no load."""


class Kubelet:
    """Of one node, for the pods whose network is there; `addresses` are theirs by name."""

    def __init__(self, transport: Transport, node: str, addresses: Mapping[str, str]) -> None:
        self._transport = transport
        self._client = KubeClient(transport)
        self._node = node
        self._addresses = addresses

    async def run(self) -> None:
        """Look after the pods for ever, through any trouble of the API server."""
        while True:
            with suppress(KubernetesError):
                await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Bring every pod one step on: new ones onto the node and up, deleted ones to their end."""
        for pod in (await self._client.list(PODS, NAMESPACE))["items"]:
            if pod["metadata"]["name"] in self._addresses:
                with suppress(Conflict, NotFound):  # somebody was faster: the next look sees what they did
                    await self._attend(pod)

    async def _attend(self, pod: dict[str, Any]) -> None:
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
        if not node:
            await self._bind(name)
        elif node != self._node:
            return
        if pod["metadata"].get("deletionTimestamp"):
            await self._client.delete(PODS, Key(NAMESPACE, name), uid=pod["metadata"]["uid"], grace=0)
        elif not pod.get("status", {}).get("podIP"):
            await self._start(name)

    async def _bind(self, name: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": self._node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = f"{PODS.path(NAMESPACE, name)}/binding"
        try:
            await self._transport.request("POST", path, body=msgspec.json.encode(body), content=JSON)
        except NotFound:  # the stand-in has no bindings, and lets the field be set
            await self._client.patch(PODS, Key(NAMESPACE, name), {"spec": {"nodeName": self._node}})

    async def _start(self, name: str) -> None:
        address = self._addresses[name]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        await self._client.patch_status(PODS, Key(NAMESPACE, name), {"status": status})
