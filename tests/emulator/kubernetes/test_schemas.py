from hypothesis import given
from hypothesis import strategies as st

from podidentity.emulator.kubernetes.errors import Object
from podidentity.emulator.kubernetes.schemas import prune, validate, with_defaults
from tests.contract.conftest import WIDGET_SCHEMA

values = st.none() | st.booleans() | st.integers(-2, 12) | st.floats(0, 3) | st.text("abAB", max_size=6)
fields = st.sampled_from(["name", "size", "mode", "label", "flag", "list", "port", "map", "free", "other"])
specs = st.dictionaries(fields, values | st.lists(values, max_size=3) | st.dictionaries(fields, values, max_size=2))


@given(specs)
def test_pruning_and_defaulting_twice_is_once(spec):
    pruned, _ = prune({"spec": spec}, WIDGET_SCHEMA)
    again, dropped = prune(pruned, WIDGET_SCHEMA)
    assert (again, dropped) == (pruned, [])
    filled = with_defaults(pruned, WIDGET_SCHEMA)
    assert with_defaults(filled, WIDGET_SCHEMA) == filled


@given(specs)
def test_validation_never_breaks_and_names_fields_of_the_spec(spec):
    for error in validate({"spec": spec}, WIDGET_SCHEMA):
        assert error.field.startswith("spec.")


def test_pruning_names_what_it_drops():
    schema: Object = {"properties": {"list": {"items": {"properties": {"a": {}}}}}}
    obj = {"kind": "K", "metadata": {"name": "n"}, "list": [{"a": 1}, {"b": 2}], "x": {"y": 1}}
    kept, dropped = prune(obj, schema)
    assert kept == {"kind": "K", "metadata": {"name": "n"}, "list": [{"a": 1}, {}]}
    assert dropped == ["list[1].b", "x"]
