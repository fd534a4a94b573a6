"""The cache under everything that can go wrong at once: what it holds and tells is what the server had.

A seed makes a history: objects are created, changed, relabelled and deleted; streams are cut, ended, stalled and fed
garbage; history is compacted; answers are lost, late, 429, 500 and 410; the server restarts. Then trouble ends, and:

* the cache equals the server;
* what a handler was told of each key is a subsequence of what the server had, in the same order;
* each change began where the one before it ended, and came after the store and its indexes had it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podidentity.api.meta import Key
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import ClusterSettings, ClusterState, kubernetes_app
from podidentity.emulator.kubernetes import resources as emulated
from podidentity.emulator.kubernetes.state import key_of
from podidentity.kube.informer import Informer
from podidentity.kube.reflector import ReflectorSettings
from podidentity.kube.store import Change
from podidentity.kube.transport import Transport
from tests.kube.cluster import ConfigMap, is_list, is_watch, put, reflector, remove, stored
from tests.kube.test_store import check_indexes
from tests.virtual_time import VirtualTimeLoop

NAMES = ["a", "b", "c", "d", "e"]
COLORS = ["red", "blue", ""]
INDEXERS = {"color": lambda it: [it.color], "name": lambda it: [it.metadata.name]}
GARBAGE = [
    b"garbage",
    b'{"type":"MODIFIED","object":{"kind":',
    b'{"type":"ADDED","object":{"metadata":{"name":7}}}',
    b'{"type":"PARTY","object":{"metadata":{}}}',
    b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError"}}',
    b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}',
    b'{"type":"ERROR","object":{"kind":"Status","code":429,"reason":"TooManyRequests"}}',
]
GONE = None


@dataclass
class Witness:
    """Keeps what the server had and what a handler was told; objects by resource version, None for gone."""

    informer: Informer[ConfigMap]
    had: dict[Key, list[str | None]] = field(default_factory=dict)
    told: dict[Key, list[str | None]] = field(default_factory=dict)

    @property
    def held(self) -> dict[Key, str]:
        """The resource version of each object in the cache."""
        return {item.metadata.key: item.metadata.resource_version for item in self.informer.store}

    def watch_server(self, state: ClusterState) -> None:
        """Write down every change that the server commits."""
        commit = state.commit

        def recorded(resource, key, obj):
            written = commit(resource, key, obj)
            if resource == emulated.CONFIG_MAPS:
                version = None if obj is None else written["metadata"]["resourceVersion"]
                namespace, name = key_of(written).split("/")
                self.had.setdefault(Key(namespace, name), []).append(version)
            return written

        state.commit = recorded  # type: ignore[method-assign]

    def tell(self, change: Change[ConfigMap]) -> None:
        """Be a handler."""
        history = self.told.setdefault(change.key, [])
        assert version_of(change.old) == (history[-1] if history else GONE), "a change began where none had ended"
        history.append(version_of(change.new))

    def tell_after_store(self, change: Change[ConfigMap]) -> None:
        """Be a handler that looks at the store; during a replacement it is ahead of the changes, never behind."""
        held = self.informer.store.get(change.key)
        assert held is change.new
        if held is not None:
            assert held in self.informer.store.by("name", change.key.name)

    def check(self, state: ClusterState) -> None:
        """Compare at rest."""
        assert self.held == stored(state)
        check_indexes(self.informer.store, INDEXERS)
        for key, told in self.told.items():
            assert is_subsequence(told, self.had[key]), (key, told, self.had[key])
            assert told[-1] == stored(state).get(key)


def version_of(item: ConfigMap | None) -> str | None:
    return item.metadata.resource_version if item else GONE


def is_subsequence(part: list[str | None], whole: list[str | None]) -> bool:
    rest = iter(whole)
    return all(any(item == other for other in rest) for item in part)


class Trouble:
    """Everything that can happen to one cluster, by name."""

    def __init__(self, state: ClusterState, rng: random.Random, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._state, self._rng, self._sleep = state, rng, sleep
        self.refuse: Callable[[bool], None] = lambda _: None

    async def step(self, what: str) -> None:
        """Let one thing happen."""
        await getattr(self, what)()

    async def put(self) -> None:
        put(self._state, self._name, color=self._rng.choice(COLORS), k=str(self._rng.random()))

    async def burst(self) -> None:
        for _ in range(self._rng.randrange(10)):
            await self.put()

    async def remove(self) -> None:
        if Key("default", name := self._name) in stored(self._state):
            remove(self._state, name)

    async def recreate(self) -> None:
        await self.remove()
        await self.put()

    async def cut(self) -> None:
        self._state.faults.cut_streams()

    async def end(self) -> None:
        self._state.faults.end_streams()

    async def stall(self) -> None:
        self._state.faults.stall_streams()

    async def garbage(self) -> None:
        self._state.faults.inject(self._rng.choice(GARBAGE))

    async def compact(self) -> None:
        self._state.compact()

    async def forget(self) -> None:
        """Stall, change and compact: the next watch finds that its version is too old."""
        self._state.faults.stall_streams()
        await self.burst()
        await self.remove()
        self._state.compact()

    async def refuse_some(self) -> None:
        status, match = self._rng.choice([410, 429, 500, 503]), self._rng.choice([is_list, is_watch])
        self._state.faults.answer(status, times=self._rng.randrange(1, 4), match=match, retry_after=1)

    async def lose(self) -> None:
        self._state.faults.lose_answer(match=self._rng.choice([is_list, is_watch]))

    async def delay(self) -> None:
        self._state.faults.delay(self._rng.choice([0.01, 0.5, 40.0]), match=self._rng.choice([is_list, is_watch]))

    async def expire_pages(self) -> None:
        self._state.faults.answer(410, match=lambda call: "continue" in call.query)
        self._state.compact()

    async def restart(self) -> None:
        self.refuse(True)
        self._state.faults.restart()
        await self.burst()
        await self._sleep(self._rng.random() * 3)
        self.refuse(False)

    async def pause(self) -> None:
        await self._sleep(self._rng.choice([0.0, 0.001, 0.1, 1.0, 10.0, 100.0]))

    @property
    def _name(self) -> str:
        return self._rng.choice(NAMES)


CHANGES = ["put", "burst", "remove", "recreate"]
FAULTS = [
    "cut",
    "end",
    "stall",
    "garbage",
    "compact",
    "forget",
    "refuse_some",
    "lose",
    "delay",
    "expire_pages",
    "restart",
]
STEPS = [*CHANGES * 6, *FAULTS, *["pause"] * 20]


async def live_through(
    steps: list[str],
    seed: int,
    state: ClusterState,
    transport: Transport,
    *,
    trouble: Trouble,
    quiet: Callable[[Witness], Awaitable[None]],
) -> Witness:
    """Run an informer through a history, let trouble end, wait until all is `quiet` and compare."""
    informer = Informer(reflector(transport, settings=SETTINGS, seed=seed), INDEXERS)
    witness = Witness(informer)
    witness.watch_server(state)
    informer.add_handler(witness.tell)
    informer.add_handler(witness.tell_after_store)
    with structlog.testing.capture_logs():
        task = asyncio.create_task(informer.run())
        for step in steps:
            await trouble.step(step)
            assert not task.done(), "nothing ends the informer"
        state.faults.clear()
        await quiet(witness)
        if task.done():
            task.result()
        witness.check(state)
        task.cancel()
        await asyncio.wait([task])
    return witness


SETTINGS = ReflectorSettings(page=2, shortest_watch=20, longest_watch=40)


def run_on_virtual_time(steps: list[str], seed: int) -> tuple[dict[Key, list[str | None]], float]:
    async def quiet(_: Witness) -> None:
        await asyncio.sleep(300)

    async def story() -> tuple[dict[Key, list[str | None]], float]:
        rng = random.Random(seed)
        state = ClusterState(clock=lambda: 0.0, rng=rng, settings=ClusterSettings(bookmark_interval=10))
        transport = InProcessTransport(kubernetes_app(state))
        trouble = Trouble(state, rng, asyncio.sleep)
        trouble.refuse = lambda refusing: setattr(transport, "refusing", refusing)
        witness = await live_through(steps, seed, state, transport, trouble=trouble, quiet=quiet)
        await transport.close()
        return witness.told, asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story())


@given(st.lists(st.sampled_from(STEPS), min_size=5, max_size=60), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_the_cache_equals_the_server_in_the_end(steps, seed):
    run_on_virtual_time(steps, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_ends_well_too(seed):
    rng = random.Random(seed)
    run_on_virtual_time(rng.choices(STEPS, k=600), seed)


def test_a_seed_replays_its_history_exactly():
    steps = random.Random(3).choices(STEPS, k=200)
    first = run_on_virtual_time(steps, 3)
    assert first == run_on_virtual_time(steps, 3)
    assert first != run_on_virtual_time(steps, 4)


async def test_a_history_over_sockets_ends_well_too(state, transport, server):
    rng = random.Random(11)

    async def briefly(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    async def quiet(witness: Witness) -> None:
        async with asyncio.timeout(30):
            while witness.held != stored(state):
                await asyncio.sleep(0.02)

    trouble = Trouble(state, rng, briefly)
    trouble.refuse = lambda refusing: server.abort_connections() if refusing else None
    quick = [step for step in STEPS if step not in {"stall", "forget", "delay", "lose", "refuse_some", "garbage"}]
    steps = [*rng.choices(quick, k=150), "cut", "garbage"]
    await live_through(steps, 11, state, transport, trouble=trouble, quiet=quiet)
