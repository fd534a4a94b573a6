"""The informers that the two modes share, each with the indexes that are asked of it."""

import random
from functools import partial
from typing import TypeVar

import msgspec

from podidentity.api.decoding import decode
from podidentity.api.identities import (
    NODE_LABEL,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    read_assigned_identity,
    read_binding,
    read_identity,
)
from podidentity.api.meta import BINDING_LABEL, LONGEST_LABEL
from podidentity.api.workloads import Node, Pod
from podidentity.kube.informer import Informer
from podidentity.kube.reflector import Reflector, ReflectorSettings, Source
from podidentity.kube.resources import ASSIGNED_IDENTITIES, BINDINGS, IDENTITIES, NODES, PODS
from podidentity.kube.store import Indexer, Record
from podidentity.kube.transport import Transport

T = TypeVar("T", bound=Record)

_read_pod = partial(decode, msgspec.json.Decoder(Pod))
_read_node = partial(decode, msgspec.json.Decoder(Node))


class Caches:
    """Makes informers on one API server."""

    def __init__(
        self, transport: Transport, *, settings: ReflectorSettings | None = None, rng: random.Random | None = None
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._rng = rng

    def bound_pods(self) -> Informer[Pod]:
        """All pods that ask for an identity; the server leaves the others out. Indexes: node, label."""
        source = Source(resource=PODS, decode=_read_pod, label_selector=BINDING_LABEL)
        return self._informer(
            source, {"node": lambda pod: [pod.spec.node_name], "label": lambda pod: [pod.binding_label]}
        )

    def pods_on(self, node: str) -> Informer[Pod]:
        """All pods of one node. Index: address (every address of a pod)."""
        source = Source(resource=PODS, decode=_read_pod, field_selector=f"spec.nodeName={node}")
        return self._informer(source, {"address": lambda pod: pod.addresses})

    def nodes(self) -> Informer[Node]:
        """All nodes. Index: target (the VM or scale set under them)."""
        return self._informer(Source(resource=NODES, decode=_read_node), {"target": lambda it: [it.target]})

    def identities(self) -> Informer[AzureIdentity]:
        """All AzureIdentities."""
        return self._informer(Source(resource=IDENTITIES, decode=read_identity), {})

    def bindings(self) -> Informer[AzureIdentityBinding]:
        """All AzureIdentityBindings. Indexes: selector, identity (its key)."""
        return self._informer(
            Source(resource=BINDINGS, decode=read_binding),
            {"selector": lambda it: [it.selector], "identity": lambda it: [it.identity_key]},
        )

    def assigned_identities(self, node: str = "") -> Informer[AzureAssignedIdentity]:
        """AzureAssignedIdentities of one node, or all. Indexes: pod (its key), node."""
        # A label is short: the objects of a node with a longer name have none, and all are watched.
        selector = f"{NODE_LABEL}={node}" if 0 < len(node) <= LONGEST_LABEL else ""
        return self._informer(
            Source(resource=ASSIGNED_IDENTITIES, decode=read_assigned_identity, label_selector=selector),
            {"pod": lambda it: [it.pod], "node": lambda it: [it.node]},
        )

    def _informer(self, source: Source[T], indexers: dict[str, Indexer[T]]) -> Informer[T]:
        return Informer(Reflector(self._transport, source, settings=self._settings, rng=self._rng), indexers)
