import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.emulator.azure.arm_errors import ArmError
from podidentity.emulator.azure.identity_block import IdentityBlock, apply_patch, decode_patch

TARGET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v"
NAMES = [f"/subscriptions/s/resourceGroups/g/providers/x/userAssignedIdentities/{name}" for name in "abcd"]


def patched(block, identity):
    return apply_patch(TARGET, block, decode_patch(TARGET, identity))


def user_patch(*, add=(), remove=(), kind="UserAssigned"):
    return {"type": kind, "userAssignedIdentities": {name: {} for name in add} | dict.fromkeys(remove)}


@pytest.mark.parametrize(
    ("block", "type_"),
    [
        (IdentityBlock(), "None"),
        (IdentityBlock(system=True), "SystemAssigned"),
        (IdentityBlock.of(NAMES), "UserAssigned"),
        (IdentityBlock.of(NAMES, system=True), "SystemAssigned, UserAssigned"),
    ],
)
def test_the_type_says_what_is_in_the_block(block, type_):
    assert block.type == type_


@given(
    before=st.sets(st.sampled_from(NAMES)),
    add=st.sets(st.sampled_from(NAMES), min_size=1),
    remove=st.sets(st.sampled_from(NAMES)),
    upper=st.booleans(),
)
def test_a_patch_adds_what_is_an_object_removes_what_is_null_and_leaves_the_rest(before, add, remove, upper):
    spelt = {name.upper() if upper else name for name in add}
    after = patched(IdentityBlock.of(before), user_patch(add=spelt, remove=remove - add))
    assert set(after.users) == {name.lower() for name in (before - remove) | add}


def test_an_identity_that_is_there_keeps_its_spelling():
    after = patched(IdentityBlock.of(NAMES[:1]), user_patch(add=[NAMES[0].upper()]))
    assert list(after.users.values()) == NAMES[:1]


def test_a_type_without_system_assigned_drops_the_system_assigned_identity():
    before = IdentityBlock.of(NAMES[:1], system=True)
    assert patched(before, user_patch(add=NAMES[1:2])).type == "UserAssigned"
    assert patched(before, user_patch(add=NAMES[1:2], kind="SystemAssigned, UserAssigned")).system


@pytest.mark.parametrize(("type_", "system"), [("None", False), ("SystemAssigned", True), ("systemassigned", True)])
def test_a_type_without_user_assigned_drops_every_user_assigned_identity(type_, system):
    assert patched(IdentityBlock.of(NAMES, system=True), {"type": type_}) == IdentityBlock(system=system)


@pytest.mark.parametrize(
    ("identity", "code", "words"),
    [
        ({"userAssignedIdentities": {}}, "InvalidRequestContent", "Required property 'type' not found"),
        ({"type": "Weird"}, "InvalidRequestContent", "Weird"),
        ({"type": "None, UserAssigned"}, "InvalidRequestContent", "None, UserAssigned"),
        ("UserAssigned", "InvalidRequestContent", "must be an object"),
        (
            {"type": "UserAssigned", "userAssignedIdentities": [NAMES[0]]},
            "InvalidRequestContent",
            "must be an object",
        ),
        (user_patch(add=NAMES[:1], kind="None"), "FailedIdentityOperation", "should not contain"),
        (user_patch(remove=NAMES[:1]), "FailedIdentityOperation", "requires identities to be assigned"),
        (user_patch(add=[str(n) for n in range(151)]), "FailedIdentityOperation", "'151' Assign exceed limit '150'"),
    ],
)
def test_an_impossible_patch_is_refused_in_azures_words(identity, code, words):
    with pytest.raises(ArmError, match=words) as caught:
        patched(IdentityBlock.of(NAMES[:1]), identity)
    assert (caught.value.status, caught.value.code) == (400, code)
