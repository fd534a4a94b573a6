"""The HTTP side over real sockets."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import structlog

from podidentity.emulator.azure.service import Delay
from podidentity.node.paths import Endpoint
from tests.node.objects import assigned
from tests.node.served import HOST, POD, READY, Served, node
from tests.node.wire import Answer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one node for most tests: starting one takes half a second

TOKEN = b"/metadata/identity/oauth2/token"
QUERY = b"?api-version=2018-02-01&resource=https://vault.azure.net"
STRINGS = {
    *("access_token", "refresh_token", "expires_in", "expires_on", "ext_expires_in", "not_before", "resource"),
    *("token_type", "client_id"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Served]:
    async with node(*READY) as shared:
        yield shared


@pytest.fixture
def served(shared: Served) -> Served:
    """A node with an assigned pod, on which every test leaves only cached tokens behind."""
    shared.town.imds.log.clear()
    shared.ahead = 0.0
    return shared


def is_refusal(answer: Answer) -> bool:
    """Whether it has all that a client's error handling looks at."""
    return (
        answer.headers["content-type"] == "application/json; charset=utf-8"
        and set(answer.json) == {"error", "error_description"}
        and all(isinstance(it, str) and it for it in answer.json.values())
        and "location" not in answer.headers
        and "server" not in answer.headers
    )


async def test_a_token_has_the_only_shape_that_every_client_reads(served):
    answer = await served.ask(request(TOKEN + QUERY))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json) == STRINGS
    assert all(isinstance(it, str) for it in answer.json.values())
    assert answer.json["resource"] == "https://vault.azure.net"
    assert (answer.json["client_id"], answer.json["token_type"]) == ("client-one", "Bearer")
    assert int(answer.json["expires_on"]) > int(answer.json["not_before"])


async def test_expires_in_is_counted_for_each_answer(served):
    first = (await served.ask(request())).json
    served.ahead = 100.0
    second = (await served.ask(request())).json
    assert second["access_token"] == first["access_token"]
    assert int(first["expires_in"]) - int(second["expires_in"]) in {100, 101}


@pytest.mark.parametrize(
    "path",
    [
        TOKEN + QUERY,
        b"/" + TOKEN + QUERY,
        TOKEN + b"/" + QUERY,
        b"/METADATA/identity/oauth2/token" + QUERY,
        b"http://169.254.169.254" + TOKEN + QUERY,
        b"http://anything.example:99" + TOKEN + QUERY,
        TOKEN + QUERY + b"#fragment",
        TOKEN + QUERY.replace(b":", b"%3A").replace(b"/", b"%2F"),
    ],
)
async def test_each_spelling_of_a_client_is_answered(served, path):
    assert (await served.ask(request(path))).status == 200


@pytest.mark.parametrize(
    "path",
    [
        TOKEN.replace(b"y/o", b"y\\o") + QUERY,
        TOKEN + b"%00" + QUERY,
        b"/" + TOKEN.replace(b"/", b"%2f") + QUERY,
        b"/%2e%2e" + TOKEN + QUERY,
        b"/x/.." + TOKEN + QUERY,
        TOKEN + b"//" + QUERY,
        TOKEN + b";a=b" + QUERY,
    ],
)
async def test_an_odd_path_is_400(served, path):
    answer = await served.ask(request(path))
    assert answer.status == 400
    assert is_refusal(answer)
    assert served.town.asked == 0


PATHS = [
    *(
        b"/",
        b"/docs",
        b"/openapi.json",
        b"/redoc",
        b"/host",
        b"/metadata",
        b"/metadata/instance?api-version=2021-02-01",
    ),
    *(
        b"/latest/meta-data/",
        b"/computeMetadata/v1/",
        b"/metadata/identity",
        b"/metadata/identity/info",
        TOKEN,
        b"/%",
    ),
    *(TOKEN + b"?resource=%ff", TOKEN + b"?resource=a&resource=b", TOKEN + b"?" + b"a=b&" * 500, b"/" + b"a" * 20000),
    *(b"*", b"http://host/", b"/host/token", b"/host/token/?resource=x"),
]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND"])
async def test_every_path_with_every_method_gets_a_refusal_in_json_at_once(served, method):
    for path in PATHS:
        for metadata in (True, False):
            answer = await served.ask(request(path, method=method, metadata=metadata))
            assert answer.status in {400, 403, 404, 405}, path
            assert is_refusal(answer), path
            assert "retry-after" not in answer.headers


@pytest.mark.parametrize("method", [b"PUT", b"DELETE", b"OPTIONS"])
async def test_another_method_is_405(served, method):
    answer = await served.ask(request(TOKEN + QUERY, method=method))
    assert answer.status == 405
    assert is_refusal(answer)


