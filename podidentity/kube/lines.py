"""A byte stream cut into lines, as a watch sends them.

asyncio's and aiohttp's own `readline` refuse a line longer than their buffer; an object in etcd may have 1.5 MiB.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from podidentity.kube.errors import MalformedAnswer

LONGEST_LINE = 8 * 2**20
"""Bytes of one event: etcd's limit of an object is 1.5 MiB, JSON may swell it; beyond this no API server speaks."""


async def lines(pieces: AsyncIterator[bytes], *, silence: float) -> AsyncGenerator[bytes, None]:
    """Yield each line without its end, until the stream ends or no byte comes for `silence` seconds.

    A half line at the end is dropped: the server died in it. Raises MalformedAnswer on a line without end.
    """
    buffer = bytearray()
    while True:
        try:
            async with asyncio.timeout(silence):
                piece = await anext(pieces, None)
        except TimeoutError:
            return
        if piece is None:
            return
        searched = len(buffer)
        buffer += piece
        start = 0
        while (end := buffer.find(b"\n", max(start, searched))) >= 0:
            if end > start:
                yield bytes(buffer[start:end])
            start = end + 1
        del buffer[:start]
        if len(buffer) > LONGEST_LINE:
            raise MalformedAnswer(f"a line of the watch is longer than {LONGEST_LINE} bytes")
