"""Notices when somebody else takes our rules away or changes them: `nft flush ruleset` is one command."""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from podidentity.node import nfnetlink, nftables
from podidentity.node.redirect import Redirect, installed

# Two programs that undo each other's rules must not keep a core busy; pods wait at most this long for a repair.
_BETWEEN_REPAIRS_SECONDS = 0.1


async def drifts(redirect: Redirect, look_anyway: float) -> AsyncGenerator[None, None]:
    """Yield each time the kernel's rules are not (any more) those of the redirect, until they are put right.

    A change reported by the kernel is only the reason to look, so that what the caller repairs does not count as
    drift. The kernel reports every change; `look_anyway`, in seconds, covers reports that were lost. Raises
    `NetfilterError`.
    """
    with _changes(redirect.table) as changed:
        while True:
            changed.clear()
            if not installed(redirect):
                yield
                await asyncio.sleep(_BETWEEN_REPAIRS_SECONDS)
                continue
            try:
                await asyncio.wait_for(changed.wait(), look_anyway)
            except TimeoutError:
                continue


@contextmanager
def _changes(table: str) -> Iterator[asyncio.Event]:
    """Give an event that is set whenever somebody changes the table, us included."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with nfnetlink.subscribe() as listener:
        loop.add_reader(listener, _listen, listener, table, changed)
        try:
            yield changed
        finally:
            loop.remove_reader(listener)


def _listen(listener: socket.socket, table: str, changed: asyncio.Event) -> None:
    try:
        reports = nfnetlink.reports(listener)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # that one: more than the socket could keep, so something has changed
            raise
        changed.set()
        return
    if any(nftables.table_of(report) == table for report in reports):
        changed.set()
