import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from podidentity.api.imds import Token
from podidentity.azure.errors import ImdsUnreachable, TokenRefused
from podidentity.node import tokens as module
from podidentity.node.tokens import TokenService
from podidentity.telemetry.metrics import NodeMetrics
from tests.node.objects import as_identity, identity
from tests.node.town import EPOCH, wall_clock
from tests.virtual_time import settle, virtual_time

ONE = as_identity(identity("one"))
MAX_AGE = 300.0
AN_HOUR = 3600.0


@dataclass
class SlowImds:
    """Answers after `seconds` with a token that says which call it came from, or raises `error`."""

    seconds: float = 1.0
    error: Exception | None = None
    life: float = AN_HOUR
    text: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def token(self, resource: str, *, client_id: str = "", resource_id: str = "") -> Token:
        self.calls.append((resource, client_id, resource_id))
        number, error = len(self.calls), self.error
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        if error is not None:
            raise error
        return Token(self.text or f"token-{number}", int(wall_clock() + self.life), int(wall_clock()), resource)


def jwt(**claims: str) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.signature"


def service(imds: SlowImds, *, concurrency: int = 4) -> TokenService:
    wired: Any = imds
    return TokenService(
        wired,
        max_age=MAX_AGE,
        concurrency=concurrency,
        metrics=NodeMetrics(CollectorRegistry()),
        wall_clock=wall_clock,
    )


def now() -> float:
    return asyncio.get_running_loop().time()


async def text(tokens: TokenService, audience: str = "vault") -> str:
    return (await tokens.token(ONE, audience)).access_token


@virtual_time
async def test_a_token_is_fetched_once_and_then_served_without_a_wait():
    imds = SlowImds()
    tokens = service(imds)
    assert await text(tokens) == "token-1"
    assert [await text(tokens) for _ in range(3)] == ["token-1"] * 3
    assert (len(imds.calls), now()) == (1, 1)


@virtual_time
async def test_nothing_is_cached_before_the_first_fetch():
    assert service(SlowImds()).cached(ONE, "vault") is None


@virtual_time
async def test_each_audience_and_each_identity_has_its_own():
    imds = SlowImds()
    tokens = service(imds)
    two = as_identity(identity("two"))
    got = [await tokens.token(ONE, "a"), await tokens.token(ONE, "a/"), await tokens.token(two, "a")]
    assert [it.access_token for it in got] == ["token-1", "token-2", "token-3"]
    assert imds.calls == [("a", "client-one", ""), ("a/", "client-one", ""), ("a", "client-two", "")]


@virtual_time
async def test_an_identity_without_client_id_is_asked_for_by_its_resource_id():
    imds = SlowImds()
    bare = as_identity(identity(clientID=""))
    await service(imds).token(bare, "a")
    assert imds.calls == [("a", "", bare.resource_id)]


@virtual_time
async def test_a_token_of_another_identity_than_the_resource_id_names_is_not_served():
    imds = SlowImds(text=jwt(xms_mirid=ONE.resource_id.replace("one", "kubelet")))
    with pytest.raises(TokenRefused, match="do not match") as caught:
        await service(imds).token(ONE, "vault")
    assert caught.value.status == 403


@virtual_time
@pytest.mark.parametrize("text", ["opaque", "a.b.c", "a.AAAA.c"], ids=["opaque", "no JSON", "no text"])
async def test_a_token_that_does_not_say_whose_it_is_is_served(text):
    assert (await service(SlowImds(text=text)).token(ONE, "vault")).access_token == text


@virtual_time
async def test_a_token_whose_claim_differs_by_case_alone_is_served():
    text = jwt(xms_mirid=ONE.resource_id.upper())
    assert (await service(SlowImds(text=text)).token(ONE, "vault")).access_token == text


@virtual_time
async def test_however_many_ask_imds_is_asked_once():
    imds = SlowImds()
    tokens = service(imds)
    assert set(await asyncio.gather(*(text(tokens) for _ in range(100)))) == {"token-1"}
    assert len(imds.calls) == 1


@virtual_time
async def test_the_fetch_survives_the_caller_who_began_it():
    imds = SlowImds()
    tokens = service(imds)
    first, second = asyncio.create_task(text(tokens)), asyncio.create_task(text(tokens))
    await settle()
    first.cancel()
    assert await second == "token-1"
    assert first.cancelled()


@virtual_time
async def test_the_fetch_is_not_lost_when_all_have_left():
    imds = SlowImds()
    tokens = service(imds)
    only = asyncio.create_task(text(tokens))
    await settle()
    only.cancel()
    await asyncio.sleep(1.5)
    assert await text(tokens) == "token-1"
    assert now() == 1.5


@virtual_time
async def test_a_failed_fetch_that_all_have_left_disturbs_nobody():
    imds = SlowImds(error=ImdsUnreachable("down"))
    tokens = service(imds)
    only = asyncio.create_task(text(tokens))
    await settle()
    only.cancel()
    await asyncio.sleep(2)
    imds.error = None
    assert await text(tokens) == "token-2"


@virtual_time
async def test_a_fetch_that_waits_for_its_turn_and_that_nobody_wants_any_more_is_dropped():
    imds = SlowImds()
    tokens = service(imds, concurrency=1)
    flood = [asyncio.create_task(text(tokens, f"audience-{number}")) for number in range(50)]
    await settle()
    for task in flood:
        task.cancel()
    await settle()
    assert len(tokens._flights) == 1
    assert await text(tokens) == "token-2"
    assert now() == 2


