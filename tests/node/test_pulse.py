import asyncio

import pytest

from podidentity.node.pulse import Pulse
from tests.virtual_time import settle, virtual_time


@virtual_time
async def test_a_beat_wakes_everybody_who_waits():
    pulse = Pulse()
    waits = [asyncio.create_task(pulse.wait(60)) for _ in range(3)]
    await settle()
    pulse.beat("a change", "is ignored")
    await asyncio.gather(*waits)
    assert asyncio.get_running_loop().time() == 0


@virtual_time
async def test_a_beat_is_not_remembered():
    pulse = Pulse()
    pulse.beat()
    await pulse.wait(60)
    assert asyncio.get_running_loop().time() == 60


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_left_is_no_wait(seconds):
    @virtual_time
    async def scenario():
        await Pulse().wait(seconds)
        assert asyncio.get_running_loop().time() == 0

    scenario()


@virtual_time
async def test_who_leaves_is_forgotten():
    pulse = Pulse()
    wait = asyncio.create_task(pulse.wait(60))
    await settle()
    wait.cancel()
    await asyncio.wait([wait])
    pulse.beat()
    assert not pulse._waiters


@virtual_time
async def test_a_wait_that_ran_out_is_forgotten():
    pulse = Pulse()
    await pulse.wait(1)
    assert not pulse._waiters
