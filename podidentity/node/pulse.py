"""A broadcast without memory: whoever waits now is woken by the next pulse."""

import asyncio


class Pulse:
    """Informer handlers beat it; held requests wait for it and then look again."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def beat(self, *_: object) -> None:
        """Wake everybody. Takes (and ignores) a change, so that it is an informer's handler as it is."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Return at the next beat, or after `seconds`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=max(0.0, seconds))
        finally:
            self._waiters.discard(waiter)
