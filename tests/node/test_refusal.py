from contextlib import contextmanager

import pytest

from podidentity.node.refusal import Refusal, invalid, not_yet


def test_the_body_has_the_shape_of_imds():
    assert invalid("why").body == {"error": "invalid_request", "error_description": "why"}


def test_what_stands_asks_nobody_to_come_again():
    assert invalid("why").headers == []


@pytest.mark.parametrize(("seconds", "header"), [(2.0, b"2"), (0.2, b"1"), (4.01, b"5")])
def test_what_passes_says_when_in_whole_seconds_rounded_up(seconds, header):
    refusal = not_yet("why", seconds)
    assert refusal.status == 503
    assert refusal.headers == [(b"retry-after", header)]


def test_its_text_is_for_a_log():
    assert str(Refusal(404, "not_found", "why")) == "404 not_found: why"


def test_it_passes_through_a_context_manager():
    @contextmanager
    def block():
        yield

    with pytest.raises(Refusal, match="why"), block():
        raise invalid("why")
