"""Go durations (`1m30s`, `500ms`, `3600s`), as upstream's flags take them. Source: Go's time.ParseDuration."""

import re

from podidentity.api.errors import InvalidValue

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration that is not negative; `0` needs no unit."""
    if text == "0":
        return 0.0
    total, end = 0.0, 0
    while match := _PART.match(text, end):
        total += float(match[1]) * _SECONDS[match[2]]
        end = match.end()
    if not text or end != len(text):
        raise InvalidValue(f"{text!r} is no duration: write it as 500ms, 10s, 1m30s or 2h")
    return total