async def test_head_is_405_without_a_body_and_the_connection_goes_on(served):
    async with served.connection() as wire:
        wire.send(request(method=b"HEAD"))
        assert (await wire.answer(has_body=False)).status == 405
        wire.send(request())
        assert (await wire.answer()).status == 200


async def test_post_with_everything_in_the_url_is_answered(served):
    assert (await served.ask(request(b"" + TOKEN + QUERY, b"Content-Length: 0", method=b"POST"))).status == 200


@pytest.mark.parametrize(
    "path", [TOKEN, TOKEN + b"?api-version=2018-02-01", TOKEN + QUERY, TOKEN + QUERY + b"&msi-res-id=/x"]
)
async def test_a_probe_without_the_header_gets_400_and_the_connection_stays(served, path):
    async with served.connection() as wire:
        wire.send(request(path, metadata=False))
        probe = await wire.answer()
        assert probe.status == 400
        assert is_refusal(probe)
        assert probe.json["error_description"] == "Required metadata header not specified"
        assert served.town.asked == 0
        wire.send(request(TOKEN + QUERY))
        assert (await wire.answer()).status == 200


async def test_a_probe_is_answered_though_nothing_is_known_of_the_cluster():
    async with node(synced=False) as served:
        served.town.api.state.faults.answer(500, times=None)
        assert (await served.ask(request(TOKEN, metadata=False))).status == 400
        assert (await served.ask(request(TOKEN))).status == 400


async def test_the_operator_may_waive_the_header():
    async with node(*READY, header_required=False) as served:
        assert (await served.ask(request(TOKEN + QUERY, metadata=False))).status == 200
        assert (await served.ask(request(TOKEN, metadata=False))).status == 400


@pytest.mark.parametrize("path", [TOKEN + QUERY, b"/metadata/instance", b"/host/token/?resource=x"])
@pytest.mark.parametrize("source", [POD, HOST])
async def test_a_forwarded_request_is_refused(served, path, source):
    data = request(path, b"X-Forwarded-For: 10.244.0.5", b"podns: default", b"podname: web")
    answer = await served.ask(data, source=source)
    assert answer.status in ({403} if path.startswith(b"/host") and source == POD else {400})
    assert is_refusal(answer)
    assert served.town.asked == 0


@pytest.mark.parametrize("path", [b"getplatformmetadata?cred-api-version=2.0", b"issuecredential", b"info"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("metadata", [True, False])
async def test_nothing_else_of_identities_is_served_and_that_is_404_even_without_the_header(
    served, path, method, metadata
):
    answer = await served.ask(request(b"/metadata/identity/" + path, method=method, metadata=metadata))
    assert answer.status == 404
    assert is_refusal(answer)
    assert served.town.asked == 0


async def test_a_refusal_that_passes_says_when_to_come_again(served):
    answer = await served.ask(request(), source="127.0.0.99")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert is_refusal(answer)


async def test_a_program_of_the_host_asks_in_the_name_of_a_pod(served):
    data = request(
        b"/host/token/?resource=https://vault.azure.net", b"podns: default", b"podname: web", metadata=False
    )
    answer = await served.ask(data, source=HOST)
    assert answer.status == 200
    assert answer.json["clientid"] == "client-one"
    assert set(answer.json["token"]) == STRINGS


async def test_a_pod_cannot_ask_in_the_name_of_another(served):
    data = request(b"/host/token/?resource=x", b"podns: default", b"podname: web")
    answer = await served.ask(data, source=POD)
    assert answer.status == 403
    assert is_refusal(answer)
    assert served.town.asked == 0


@pytest.mark.parametrize("headers", [[], [b"podns: default"], [b"podname: web"], [b"podns: ", b"podname: web"]])
async def test_a_program_of_the_host_must_name_a_pod(served, headers):
    answer = await served.ask(request(b"/host/token/?resource=x", *headers), source=HOST)
    assert answer.status == 400
    assert is_refusal(answer)


async def test_a_program_of_the_host_has_no_identity_of_its_own(served):
    answer = await served.ask(request(), source=HOST)
    assert answer.status == 400
    assert "/host/token/" in answer.json["error_description"]


async def test_pipelined_requests_are_answered_in_their_order(served):
    async with served.connection() as wire:
        wire.send(
            request(TOKEN) + request(TOKEN + QUERY) + request(b"/metadata/identity/info") + request(TOKEN + QUERY)
        )
        assert [(await wire.answer()).status for _ in range(4)] == [400, 200, 404, 200]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
        ([b"Content-Length: 5"], b"hello"),
        ([b"Content-Length: 5", b"Expect: 100-continue"], b"hello"),
        ([b"Content-Length: 20000"], b"x" * 20000),
        ([b"Content-Type: application/x-www-form-urlencoded;charset=utf-8"], b""),
    ],
    ids=["chunked", "small", "expects 100", "large", "a type without a body"],
)
async def test_a_body_is_not_looked_at(served, headers, body):
    async with served.connection() as wire:
        for _ in range(2):
            wire.send(request(TOKEN + QUERY, *headers, method=b"POST", body=body))
            assert (await wire.answer()).status == 200


