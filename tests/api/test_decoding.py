import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.decoding import _DEEPEST, _shallow, decode
from tests.api.jsons import anything

ANY = msgspec.json.Decoder()


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@given(anything)
def test_ordinary_json_comes_as_it_is(value):
    data = json.dumps(value).encode()
    assert decode(ANY, data) == msgspec.json.decode(data)
    assert _shallow(data) == data


def test_what_is_nested_too_deep_is_null_and_the_rest_stays():
    data = b'{"before":1,"deep":%s,"after":"]}[{","also":{"x":[%s,2]}}' % (nested(50_000), nested(50_000))
    read = decode(ANY, data)
    assert (read["before"], read["after"], read["also"]["x"][1]) == (1, "]}[{", 2)
    depth, inner = 1, read["deep"]
    while inner:
        depth, inner = depth + 1, inner[0]
    assert depth == _DEEPEST
    assert inner is None


def test_brackets_and_quotes_in_texts_are_no_levels():
    text = '["\\"[[[{{{\\\\'
    data = json.dumps({"text": text, "deep": 0}).encode().replace(b"0}", nested(3000) + b"}")
    assert decode(ANY, data)["text"] == text


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b'{"\xff":1}', b'"\xff"', b"[" * 5000, b"]" * 5000, b'"' + b"[" * 5000]
)
def test_what_cannot_be_read_is_a_decode_error(data):
    with pytest.raises(msgspec.DecodeError):
        decode(ANY, data)


@given(st.binary())
def test_nothing_but_decode_errors_comes_out(data):
    with contextlib.suppress(msgspec.DecodeError):
        decode(ANY, data)
