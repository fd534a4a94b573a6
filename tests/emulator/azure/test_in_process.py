"""The services called in process on virtual time, as the simulation calls them."""

import asyncio
import json
import random
import time
from selectors import SelectSelector

from podidentity.emulator.azure.arm import Arm
from podidentity.emulator.azure.imds import Imds
from podidentity.emulator.azure.machines import OperationSettings
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.azure.tokens import Principal


class TimeSkipper(SelectSelector):
    """A selector that never waits: the clock jumps instead."""

    now = 0.0

    def select(self, timeout=None):
        assert timeout is not None, "nothing left that could happen"
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._clock = TimeSkipper()
        super().__init__(self._clock)

    def time(self):
        return self._clock.now


def simulate(seed, signing_key, names, call):
    """Assign an identity and use it; return what was seen, and when."""

    async def story():
        loop = asyncio.get_running_loop()
        state = AzureState(clock=loop.time, rng=random.Random(seed), signing_key=signing_key)
        state.machines.settings = OperationSettings(vm_seconds=(20.0, 60.0))
        state.add_identity(names.one)
        state.add_virtual_machine(names.vm)
        arm, imds = Arm(state), Imds(state, lambda _address: names.vm)
        arm.latency = imds.latency = (0.05, 0.12)
        caller = Principal(client_id="caller", object_id="caller")
        token = state.tokens.mint(caller, names.management, tenant=state.tenant_id, lifetime=3600)
        headers = [(b"authorization", f"Bearer {token.value}".encode()), (b"host", b"arm.test")]
        identity = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {names.one: {}}}}
        seen = [
            await call(arm, "PATCH", f"{names.vm}?api-version=1", body=json.dumps(identity).encode(), headers=headers)
        ]
        poll = seen[0][1][b"azure-asyncoperation"].decode().removeprefix("http://arm.test")
        await asyncio.sleep(60)
        seen.append(await call(arm, "GET", poll, headers=headers))
        url = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
        seen.append(await call(imds, "GET", url))
        assert [status for status, _, _ in seen] == [200, 200, 200]
        return seen, [request.at for request in arm.log], state.machines.changes, loop.time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story())


def test_one_seed_gives_one_history_in_no_real_time(signing_key, names, call):
    before = time.monotonic()
    first, second = (simulate(7, signing_key, names, call) for _ in range(2))
    assert first == second
    assert first != simulate(8, signing_key, names, call)
    assert 60 < first[-1] < 61
    assert time.monotonic() - before < 2


async def test_a_caller_that_leaves_before_its_body_is_complete_is_not_answered(arm):
    async def receive():
        return {"type": "http.disconnect"}

    async def send(_message):
        raise AssertionError("nobody is there")

    await arm({"type": "http"}, receive, send)
    assert arm.log == []
