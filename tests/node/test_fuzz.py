"""Whatever bytes a pod sends: it gets an answer or is cut, and IMDS sees only what `ImdsClient` builds."""

import asyncio
import re

import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podidentity.api.imds import TOKEN_PATH
from podidentity.emulator.azure.service import LoggedRequest
from tests.node.served import POD, READY, Served, node
from tests.node.wire import request

METHODS = st.sampled_from([b"GET", b"GET", b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"G\xc3T"])
PATHS = st.sampled_from(
    [
        *([TOKEN_PATH.encode()] * 4),
        b"//metadata/identity/oauth2/token/",
        b"/metadata/identity\\oauth2\\token/",
        b"/metadata/identity/issuecredential",
        b"/metadata/instance",
        b"/host/token/",
        b"http://169.254.169.254" + TOKEN_PATH.encode(),
        b"/metadata/identity%2foauth2%2ftoken",
        b"*",
        b"/",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [b"https://vault.azure.net", b"client-one", b"", b"x&resource=y", b"%0d%0aX-A: b", b"\r\nX: y", b"%00", b"#"]
    ),
    st.binary(max_size=8),
)
NAMES = st.sampled_from(
    [b"resource", b"resource", b"client_id", b"msi_res_id", b"api-version", b"bypass_cache", b"%72esource"]
)
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=3).map(lambda them: b"&".join(map(b"=".join, them)))
HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *([b"Metadata: true"] * 3),
                b"Metadata:true",
                b"Metadata : true",
                b"X-Forwarded-For: 10.244.0.6",
                b"Transfer-Encoding: chunked",
                b"Content-Length: 3",
                b"Content-Length: -1",
                b"Expect: 100-continue",
                b"Upgrade: h2c\r\nConnection: Upgrade",
                b"Host: 169.254.169.254",
                b"podns: default\r\npodname: web",
            ]
        ),
        st.binary(max_size=10),
    ),
    max_size=4,
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of parts, each of which is right or wrong in itself."""
    query = draw(QUERIES)
    target = draw(PATHS) + (b"?" + query if query else b"")
    lines = [draw(METHODS) + b" " + target + b" HTTP/1.1", *draw(HEADERS), b"", draw(st.sampled_from([b"", b"abc"]))]
    return draw(ENDS).join(lines)


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """The request of a well-behaved client, with a few bytes changed."""
    data = request()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
    return data


STATUS = re.compile(rb"(?:^|\r\n\r\n|\})HTTP/1\.1 (\d{3}) ")


async def turns(count: int) -> None:
    """Let the loop go round, which client and server share: no time needs to pass."""
    for _ in range(count):
        await asyncio.sleep(0)


async def exchange(served: Served, data: bytes) -> list[int]:
    """Send bytes and return the statuses that came back until the server has no more to say."""
    async with served.connection(POD) as wire:
        wire.send(data)
        await turns(100)
        async with asyncio.timeout(10):
            while served.town.issuer._waiting:
                await asyncio.sleep(0.001)
        await turns(20)
        received = wire.arrived
    return [int(it) for it in STATUS.findall(received)]


def is_ours(asked: LoggedRequest) -> bool:
    names = [name for name, _ in asked.query]
    return (
        (asked.method, asked.raw_path, asked.body) == ("GET", TOKEN_PATH, b"")
        and names == ["api-version", "resource", "client_id"]
        and asked.parameter("api-version") == "2018-02-01"
        and asked.parameter("client_id") == "client-one"
        and {name for name, _ in asked.headers} == {"host", "metadata", "accept", "accept-encoding", "user-agent"}
        and asked.header("metadata") == "true"
    )


def test_no_bytes_break_the_server_or_reach_imds():
    statuses: list[int] = []
    with asyncio.Runner() as runner:
        context = node(*READY)
        served = runner.run(context.__aenter__())

        @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.one_of(requests(), nearly_right(), nearly_right(), st.binary(max_size=100)))
        def fuzz(data: bytes) -> None:
            served.town.imds.log.clear()
            with structlog.testing.capture_logs() as logs:
                seen = runner.run(exchange(served, data))
            statuses.extend(seen)
            assert not [it for it in seen if it >= 500]
            assert not [it for it in logs if it["log_level"] in {"error", "critical"}]
            assert all(is_ours(it) for it in served.town.imds.log)

        try:
            fuzz()
        finally:
            runner.run(context.__aexit__(None, None, None))
    assert {200, 400, 404} <= set(statuses)