async def test_a_request_whose_body_never_comes_is_answered_all_the_same(served):
    assert (await served.ask(request(TOKEN + QUERY, b"Content-Length: 100", method=b"POST"))).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [b"X: " + b"a" * 20000],
        [b"X-%d: y" % number for number in range(1000)],
        [b"Upgrade: websocket", b"Connection: Upgrade"],
    ],
    ids=["one large", "many", "an upgrade"],
)
async def test_headers_that_mean_nothing_change_nothing(served, headers):
    assert (await served.ask(request(TOKEN + QUERY, *headers))).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        b"GET %2fmetadata HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400_and_the_end(served, garbage):
    async with served.connection() as wire:
        wire.send(garbage)
        assert (await wire.ended()).startswith(b"HTTP/1.1 400 ")


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another connection does to the node."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_held_request_is_dropped_when_its_client_leaves():
    async with node(*READY[:3]) as served:
        async with served.connection() as wire:
            wire.send(request())
            await until(lambda: served.town.issuer._waiting)
        await until(lambda: not served.town.issuer._waiting)


async def test_a_held_request_is_released_by_the_watch():
    async with node(*READY[:3]) as served, served.connection() as wire:
        wire.send(request())
        await until(lambda: served.town.issuer._waiting)
        served.town.api.put(assigned())
        assert (await wire.answer()).status == 200


async def test_a_slow_fetch_goes_on_when_its_client_leaves(served):
    data = request(TOKEN + b"?resource=https://slow.test")
    served.town.imds.faults.add(Delay(0.2), times=1)
    async with served.connection() as wire:
        wire.send(data)
        await until(lambda: served.town.asked)
    answer = await served.ask(data)
    assert (answer.status, served.town.asked) == (200, 1)


async def test_a_failure_of_our_own_is_500_in_json_without_a_trace(served, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(served.town.issuer, "at_once", broken)
    with structlog.testing.capture_logs() as logs:
        answer = await served.ask(request())
    assert answer.status == 500
    assert is_refusal(answer)
    assert b"secret" not in answer.body
    assert [it["event"] for it in logs if it["log_level"] == "error"] == ["request_failed"]


async def test_each_token_leaves_an_audit_line_without_the_token(served):
    with structlog.testing.capture_logs() as logs:
        token = (await served.ask(request())).json["access_token"]
    [line] = [it for it in logs if it["event"] == "token_issued"]
    line.pop("log_level")
    assert line == {
        "event": "token_issued",
        "pod": "web",
        "namespace": "default",
        "service_account": "default",
        "identity": "default/one",
        "client_id": "client-one",
        "audience": "https://vault.azure.net",
        "source": "10.244.0.5",
    }
    assert token not in str(logs)


async def test_metrics_have_no_label_that_a_pod_can_invent(served):
    for number in range(20):
        await served.ask(request(b"/invented-%d" % number))
        await served.ask(request(TOKEN + b"?resource=https://invented-%d" % number))
    [family] = served.town.metrics.request_seconds.collect()
    assert {it.labels["operation_type"] for it in family.samples} <= {it.value for it in Endpoint}
    assert all(set(it.labels) <= {"operation_type", "status_code", "le"} for it in family.samples)


async def test_a_token_from_the_cache_costs_no_task_and_less_than_a_millisecond(served):
    await served.ask(request())
    loop = asyncio.get_running_loop()
    tasks: list[str] = []

    def factory(loop, coroutine, **options):
        tasks.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async with served.connection() as wire:
        times = []
        loop.set_task_factory(factory)
        for _ in range(100):
            started = time.perf_counter()
            wire.send(request())
            await wire.answer()
            times.append(time.perf_counter() - started)
        loop.set_task_factory(None)
    assert [it for it in set(tasks) if it != "RequestResponseCycle.run_asgi"] == []
    # The client's half is in it, and the machine may be busy: the typical request is what is looked at.
    assert statistics.median(times) < 0.003