@virtual_time
async def test_who_comes_after_a_dropped_fetch_gets_one_of_its_own():
    tokens = service(SlowImds(), concurrency=1)
    ahead = asyncio.create_task(text(tokens, "ahead"))
    await settle()
    leaver = asyncio.create_task(text(tokens))
    await settle()
    leaver.cancel()
    await asyncio.sleep(0)  # it has left, and the dropped fetch has not ended yet
    assert await text(tokens) == "token-2"
    assert await ahead == "token-1"


@virtual_time
async def test_no_more_calls_at_once_than_allowed():
    imds = SlowImds()
    tokens = service(imds, concurrency=4)
    await asyncio.gather(*(text(tokens, f"audience-{number}") for number in range(10)))
    assert imds.most_at_once == 4
    assert now() == pytest.approx(3, abs=0.2)


@virtual_time
async def test_a_token_in_use_is_fetched_again_before_its_greatest_age_and_nobody_waits():
    imds = SlowImds()
    tokens = service(imds)
    await text(tokens)
    await asyncio.sleep(MAX_AGE * 0.8)
    before = now()
    assert [await text(tokens) for _ in range(3)] == ["token-1"] * 3
    assert now() == before
    await asyncio.sleep(1.5)
    assert await text(tokens) == "token-2"
    assert len(imds.calls) == 2


@virtual_time
async def test_a_token_beyond_its_greatest_age_is_not_served_before_imds_was_asked():
    tokens = service(SlowImds())
    await text(tokens)
    await asyncio.sleep(MAX_AGE)
    assert tokens.cached(ONE, "vault") is None
    assert await text(tokens) == "token-2"


PASSING = [ImdsUnreachable("down"), TokenRefused(429, "e", "slow down"), TokenRefused(503, "e", "sick")]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_while_imds_is_in_trouble_the_old_token_is_served(error):
    @virtual_time
    async def scenario():
        imds = SlowImds()
        tokens = service(imds)
        await text(tokens)
        await asyncio.sleep(MAX_AGE)
        imds.error = error
        assert await text(tokens) == "token-1"
        before = now()
        assert [await text(tokens) for _ in range(5)] == ["token-1"] * 5
        assert (now(), len(imds.calls)) == (before, 2)
        await asyncio.sleep(10)
        imds.error = None
        assert await text(tokens) == "token-3"

    scenario()


@virtual_time
async def test_an_old_token_is_served_no_longer_than_it_lives():
    imds = SlowImds(life=1000)
    tokens = service(imds)
    await text(tokens)
    imds.error = ImdsUnreachable("down")
    await asyncio.sleep(690)
    assert await text(tokens) == "token-1"
    await asyncio.sleep(10)
    with pytest.raises(ImdsUnreachable):
        await text(tokens)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_that_stands_ends_the_old_token(status):
    @virtual_time
    async def scenario():
        imds = SlowImds()
        tokens = service(imds)
        await text(tokens)
        await asyncio.sleep(MAX_AGE)
        imds.error = TokenRefused(status, "invalid_request", "Identity not found")
        for _ in range(2):
            with pytest.raises(TokenRefused):
                await text(tokens)

    scenario()


@virtual_time
async def test_a_refusal_in_the_background_ends_the_old_token_too():
    imds = SlowImds()
    tokens = service(imds)
    await text(tokens)
    await asyncio.sleep(MAX_AGE * 0.9)
    imds.error = TokenRefused(400, "invalid_request", "Identity not found")
    assert await text(tokens) == "token-1"
    await asyncio.sleep(1.5)
    assert tokens.cached(ONE, "vault") is None


@virtual_time
async def test_an_error_is_not_cached():
    imds = SlowImds(error=TokenRefused(400, "invalid_resource", "AADSTS500011"))
    tokens = service(imds)
    with pytest.raises(TokenRefused):
        await text(tokens)
    imds.error = None
    assert await text(tokens) == "token-2"


@virtual_time
async def test_a_token_at_its_end_is_handed_on_but_never_kept():
    imds = SlowImds(life=200)
    tokens = service(imds)
    assert [await text(tokens), await text(tokens)] == ["token-1", "token-2"]


def test_the_cache_has_a_greatest_size_and_drops_what_was_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LARGEST_CACHE", 3)

    @virtual_time
    async def scenario():
        imds = SlowImds()
        tokens = service(imds)
        for audience in ("a", "b", "c", "a", "d"):
            await text(tokens, audience)
        kept: Callable[[str], bool] = lambda audience: tokens.cached(ONE, audience) is not None  # noqa: E731
        assert [kept(audience) for audience in "abcd"] == [True, False, True, True]

    scenario()


def test_the_wall_clock_of_these_tests_begins_somewhere():
    @virtual_time
    async def scenario():
        assert wall_clock() == EPOCH

    scenario()


@virtual_time
async def test_imds_is_not_asked_more_often_than_it_bears():
    imds = SlowImds(seconds=0.0)
    tokens, started = service(imds), now()
    await asyncio.gather(*(tokens.token(ONE, f"audience-{number}") for number in range(60)))
    assert len(imds.calls) == 60
    assert now() - started == pytest.approx(59 / 15)
