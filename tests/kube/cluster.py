"""A small cluster in memory, what is done to it, and an informer on it."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml

from podidentity.api.decoding import decode
from podidentity.api.meta import Key, Meta
from podidentity.emulator.kubernetes import Call, ClusterState
from podidentity.emulator.kubernetes import resources as emulated
from podidentity.emulator.kubernetes.deletion import DeleteOptions, delete
from podidentity.emulator.kubernetes.incoming import WriteOptions
from podidentity.emulator.kubernetes.writes import create, patch
from podidentity.kube.reflector import Reflector, ReflectorSettings, Source
from podidentity.kube.resources import CONFIG_MAPS
from podidentity.kube.transport import Transport

COLLECTION = "/api/v1/configmaps"


class ConfigMap(msgspec.Struct, frozen=True):
    """Small enough to count, and the API server lets anything into it."""

    metadata: Meta
    data: dict[str, str] = {}

    @property
    def color(self) -> str:
        return self.metadata.label("color") or ""


def cluster() -> ClusterState:
    return ClusterState(clock=lambda: 1_700_000_000.0, rng=random.Random(1))


def put(state: ClusterState, name: str, *, color: str = "", namespace: str = "default", **data: str) -> None:
    """Create a ConfigMap, or change it."""
    target = emulated.Target(emulated.CONFIG_MAPS, namespace, name)
    labels = {"color": color} if color else {}
    if target.key in state.collection(emulated.CONFIG_MAPS).objects:
        patch(
            state,
            target,
            lambda old: old | {"data": data, "metadata": old["metadata"] | {"labels": labels}},
            WriteOptions(),
        )
    else:
        body = {"metadata": {"name": name, "labels": labels}, "data": data}
        create(state, emulated.Target(emulated.CONFIG_MAPS, namespace), body, WriteOptions())


def remove(state: ClusterState, name: str, *, namespace: str = "default") -> None:
    delete(state, emulated.Target(emulated.CONFIG_MAPS, namespace, name), DeleteOptions())


def stored(state: ClusterState) -> dict[Key, str]:
    """The resource version of each ConfigMap at the server."""
    objects = state.collection(emulated.CONFIG_MAPS).objects.values()
    return {
        Key(it["metadata"]["namespace"], it["metadata"]["name"]): it["metadata"]["resourceVersion"] for it in objects
    }


def source(**options: Any) -> Source[ConfigMap]:
    read = partial(decode, msgspec.json.Decoder(ConfigMap))
    wanted: dict[str, Any] = {"resource": CONFIG_MAPS, "decode": read}
    return Source(**wanted | options)


def reflector(
    transport: Transport, *, settings: ReflectorSettings | None = None, seed: int = 0, **options: Any
) -> Reflector[ConfigMap]:
    return Reflector(transport, source(**options), settings=settings, rng=random.Random(seed))


def is_list(call: Call) -> bool:
    return call.path == COLLECTION and not call.is_watch


def is_watch(call: Call) -> bool:
    return call.path == COLLECTION and call.is_watch


def kubeconfig(folder: Path, server: str, *, user: Any = None, **cluster: Any) -> str:
    """Write a kubeconfig with one context; return its path."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "test", "user": user or {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return str(path)
