"""From a caller to a token: look, decide, hold, fetch, and look again before the token leaves.

The whole way of a request in one place; the parts decide on their own (`callers`, `rights`, `tokens`). One look is
synchronous, so what it sees is one moment; whatever takes time is followed by another look.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from podidentity.api.identities import (
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
)
from podidentity.api.imds import Token
from podidentity.api.workloads import Pod
from podidentity.azure.errors import AzureError, TokenRefused
from podidentity.kube.informer import Informer
from podidentity.node.callers import Ambiguous, Caller, LiveLookup, pod_of
from podidentity.node.pulse import Pulse
from podidentity.node.refusal import Refusal, not_yet
from podidentity.node.request import TokenRequest
from podidentity.node.rights import Awaited, Evidence, Pending, decide
from podidentity.node.settings import NodeSettings
from podidentity.node.tokens import TokenService

_LAG = 2.0
"""Seconds after which a client should ask again when the API server has not told us of its pod yet."""
_SOON = 5.0
"""Seconds after which to ask again while Azure or IMDS is at work."""
_LAST = 3.0
"""Seconds that a fetch under way gets when the agent ends: less than the server's drain, so that all are answered."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, and for whom: what the audit line needs."""

    token: Token
    pod: Pod
    assigned: AzureAssignedIdentity


@dataclass(frozen=True, slots=True)
class _Right:
    """This pod may have a token of this identity, at this moment."""

    pod: Pod
    assigned: AzureAssignedIdentity


@dataclass(frozen=True, slots=True)
class _Hold:
    """The answer may change for the better until `patience` seconds after the request came; then it is `refusal`."""

    patience: float
    refusal: Refusal
    pod: Pod | None = None
    """Whose request it is, where that is certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the node agent knows of the cluster."""

    pods: Informer[Pod]
    assigned: Informer[AzureAssignedIdentity]
    bindings: Informer[AzureIdentityBinding]
    identities: Informer[AzureIdentity]

    @property
    def age(self) -> float:
        """Seconds since the API server was last heard, on whatever it was silent the longest."""
        return max(informer.age for informer in self.informers.values())

    @property
    def informers(self) -> dict[str, Informer[Any]]:
        """All of them, by the name of their resource."""
        return {
            "pods": self.pods,
            "azureassignedidentities": self.assigned,
            "azureidentitybindings": self.bindings,
            "azureidentities": self.identities,
        }

    def subscribe(self, pulse: Pulse) -> None:
        """Beat at every change."""
        for informer in self.informers.values():
            informer.add_handler(pulse.beat)


