import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.durations import parse_duration
from podidentity.api.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("10s", 10),
        ("1m30s", 90),
        ("3600s", 3600),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("2h45m30.5s", 9930.5),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("100ns", 1e-7),
    ],
)
def test_durations_are_read_as_go_reads_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        ".s",
        "-1s",
        "+1s",
        "1 s",
        "1s ",
        "1S",
        "1d",
        "1m30",
        "\N{ARABIC-INDIC DIGIT ONE}s",
        "1e3s",
        "1_0s",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InvalidValue, match="is no duration: write it as"):
        parse_duration(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_parts_add_up(hours, minutes, seconds, milliseconds):
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    assert parse_duration(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)
