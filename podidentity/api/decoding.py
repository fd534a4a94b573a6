"""JSON in, with every way in which it can be unreadable turned into `msgspec.DecodeError`.

msgspec itself raises UnicodeDecodeError for bytes that are no UTF-8, and RecursionError for what is nested deeper
than the interpreter's stack, even in parts that are skipped. The API server takes 10,000 levels inside a custom
object, so one object of one tenant would blind everybody who lists that kind.
"""

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

_DEEPEST = 100
"""Levels that are kept: no object of Kubernetes has 40, and Python's stack holds about 1,000."""
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def decode(decoder: "msgspec.json.Decoder[T]", data: bytes | msgspec.Raw) -> T:
    """Decode; what is nested too deep to be read counts as null. Raises `msgspec.DecodeError` and nothing else."""
    try:
        try:
            return decoder.decode(data)
        except RecursionError:
            return decoder.decode(_shallow(bytes(data)))
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"JSON must be UTF-8: {error}") from None


def _shallow(data: bytes) -> bytes:
    """Replace all that is nested deeper than `_DEEPEST` by null. Seldom needed, so not fast: 10 MB/s."""
    kept, depth, done = bytearray(), 0, 0
    for mark in _MARKS.finditer(data):
        if mark[0] in (b"[", b"{"):
            depth += 1
            if depth == _DEEPEST + 1:
                kept += data[done : mark.start()] + b"null"
        elif mark[0] in (b"]", b"}"):
            if depth == _DEEPEST + 1:
                done = mark.end()
            depth -= 1
    return bytes(kept + data[done:]) if depth <= _DEEPEST else bytes(kept)