class Issuer:
    """Answers token requests. Every method raises Refusal instead of answering no."""

    def __init__(self, settings: NodeSettings, *, cluster: Cluster, lookup: LiveLookup, tokens: TokenService) -> None:
        self._settings = settings
        self._cluster = cluster
        self._lookup = lookup
        self._tokens = tokens
        self._clock = asyncio.get_running_loop().time
        self._pulse = Pulse()
        self._waiting: Counter[Caller] = Counter()
        self._closed = asyncio.Event()
        cluster.subscribe(self._pulse)

    def at_once(self, caller: Caller, request: TokenRequest) -> Issued | None:
        """Issue a token that is in the cache; None: it takes time, ask `issue`."""
        look = self._look(caller, request)
        if not isinstance(look, _Right):
            return None
        token = self._tokens.cached(look.assigned.identity, request.resource)
        return Issued(token, look.pod, look.assigned) if token else None

    async def issue(self, caller: Caller, request: TokenRequest) -> Issued:
        """Issue a token, holding the request as long as its answer may still change for the better."""
        started = self._clock()
        pod: Pod | None = None
        fetched: tuple[AzureIdentity, Token] | None = None
        with self._counted(caller):
            while True:
                look = self._look(caller, request)
                if look is None:
                    if await self._lookup.find(caller) is None:
                        raise not_yet(f"no pod that is known on this node is {caller}", _LAG)
                    continue
                pod = _same(pod, look.pod)
                if isinstance(look, _Hold):
                    await self._hold(look, started)
                else:
                    identity = look.assigned.identity
                    if fetched and fetched[0] == identity:
                        return Issued(fetched[1], look.pod, look.assigned)
                    fetched = identity, await self._fetch(identity, request.resource)

    def close(self) -> None:
        """Let nobody wait any more: what is held is told to come again. What is being fetched goes on."""
        self._closed.set()
        self._pulse.beat()

    def _look(self, caller: Caller, request: TokenRequest) -> _Right | _Hold | None:
        """Say what the answer would be at this moment; None: the caller is not known."""
        if self._cluster.age > self._settings.stale_cache_limit:
            raise not_yet("the Kubernetes API has not answered for too long to know who may have a token", _SOON)
        try:
            pod = pod_of(caller, self._cluster.pods.store) or self._lookup.recent(caller)
        except Ambiguous as error:
            refusal = not_yet(f"it is not certain yet whose request this is: {error}", _LAG)
            return _Hold(self._settings.handover_wait, refusal)
        if pod is None:
            return None
        decision = decide(self._evidence(pod), request.selector)
        if isinstance(decision, Refusal):
            raise decision
        if isinstance(decision, Pending):
            return self._pending(decision, pod)
        if decision.identity.type is not IdentityType.USER_ASSIGNED:
            raise Refusal(403, "unsupported_identity", "service principals are not served by this version")
        return _Right(pod, decision)

    def _pending(self, pending: Pending, pod: Pod) -> _Hold:
        if pending.awaited is Awaited.ASSIGNMENT:
            return _Hold(self._settings.assignment_wait, not_yet(pending.reason, _SOON), pod)
        words = f"no identity is bound to this pod: {pending.reason}"
        return _Hold(self._settings.unbound_wait, Refusal(404, "not_found", words), pod)

    def _evidence(self, pod: Pod) -> Evidence:
        return Evidence(
            pod=pod,
            node=self._settings.node,
            assigned=self._cluster.assigned.store.by("pod", pod.key),
            bindings=self._cluster.bindings.store.by("selector", pod.binding_label),
            identity_of=self._cluster.identities.store.get,
            namespaced=self._settings.namespaced,
        )

    async def _hold(self, hold: _Hold, started: float) -> None:
        """Wait for the next change of anything. Raises Refusal when the patience is over."""
        left = started + hold.patience - self._clock()
        if left <= 0:
            raise hold.refusal
        if self._closed.is_set():
            raise _stopping()
        await self._pulse.wait(left)

    async def _fetch(self, identity: AzureIdentity, audience: str) -> Token:
        try:
            return await self._unless_closed(self._tokens.token(identity, audience))
        except TokenRefused as error:
            raise _refused(error) from error
        except AzureError as error:
            raise not_yet(str(error), _SOON) from error

    async def _unless_closed(self, work: Coroutine[Any, Any, Token]) -> Token:
        """Wait for something that takes time, but not long beyond the end of the agent."""
        task = asyncio.create_task(work, name="token")
        closed = asyncio.create_task(self._closed.wait(), name="closed")
        try:
            await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({task}, timeout=_LAST)
            if not task.done():
                raise _stopping()
            return task.result()
        finally:
            task.cancel()
            closed.cancel()

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[None]:
        """Bound what one pod can make us hold and fetch at once."""
        if self._waiting[caller] >= self._settings.held_per_pod:
            raise not_yet(f"{self._waiting[caller]} requests of this pod wait already", _SOON)
        self._waiting[caller] += 1
        try:
            yield
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]


def _stopping() -> Refusal:
    return not_yet("the node agent is being stopped; the next one answers", _LAG)


def _same(before: Pod | None, now: Pod | None) -> Pod | None:
    """Make sure that a request has the caller that it had, not a pod that got its address meanwhile."""
    if before is not None and now is not None and before.metadata.uid != now.metadata.uid:
        raise not_yet("the address of this request has gone to another pod", _LAG)
    return now or before


def _refused(error: TokenRefused) -> Refusal:
    """Turn IMDS's refusal into ours: what passes stays retryable, what stands does not become so."""
    if error.status == 429:
        return Refusal(429, error.error, error.description, error.retry_after or _LAG)
    if error.status == 410 or (error.status == 400 and "identity not found" in error.description.lower()):
        return not_yet("Azure has not brought the identity to this machine yet", _SOON)
    if error.status >= 500:
        return Refusal(error.status, error.error, error.description, error.retry_after or _SOON)
    if error.status < 400:
        return not_yet(f"IMDS answered {error.status}, which is no answer to a request for a token", _SOON)
    return Refusal(error.status, error.error, error.description)
