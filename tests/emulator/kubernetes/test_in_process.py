"""The application without sockets, as the simulation calls it."""

import asyncio
from typing import Any

from podidentity.emulator.kubernetes import ClusterState, kubernetes_app


class Exchange:
    """One request, called in-process: what was sent so far, and whether the response was finished."""

    def __init__(self, state: ClusterState, method: str, path: str, query: str = "", body: bytes = b"") -> None:
        self.status = 0
        self.body = b""
        self.finished = False
        self.arrived = asyncio.Event()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._inbox.put_nowait({"type": "http.request", "body": body})
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"content-type", b"application/json")],
        }
        self.task = asyncio.ensure_future(kubernetes_app(state)(scope, self._inbox.get, self._send))

    def hang_up(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        self.finished = message["type"] == "http.response.body" and not message.get("more_body")
        if message.get("body"):
            self.arrived.set()


PATH = "/api/v1/namespaces/default/configmaps"


async def test_requests_are_answered_without_a_socket():
    state = ClusterState()
    exchange = Exchange(state, "POST", PATH, body=b'{"metadata":{"name":"a"}}')
    await exchange.task
    assert (exchange.status, exchange.finished) == (201, True)


async def test_watches_stream_and_an_abort_is_an_unfinished_response():
    state = ClusterState()
    watch = Exchange(state, "GET", PATH, "watch=1")
    await Exchange(state, "POST", PATH, body=b'{"metadata":{"name":"a"}}').task
    await watch.arrived.wait()
    assert watch.body.startswith(b'{"type":"ADDED"')
    state.faults.cut_streams()
    await watch.task
    assert not watch.finished
    assert not watch.body.endswith(b"\n")


async def test_a_client_that_hangs_up_ends_its_watch():
    state = ClusterState()
    watch = Exchange(state, "GET", PATH, "watch=1")
    await asyncio.sleep(0)
    watch.hang_up()
    await watch.task
    assert not state.faults.streams
