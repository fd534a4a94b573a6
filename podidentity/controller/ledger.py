"""Which identities on a VM or scale set are ours: one ConfigMap for each target, in the controller's namespace.

It is written before the PATCH, so that a controller that dies in between still knows what it may take off again. What
is not in it was there before us, or was put there by somebody else, and is never removed.
"""

import hashlib
from collections.abc import Collection
from typing import Any

import msgspec

from podidentity.api.errors import InvalidValue
from podidentity.api.ids import Target, TargetKind
from podidentity.api.meta import Key
from podidentity.controller.objects import MANAGED_BY, OURS
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import Conflict, NotFound
from podidentity.kube.resources import CONFIG_MAPS

_LABEL = "podidentity.io/ledger"
_VERSION = "1"
"""Of the format. A newer format must keep `target` and `owned` as they are; fields that we do not know stay, because
we write by merge patch."""


class Ledger:
    """The ConfigMaps, by target."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def targets(self) -> list[Target]:
        """Return all targets on which we own something: also those without a node, which nobody else would visit."""
        query = {"labelSelector": f"{_LABEL}=true"}
        found = await self._client.list(CONFIG_MAPS, self._namespace, query=query)
        named = [(item.get("data") or {}) for item in found.get("items", [])]
        targets = [_target(data.get("target", "")) for data in named if _owned(data)]
        return [target for target in targets if target]

    async def read(self, target: Target) -> frozenset[str] | None:
        """Return what we own on the target; None when there is no record yet."""
        try:
            found = await self._client.get(CONFIG_MAPS, self._key(target))
        except NotFound:
            return None
        return _owned(found.get("data") or {})

    async def write(self, target: Target, owned: Collection[str]) -> None:
        """Record what we own."""
        data = {
            "target": f"{target.kind.value}/{target.subscription}/{target.resource_group}/{target.name}",
            "owned": msgspec.json.encode(sorted(owned)).decode(),
        }
        try:
            await self._client.patch(CONFIG_MAPS, self._key(target), {"data": data})
        except NotFound:
            await self._create(target, data)

    async def _create(self, target: Target, data: dict[str, str]) -> None:
        key = self._key(target)
        labels = {_LABEL: "true", MANAGED_BY: OURS}
        new = {"version": _VERSION, **data}  # only now: a newer controller's record stays one of the newer format
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": key.name, "namespace": key.namespace, "labels": labels},
            "data": new,
        }
        try:
            await self._client.create(CONFIG_MAPS, key.namespace, body)
        except Conflict:
            await self._client.patch(CONFIG_MAPS, key, {"data": data})

    def _key(self, target: Target) -> Key:
        digest = hashlib.sha256(target.resource_id.encode()).hexdigest()[:16]
        return Key(self._namespace, f"podidentity-{digest}")


def _owned(data: dict[str, str]) -> frozenset[str]:
    """Read the list. One that cannot be read owns nothing: then nothing is removed."""
    try:
        return frozenset(msgspec.json.decode(data.get("owned", "[]"), type=list[str]))
    except msgspec.DecodeError:
        return frozenset()


def _target(text: str) -> Target | None:
    try:
        kind, subscription, group, name = text.split("/")
        return Target(TargetKind(kind), subscription, group, name)
    except (ValueError, InvalidValue):
        return None
