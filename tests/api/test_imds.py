from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.imds import Token, error_body

TOKEN = Token(access_token="t", expires_on=2000, not_before=1000, resource="https://vault.azure.net/", client_id="c")


def test_every_value_of_an_answer_is_a_text_as_in_imds():
    assert TOKEN.answer(now=1500.9, resource="https://vault.azure.net") == {
        "access_token": "t",
        "refresh_token": "",
        "expires_in": "500",
        "expires_on": "2000",
        "ext_expires_in": "500",
        "not_before": "1000",
        "resource": "https://vault.azure.net",
        "token_type": "Bearer",
        "client_id": "c",
    }


def test_a_client_id_that_is_not_known_is_left_out():
    answer = Token(access_token="t", expires_on=2, not_before=1, resource="r").answer(now=0, resource="r")
    assert "client_id" not in answer


@given(st.floats(0, 4e9))
def test_the_time_left_is_never_negative(now):
    assert int(TOKEN.answer(now=now, resource="r")["expires_in"]) >= 0


def test_a_refusal_has_the_two_fields_of_imds():
    assert error_body("invalid_request", "why") == {"error": "invalid_request", "error_description": "why"}
