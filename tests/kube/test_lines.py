import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity.kube import lines as lines_module
from podidentity.kube.errors import MalformedAnswer
from podidentity.kube.lines import lines
from tests.virtual_time import virtual_time


async def pieces_of(*pieces: bytes, pause: float = 0.0):
    for piece in pieces:
        await asyncio.sleep(pause)
        yield piece


async def read(*pieces: bytes, pause: float = 0.0, silence: float = 70.0) -> list[bytes]:
    return [line async for line in lines(pieces_of(*pieces, pause=pause), silence=silence)]


async def test_lines_come_whole_however_they_are_cut():
    assert await read(b'{"a"', b':1}\n{"b":', b"2}\n") == [b'{"a":1}', b'{"b":2}']


async def test_a_half_line_at_the_end_is_dropped():
    assert await read(b"whole\nhal", b"f") == [b"whole"]


async def test_empty_lines_are_left_out():
    assert await read(b"\n\na\n\n", b"\n") == [b"a"]


async def test_a_line_longer_than_any_buffer_of_the_http_library_comes_whole():
    line = b"x" * (3 * 2**20)
    assert await read(*[line[start : start + 2**16] for start in range(0, len(line), 2**16)], b"\n") == [line]


async def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 10)
    assert await read(b"0123456789", b"\n") == [b"0123456789"]
    with pytest.raises(MalformedAnswer, match="longer than 10 bytes"):
        await read(b"ok\n", b"0123456789", b"x")


@virtual_time
async def test_silence_ends_the_lines():
    loop = asyncio.get_running_loop()
    assert await read(b"a\n", b"b\n", pause=71.0) == []
    assert loop.time() == 70.0


@virtual_time
async def test_any_byte_breaks_the_silence():
    assert await read(b"a", b"b", b"c\n", pause=69.0) == [b"abc"]
    assert asyncio.get_running_loop().time() == 3 * 69.0


@given(st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"")), max_size=6), st.data())
@settings(deadline=None)
def test_any_cut_of_a_stream_gives_the_same_lines(wanted, data):
    stream = b"".join(line + b"\n" for line in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert asyncio.run(read(*pieces)) == [line for line in wanted if line]
