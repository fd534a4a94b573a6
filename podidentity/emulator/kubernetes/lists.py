"""Lists: at which revision, which page, and the token for the next one."""

import asyncio
import base64
from dataclasses import dataclass

import msgspec

from podidentity.emulator.kubernetes.errors import ApiError, Object, bad_request, expired, too_large_revision
from podidentity.emulator.kubernetes.kinds import served_form
from podidentity.emulator.kubernetes.options import ListOptions
from podidentity.emulator.kubernetes.resources import Resource
from podidentity.emulator.kubernetes.state import ClusterState

_TOKEN_VERSION = "meta.k8s.io/v1"
_POLL = 0.05  # seconds between looks for a revision still to come: what the real watch cache's tick comes to
_EXPIRED_TOKEN = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Page:
    """Objects in the client's version, and the `metadata` of the list."""

    items: list[Object]
    metadata: Object


@dataclass(frozen=True, slots=True)
class _Where:
    """Where a page begins: the revision, the namespace's key prefix, the first key below it, and how much fits."""

    revision: int
    prefix: str
    start: str
    limit: int


class _Token(msgspec.Struct):
    v: str
    rv: int
    start: str


async def list_page(state: ClusterState, resource: Resource, namespace: str | None, options: ListOptions) -> Page:
    """Read a page.

    Raises:
        ApiError: 410 when the revision or the token is too old, 504 when the revision does not exist yet.

    """
    if options.continue_token:
        return _continued(state, resource, namespace, options)
    if options.revision:
        await reached(state, options.revision)
    limited = options.limit and options.revision != 0
    if options.match == "Exact" or (limited and options.revision and not options.match):
        revision = options.revision or state.revision
    else:
        revision = state.revision
    where = _Where(revision, f"{namespace}/" if namespace else "", "", options.limit if limited else 0)
    return _page(state, resource, options, where)


async def reached(state: ClusterState, revision: int) -> None:
    """Wait until the cluster has reached a revision.

    Raises:
        ApiError: 504 when it does not within the settings' time.

    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + state.settings.freshness_wait
    while state.revision < revision:
        if loop.time() >= deadline:
            raise too_large_revision(revision, state.revision)
        await asyncio.sleep(_POLL)


def _continued(state: ClusterState, resource: Resource, namespace: str | None, options: ListOptions) -> Page:
    if options.revision:
        raise bad_request("specifying resource version is not allowed when using continue")
    token = _decode(options.continue_token)
    start = token.start.removeprefix("/")
    # An inconsistent token, as handed out with a 410, means "whatever is there now".
    revision = token.rv if token.rv > 0 else state.revision
    try:
        where = _Where(revision, f"{namespace}/" if namespace else "", start, options.limit)
        return _page(state, resource, options, where)
    except ApiError as error:
        raise expired(_EXPIRED_TOKEN, continue_token=_encode(-1, start)) from error


def _page(state: ClusterState, resource: Resource, options: ListOptions, where: _Where) -> Page:
    collection, prefix = state.collection(resource), where.prefix
    objects = collection.objects if where.revision == state.revision else collection.at(where.revision)
    keys = sorted(key for key in objects if key.startswith(prefix) and key.removeprefix(prefix) >= where.start)
    items: list[Object] = []
    metadata: Object = {"resourceVersion": str(where.revision)}
    for position, key in enumerate(keys):
        if where.limit and len(items) == where.limit:
            metadata["continue"] = _encode(where.revision, keys[position - 1].removeprefix(prefix) + "\0")
            if not options.has_selector:
                metadata["remainingItemCount"] = len(keys) - position
            break
        if options.selects(objects[key]):
            items.append(served_form(resource, objects[key]))
    return Page(items, metadata)


def _encode(revision: int, start: str) -> str:
    data = msgspec.json.encode(_Token(v=_TOKEN_VERSION, rv=revision, start=f"/{start}"))
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(token: str) -> _Token:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=_Token)
    except ValueError as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error
