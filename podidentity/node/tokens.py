"""Tokens of the node's identities: cached, fetched once however many ask, bounded. Always asked after the decision
who may have one; nothing here knows of pods.

The life of a token here, in shares of its greatest age: served as it is; from four fifths on served, and fetched
again in the background; after that fetched before it is served. When IMDS is in trouble, the old one is served as
long as it lives; when IMDS refuses, it is forgotten.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from podidentity.api.identities import AzureIdentity
from podidentity.api.imds import Token
from podidentity.azure.errors import AzureError, ImdsUnreachable, TokenRefused
from podidentity.azure.imds import ImdsClient
from podidentity.telemetry.metrics import NodeMetrics

_log = structlog.get_logger(__name__)
_LARGEST_CACHE = 2000
"""Tokens of about 2 KiB each; a node has some hundred pods with a few audiences each."""
_PER_SECOND = 15.0
"""Calls to IMDS in a second: it refuses more than 20 of a VM, and the host's own programs ask, too."""
_LEAST_LIFE = 300.0
"""Seconds that a token must still live to be served: SDKs ask for a new one 5 minutes before the end."""
_AHEAD = 0.8
"""Share of the greatest age after which a token in use is fetched again, so that nobody waits for it."""
_PAUSE = 10.0
"""Seconds after a failed fetch in which the old token is served without another try: IMDS may take 30 to fail."""
_TRANSIENT = {408, 410, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What makes two tokens the same."""

    client_id: str
    resource_id: str
    audience: str


@dataclass(slots=True)
class _Entry:
    """A token in the cache; times are seconds of the loop's clock."""

    token: Token
    fetched_at: float
    quiet_until: float = float("-inf")
    """A fetch has failed a moment ago: none before this."""


@dataclass(eq=False, slots=True)
class _Flight:
    """A fetch under way."""

    task: "asyncio.Task[Token]" = field(init=False)
    waiting: int = 0
    """How many callers wait for it."""
    asking: bool = False
    """Whether IMDS has been asked, or the fetch still waits for its turn."""


class TokenService:
    """Tokens through IMDS."""

    def __init__(
        self,
        imds: ImdsClient,
        *,
        max_age: float,
        concurrency: int,
        metrics: NodeMetrics,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._imds = imds
        self._max_age = max_age
        self._limit = asyncio.Semaphore(concurrency)
        self._next_call = 0.0
        """When IMDS may be asked again (loop time)."""
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._clock = asyncio.get_running_loop().time
        self._cache: OrderedDict[TokenKey, _Entry] = OrderedDict()
        self._flights: dict[TokenKey, _Flight] = {}

    def cached(self, identity: AzureIdentity, audience: str) -> Token | None:
        """Return a token that may be served without asking IMDS; fetch the next one in the background when due."""
        key = _key(identity, audience)
        entry = self._living(key)
        if entry is None:
            return None
        age, quiet = self._clock() - entry.fetched_at, self._clock() < entry.quiet_until
        if age >= self._max_age and not quiet:
            return None
        if age >= self._max_age * _AHEAD and not quiet:
            self._flight(key)
        self._cache.move_to_end(key)
        return entry.token

    async def token(self, identity: AzureIdentity, audience: str) -> Token:
        """Return a token. Raises AzureError when there is none and Azure gives none."""
        if token := self.cached(identity, audience):
            return token
        key = _key(identity, audience)
        try:
            return await self._join(key)
        except AzureError:
            if entry := self._living(key):  # a refusal that stands has emptied the cache
                return entry.token
            raise

    async def _join(self, key: TokenKey) -> Token:
        """Wait for the fetch under way, or start it. It goes on when this caller leaves: others may wait for it.

        Unless it still waits for its turn and nobody else wants it: then clients that come and go would pile it up.
        """
        flight = self._flight(key)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.asking:
                self._forget(key, flight)
                flight.task.cancel()

    def _flight(self, key: TokenKey) -> _Flight:
        """Return the fetch under way, or start it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._fetch(key, flight), name="token fetch")
            flight.task.add_done_callback(partial(self._landed, key, flight))
        return flight

    async def _fetch(self, key: TokenKey, flight: _Flight) -> Token:
        async with self._limit:
            await self._turn()
            flight.asking = True
            try:
                token = await self._ask(key)
            except AzureError as error:
                self._failed(key, error)
                raise
        self._cache[key] = _Entry(token, self._clock())
        self._cache.move_to_end(key)
        while len(self._cache) > _LARGEST_CACHE:
            self._cache.popitem(last=False)
        return token

    async def _turn(self) -> None:
        """Wait until IMDS may be asked again."""
        turn = max(self._next_call, self._clock())
        self._next_call = turn + 1 / _PER_SECOND
        if turn > self._clock():
            await asyncio.sleep(turn - self._clock())

    async def _ask(self, key: TokenKey) -> Token:
        resource_id = "" if key.client_id else key.resource_id
        with self._metrics.imds_call("adal_token_msi_userassignedid"):
            token = await self._imds.token(key.audience, client_id=key.client_id, resource_id=resource_id)
        # Whoever may write an AzureIdentity could name the client ID of any other identity of the machine.
        if key.resource_id and token.speaks_for not in {"", key.resource_id}:
            raise TokenRefused(403, "identity_mismatch", "clientID and resourceID of the AzureIdentity do not match")
        return token

    def _failed(self, key: TokenKey, error: AzureError) -> None:
        """Keep the old token for a while, unless the error is about the right to have one."""
        entry = self._cache.get(key)
        if entry is None:
            return
        if not _passes(error):
            del self._cache[key]
            return
        entry.quiet_until = self._clock() + _PAUSE
        _log.warning("token_refresh_failed", client_id=key.client_id, error=str(error))

    def _landed(self, key: TokenKey, flight: _Flight, task: "asyncio.Task[Token]") -> None:
        self._forget(key, flight)
        if not task.cancelled():
            task.exception()  # looked at here, in case every caller has left

    def _forget(self, key: TokenKey, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _living(self, key: TokenKey) -> _Entry | None:
        entry = self._cache.get(key)
        lives = entry is not None and entry.token.expires_on - self._wall_clock() > _LEAST_LIFE
        return entry if lives else None


def _key(identity: AzureIdentity, audience: str) -> TokenKey:
    return TokenKey(identity.client_id, identity.resource_id, audience)


def _passes(error: AzureError) -> bool:
    """Whether the error says nothing about the token: a refusal that will stand does."""
    return isinstance(error, ImdsUnreachable) or (isinstance(error, TokenRefused) and error.status in _TRANSIENT)
