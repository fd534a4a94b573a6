import pytest

from podidentity.emulator.azure.resource_ids import group_of, key, owner_of, scale_set_id, virtual_machine_id

SCALE_SET = scale_set_id("S", "G", "Pool")


def test_ids_in_any_spelling_have_one_key():
    assert key(SCALE_SET.upper() + "/") == key(SCALE_SET)


def test_the_group_of_a_resource_is_its_first_four_segments():
    assert group_of(SCALE_SET) == "/subscriptions/s/resourcegroups/g"


@pytest.mark.parametrize(
    ("machine", "owner"),
    [
        (f"{SCALE_SET}/virtualMachines/3", SCALE_SET),
        (SCALE_SET, SCALE_SET),
        (virtual_machine_id("S", "G", "vm"), virtual_machine_id("S", "G", "vm")),
    ],
)
def test_an_instance_has_the_identities_of_its_scale_set(machine, owner):
    assert owner_of(machine) == key(owner)
