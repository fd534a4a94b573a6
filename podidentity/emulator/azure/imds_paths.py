"""Paths of IMDS, read as the most forgiving server would: pure.

How the real endpoint treats `%2f`, a backslash or a doubled slash is not documented. This stand-in resolves them all:
what an agent in front of it lets through in any spelling then reaches something, and the test that watches sees it.
"""

from posixpath import normpath
from urllib.parse import unquote

_MAX_DECODES = 5
"""Deeper nesting of percent-encoding than any known trick uses."""


def canonical(raw_path: str) -> str:
    """Return the path decoded and resolved, with `/metadata` in lower case; the rest keeps its case, as in IMDS."""
    path = raw_path
    for _ in range(_MAX_DECODES):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    path = "/" + normpath("/" + path.replace("\\", "/")).lstrip("/")
    first, separator, rest = path.lstrip("/").partition("/")
    return f"/{first.lower() if first.lower() == 'metadata' else first}{separator}{rest}"
