import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.errors import InvalidValue
from podidentity.api.ids import Target, TargetKind, client_id, identity_resource_id, target_of_provider_id

IDENTITY = "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}"
VM = "azure:///subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/virtualMachines/{}"
SCALE_SET = "azure:///subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets/{}"

names = st.text("abcXYZ019-_.()", min_size=1, max_size=10)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=40)


@given(names, names, names)
def test_the_id_of_an_identity_is_the_same_in_any_spelling(subscription, group, name):
    written = IDENTITY.format(subscription, group, name)
    once = identity_resource_id(written)
    assert once == written.lower()
    for other in (once, written.upper(), written.lower(), f"  {written}/ ".rstrip(), f" {written}"):
        assert identity_resource_id(other) == once


@pytest.mark.parametrize(
    "written",
    [
        "",
        "one",
        "/subscriptions/s/resourceGroups/g",
        IDENTITY.format("s", "g", ""),
        IDENTITY.format("", "g", "n"),
        IDENTITY.format("s", "g", "n/more"),
        IDENTITY.format("s", "g", "a b"),
        IDENTITY.format("s", "g", "a\nb"),
        "x" + IDENTITY.format("s", "g", "n"),
        IDENTITY.format("s", "g", "n").replace("ManagedIdentity", "Compute"),
        IDENTITY.format("s", "g", "n").replace(".", "x"),
    ],
)
def test_what_is_no_id_of_an_identity_is_refused_with_words(written):
    with pytest.raises(InvalidValue, match="is no ID of a user-assigned identity"):
        identity_resource_id(written)


def test_a_refusal_does_not_repeat_a_text_without_end():
    with pytest.raises(InvalidValue) as raised:
        identity_resource_id("x" * 100_000)
    assert len(str(raised.value)) < 500


@given(ascii_texts)
def test_a_client_id_is_the_same_in_any_spelling(text):
    once = client_id(text)
    assert client_id(once) == client_id(text.upper()) == client_id(f" {text} ") == once


@given(names, names, names, st.integers(0, 99), st.sampled_from([str, str.lower, str.upper]))
def test_all_instances_of_a_scale_set_are_one_target(subscription, group, name, instance, spell):
    written = spell(SCALE_SET.format(subscription, group, name) + f"/virtualMachines/{instance}")
    target = target_of_provider_id(written)
    assert target == Target(TargetKind.SCALE_SET, subscription.lower(), group.lower(), name.lower())


@given(names, names, names, st.sampled_from([str, str.lower, str.upper]))
def test_a_machine_of_its_own_is_a_target(subscription, group, name, spell):
    target = target_of_provider_id(spell(VM.format(subscription, group, name)))
    assert target == Target(TargetKind.VM, subscription.lower(), group.lower(), name.lower())


@given(names, names, names)
def test_the_id_of_a_target_at_arm_is_that_of_its_provider_id(subscription, group, name):
    target = target_of_provider_id(VM.format(subscription, group, name))
    assert "azure://" + target.resource_id == VM.format(subscription.lower(), group.lower(), name.lower())
    assert target_of_provider_id("azure://" + target.resource_id) == target


def test_the_id_of_a_scale_set_at_arm_has_no_instance():
    target = target_of_provider_id(SCALE_SET.format("s", "g", "pool") + "/virtualMachines/3")
    assert "azure://" + target.resource_id == SCALE_SET.format("s", "g", "pool")
    assert str(target) == "vmss g/pool"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "has no providerID yet"),
        ("aws:///eu-north-1a/i-1", "is no providerID of an Azure VM"),
        (SCALE_SET.format("s", "g", "pool"), "is no providerID"),
        (VM.format("s", "g", ""), "is no providerID"),
        (VM.format("s", "g/x", "n"), "is no providerID"),
        ("kind://docker/kind/node", "is no providerID"),
    ],
)
def test_what_is_no_machine_of_azure_is_refused_with_words(written, words):
    with pytest.raises(InvalidValue, match=words):
        target_of_provider_id(written)


@given(st.text())
def test_no_text_makes_anything_but_a_refusal(text):
    for function in (identity_resource_id, target_of_provider_id):
        with pytest.raises(InvalidValue):
            function(text)
