"""Whose request is it? The pod that has the connection's source address, and nothing a client can write.

An address that changes hands is the danger here: the network may give it to a new pod before the API server has
forgotten the old one. When in doubt, nobody is answered.
"""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

import msgspec
import structlog

from podidentity.api.meta import Key
from podidentity.api.workloads import Pod
from podidentity.kube.client import KubeClient
from podidentity.kube.errors import KubernetesError
from podidentity.kube.resources import PODS
from podidentity.kube.store import Store

_log = structlog.get_logger(__name__)
_LOOKUP_PAUSE = 1.0
"""Seconds that a live lookup counts, whoever asks: an unknown address must not cost the API server more."""
_LOOKUP_SECONDS = 3.0
"""For one live lookup: the pods of one node come in milliseconds, and a probe must not hang on a sick API server."""
Address: TypeAlias = IPv4Address | IPv6Address
Caller: TypeAlias = Address | Key
"""Who asks: a pod by its address, or a program of the host in the name of a pod."""


class Ambiguous(Exception):
    """The address may be changing hands: look again when the pods have changed."""


def parse_address(text: str) -> Address:
    """Return the peer's address; an IPv4 address that came over an IPv6 socket is IPv4."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def pod_of(caller: Caller, pods: Store[Pod]) -> Pod | None:
    """Return the pod that the caller is or speaks for. Raises Ambiguous; None: no pod of this node."""
    if not isinstance(caller, Key):
        return owner_of(caller, pods)
    pod = pods.get(caller)
    return None if pod is None or pod.finished else pod


def owner_of(address: Address, pods: Store[Pod]) -> Pod | None:
    """Return the pod with this address. Raises Ambiguous; None: no pod of this node has it."""
    candidates = [pod for pod in pods.by("address", address) if not pod.finished]
    lasting = [pod for pod in candidates if not pod.metadata.terminating]
    if len(lasting) == 1:
        return lasting[0]
    if len(candidates) > 1:
        raise Ambiguous(f"{len(candidates)} pods of this node have the address {address}")
    if candidates and any(_awaits_address(pod) for pod in pods):
        raise Ambiguous(f"the pod with the address {address} is terminating, and another waits for an address")
    return candidates[0] if candidates else None


def _awaits_address(pod: Pod) -> bool:
    lives = not (pod.finished or pod.metadata.terminating or pod.spec.host_network)
    return lives and not pod.addresses


class LiveLookup:
    """This node's pods straight from the API server, for a caller that the cache does not know yet."""

    def __init__(self, client: KubeClient, node: str) -> None:
        self._client = client
        self._node = node
        self._lock = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._listed_at = float("-inf")
        self._pods = _store(())

    def recent(self, caller: Caller) -> Pod | None:
        """Return the caller's pod from the last lookup while that counts; None also when it is ambiguous there."""
        if self._clock() - self._listed_at >= _LOOKUP_PAUSE:
            return None
        try:
            return pod_of(caller, self._pods)
        except Ambiguous:
            return None

    async def find(self, caller: Caller) -> Pod | None:
        """Return the pod, or None: also when the API server does not answer. Takes 3 seconds at the very most."""
        async with self._lock:
            if self._clock() - self._listed_at >= _LOOKUP_PAUSE:
                self._pods = _store(await self._list())
                self._listed_at = self._clock()
        return self.recent(caller)

    async def _list(self) -> list[Pod]:
        query = {"fieldSelector": f"spec.nodeName={self._node}"}
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await self._client.list(PODS, query=query)
            return msgspec.convert(found["items"], list[Pod])
        except (KubernetesError, TimeoutError, msgspec.ValidationError, KeyError, TypeError) as error:
            _log.warning("live_lookup_failed", error=str(error) or type(error).__name__)
            return []


def _store(pods: "list[Pod] | tuple[()]") -> Store[Pod]:
    store: Store[Pod] = Store({"address": lambda pod: pod.addresses})
    store.replace(pods)
    return store
