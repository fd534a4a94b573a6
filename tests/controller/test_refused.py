import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.azure.errors import ArmError
from podidentity.controller.refused import Refused, blamed
from podidentity.emulator.azure import arm_errors
from tests.controller.builders import resource_id

VM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm"
NAMES = ["a", "ab", "a-b", "b", "long" * 10]


def as_ours(error):
    return ArmError(error.status, error.code, error.message)


@given(bad=st.sets(st.sampled_from(NAMES), min_size=1))
def test_the_identities_of_a_missing_right_are_found_whatever_their_number_and_spelling(bad):
    error = as_ours(arm_errors.linked_authorization_failed("c", VM, [resource_id(it).upper() for it in bad]))
    assert blamed(error, [resource_id(it) for it in NAMES]) == {resource_id(it) for it in bad}


@given(bad=st.sampled_from(NAMES))
def test_the_identity_that_does_not_exist_is_found(bad):
    error = as_ours(arm_errors.unknown_identity(VM, resource_id(bad)))
    assert blamed(error, [resource_id(it) for it in NAMES]) == {resource_id(bad)}


def test_a_hundred_names_in_one_message_are_all_found():
    names = [resource_id(f"identity-{number}") for number in range(100)]
    assert blamed(as_ours(arm_errors.linked_authorization_failed("c", VM, names)), names) == set(names)


@pytest.mark.parametrize(
    "error",
    [
        arm_errors.throttled_identity_operation(VM),
        arm_errors.too_many_identities(VM, 200, 150),
        arm_errors.ArmError(409, "OperationNotAllowed", f"busy with {resource_id('a')}"),
    ],
)
def test_other_errors_blame_nobody(error):
    assert blamed(as_ours(error), [resource_id("a")]) == frozenset()


def test_each_refusal_is_waited_out_longer_up_to_some_minutes():
    now = 0.0
    refused = Refused(lambda: now, random.Random(1))
    waits = []
    for _ in range(10):
        waits.append(refused.add("x"))
        assert refused.until == {"x": now + waits[-1]}
        now += waits[-1]
    assert 15 <= waits[0] <= 30
    assert 300 <= waits[-1] <= 600


def test_what_nobody_wants_any_more_is_forgotten():
    refused = Refused(lambda: 0.0, random.Random(1))
    for name in ("x", "y"):
        for _ in range(5):
            refused.add(name)
    refused.keep({"y", "z"})
    assert set(refused.until) == {"y"}
    assert refused.add("x") <= 30
