import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.kube.errors import ApiError, Conflict, Expired, NotFound, Throttled, api_error


def status(**said) -> bytes:
    return json.dumps({"kind": "Status", **said}).encode()


@pytest.mark.parametrize(
    ("code", "expected"),
    [(404, NotFound), (409, Conflict), (410, Expired), (429, Throttled), (400, ApiError), (500, ApiError)],
)
def test_the_status_of_http_decides_the_class(code, expected):
    assert type(api_error(code, b"{}")) is expected


@pytest.mark.parametrize("reason", ["Expired", "Gone"])
def test_an_error_event_of_too_old_a_version_is_expired_by_its_reason(reason):
    event = msgspec.Raw(status(reason=reason, code=500, message="too old"))
    assert type(api_error(0, event)) is Expired


def test_an_error_event_knows_its_own_code():
    assert type(api_error(0, msgspec.Raw(status(code=429)))) is Throttled


def test_the_words_of_the_server_are_kept_but_not_without_end():
    error = api_error(409, status(reason="AlreadyExists", message="it exists" + "!" * 1000))
    assert error.reason == "AlreadyExists"
    assert str(error).startswith("409 AlreadyExists: it exists!")
    assert len(str(error)) == 500


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("²", None),
        ("9" * 400, None),
    ],
)
def test_only_seconds_are_a_wish_to_be_left_alone(header, seconds):
    assert api_error(429, b"{}", header).retry_after == seconds


@given(st.binary(max_size=300), st.sampled_from([0, 404, 500]), st.booleans())
def test_whatever_the_body_is_there_is_an_error_to_show(body, code, as_event):
    error = api_error(code, msgspec.Raw(body) if as_event else body)
    assert isinstance(error, ApiError)
    assert str(error)


@pytest.mark.parametrize("body", [b'{"code": "x"}', b"[]", b'"\xff"', b'{"code": 1e999}', b"[" * 5000 + b"]" * 5000])
def test_a_strange_error_event_is_an_error_all_the_same(body):
    assert type(api_error(0, msgspec.Raw(body))) is ApiError
