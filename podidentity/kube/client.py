"""The few verbs of the Kubernetes API that the project uses, on decoded JSON objects.

Lists and watches are the informer's (`reflector.py`); this is for writes and single reads.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from podidentity.api.decoding import decode
from podidentity.api.meta import Key
from podidentity.kube.errors import MalformedAnswer, NotFound
from podidentity.kube.resources import Resource
from podidentity.kube.transport import JSON, Transport

MERGE_PATCH = "application/merge-patch+json"
_ANY = msgspec.json.Decoder()
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._:-]+")
"""What the API server lets names consist of; RBAC's have colons."""


class KubeClient:
    """Typed by resource, thin by intent: errors are those of `kube.errors`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, resource: Resource, key: Key) -> Any:
        """Return one object."""
        return await self._send("GET", _object_path(resource, key))

    async def list(self, resource: Resource, namespace: str = "", *, query: Mapping[str, str] | None = None) -> Any:
        """Return one list object; for small collections that no informer holds."""
        return await self._send("GET", resource.path(namespace), query=query)

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> Any:
        """Create an object and return it as stored."""
        return await self._send("POST", resource.path(namespace), body=body)

    async def replace(self, resource: Resource, key: Key, body: Mapping[str, Any]) -> Any:
        """Replace an object; the resourceVersion inside decides whether somebody was faster (`Conflict`)."""
        return await self._send("PUT", _object_path(resource, key), body=body)

    async def patch(self, resource: Resource, key: Key, patch: Mapping[str, Any]) -> Any:
        """Apply a JSON merge patch (RFC 7386)."""
        return await self._send("PATCH", _object_path(resource, key), body=patch, content=MERGE_PATCH)

    async def patch_status(self, resource: Resource, key: Key, patch: Mapping[str, Any]) -> Any:
        """Apply a JSON merge patch to the status of a kind that has the status subresource (none of our CRDs has)."""
        return await self._send("PATCH", f"{_object_path(resource, key)}/status", body=patch, content=MERGE_PATCH)

    async def delete(self, resource: Resource, key: Key, *, uid: str = "", grace: int | None = None) -> None:
        """Delete an object.

        With a UID: only the one that has it, not one of the same name that came after it (`Conflict`). `grace` is
        the seconds that a pod gets to end; None leaves them to the pod.
        """
        body: dict[str, Any] = {"preconditions": {"uid": uid}} if uid else {}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        await self._send("DELETE", _object_path(resource, key), body=body)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
    ) -> Any:
        data = None if body is None else msgspec.json.encode(body)
        answer = await self._transport.request(method, path, query=query, body=data, content=content)
        try:
            return decode(_ANY, answer)
        except msgspec.DecodeError as error:
            raise MalformedAnswer(f"{method} {path} was answered with something that is no JSON: {error}") from error


def _object_path(resource: Resource, key: Key) -> str:
    """Return the path of one object.

    Names may come out of a tenant's object, and a path that is put together from `../..` is another object's.
    """
    for part in (key.name, key.namespace) if resource.namespaced else (key.name,):
        if part in {"", ".", ".."} or not _PATH_SEGMENT.fullmatch(part):
            raise NotFound(404, "NotFound", f"no {resource.plural} can have the name {str(key)!r}")
    return resource.path(key.namespace, key.name)
