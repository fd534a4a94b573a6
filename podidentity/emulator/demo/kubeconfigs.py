"""Kubeconfig files: for the stand-in, and a user's own made usable inside the lab."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from podidentity.api.errors import ConfigurationError

_FILES = ("certificate-authority", "client-certificate", "client-key")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Given:
    """A real API server as a kubeconfig describes it, with every file read into the text."""

    host: str
    port: int
    scheme: str
    cluster: dict[str, Any]
    user: dict[str, Any]

    def at(self, address: str, port: int) -> str:
        """Return a kubeconfig that reaches the server at another address, and checks its certificate as before."""
        cluster = {**self.cluster, "server": f"{self.scheme}://{address}:{port}"}
        if self.scheme == "https":
            cluster.setdefault("tls-server-name", self.host)
        return _kubeconfig(cluster, self.user)


def stand_in(server: str, ca_pem: bytes, token: str) -> str:
    """Return the kubeconfig of the stand-in."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    return _kubeconfig(cluster, {"token": token})


def given(path: Path) -> Given:
    """Read the current context of a user's kubeconfig. Raises ConfigurationError."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _self_contained(_named(config["clusters"], context["cluster"])["cluster"], path.parent)
        user = _self_contained(_named(config["users"], context["user"])["user"] or {}, path.parent)
        server = urlsplit(cluster["server"])
    except yaml.YAMLError:
        raise ConfigurationError(f"the kubeconfig {path} cannot be read: it is no YAML") from None
    except (OSError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ConfigurationError(f"the kubeconfig {path} cannot be read: {type(error).__name__} {error}") from None
    if "exec" in user or "auth-provider" in user:
        raise ConfigurationError(
            f"the kubeconfig {path} logs in with a program, which has no network inside the demo: "
            "give one with a token or a client certificate"
        )
    if not server.hostname or server.scheme not in _PORTS:
        raise ConfigurationError(f"the kubeconfig {path} names no server: {cluster['server']!r}")
    return Given(server.hostname, server.port or _PORTS[server.scheme], server.scheme, cluster, user)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _self_contained(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put the contents of files in place of their names: the lab has a /run of its own."""
    result = dict(section)
    for name in _FILES:
        if file := result.pop(name, None):
            result[f"{name}-data"] = base64.b64encode((folder / file).read_bytes()).decode()
    if file := result.pop("tokenFile", None):
        result["token"] = (folder / file).read_text().strip()
    return result


def _kubeconfig(cluster: dict[str, Any], user: dict[str, Any]) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "demo", "cluster": cluster}],
            "users": [{"name": "demo", "user": user}],
            "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo"}}],
            "current-context": "demo",
        }
    )
