"""Health and metrics over HTTP: upstream's `/healthz` with its words, `/livez`, `/readyz`, `/metrics`."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str]
"""Returns what is wrong, in words; empty when all is well."""


class Endpoints:
    """A small ASGI application; both modes serve it on the probe port and the metrics port."""

    def __init__(self, *, registry: CollectorRegistry, ready: Check, active: Callable[[], bool]) -> None:
        self._registry = registry
        self._ready = ready
        self._active = active

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        """Answer one request; the body of it is never read."""
        status, content, body = self._answer(scope["path"])
        headers = [(b"content-type", content.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        text = "text/plain; charset=utf-8"
        match path:
            case "/healthz":
                return 200, text, b"Active" if self._active() else b"Not Active"
            case "/livez":
                return 200, text, b"ok"
            case "/readyz":
                problem = self._ready()
                return (503, text, problem.encode()) if problem else (200, text, b"ok")
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return 404, text, b"here are /healthz, /livez, /readyz and /metrics"
