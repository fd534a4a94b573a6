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

    path: Path
    host: str
    port: int
    scheme: str
    cluster: dict[str, Any]
    user: dict[str, Any]

    @property
    def server(self) -> str:
        """Return the server as its user wrote it."""
        return str(self.cluster["server"])

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
        return _read(path)
    except OSError as error:
        named = "" if error.filename == str(path) else f"{error.filename}: "  # a certificate or key that it names
        problem = f"{named}{error.strerror}"
    except yaml.YAMLError:
        problem = "it is no YAML"
    except UnicodeDecodeError:
        problem = "it is no text"
    except _Unusable as error:
        problem = str(error)
    raise ConfigurationError(f"the kubeconfig {path} cannot be used: {problem}")


class _Unusable(Exception):
    """Says what is wrong with a kubeconfig."""


def _read(path: Path) -> Given:
    config = yaml.safe_load(path.read_text())
    if not isinstance(config, dict) or not isinstance(name := config.get("current-context"), str) or not name:
        raise _Unusable("it has no current-context")
    context = _named(config, "context", name)
    cluster = _self_contained(_named(config, "cluster", context.get("cluster")), path.parent)
    user = _self_contained(_named(config, "user", context.get("user")), path.parent)
    if "exec" in user or "auth-provider" in user:
        raise _Unusable(
            "it logs in with a program, which has no network inside the demo: "
            "give one with a token or a client certificate"
        )
    try:
        server = urlsplit(cluster.get("server") or "")
        port = server.port
    except (ValueError, AttributeError):
        raise _Unusable(f"its server {cluster['server']!r} is no URL") from None
    if not server.hostname or server.scheme not in _PORTS:
        raise _Unusable(f"it names no server: {cluster.get('server')!r}")
    return Given(path, server.hostname, port or _PORTS[server.scheme], server.scheme, cluster, user)


def _named(config: dict[str, Any], kind: str, name: Any) -> dict[str, Any]:
    """Return the context, cluster or user of a name; `users: [{name: a, user: {...}}]` is how each is kept."""
    entries = config.get(f"{kind}s")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(kind) or {}
            if isinstance(found, dict):
                return found
    raise _Unusable(f"it has no {kind} {name!r}")


def _self_contained(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put the contents of files in place of their names: the lab has a /run of its own."""
    result = dict(section)
    for name in _FILES:
        if file := result.pop(name, None):
            result[f"{name}-data"] = base64.b64encode((folder / str(file)).read_bytes()).decode()
    if file := result.pop("tokenFile", None):
        result["token"] = (folder / str(file)).read_text().strip()
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
