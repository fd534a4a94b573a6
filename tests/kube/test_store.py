from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from podidentity.api.meta import Key, Meta
from podidentity.kube.store import Change, Store
from tests.kube.cluster import ConfigMap


def config_map(name: str, version: str = "1", *, uid: str = "u", namespace: str = "ns", **labels: str) -> ConfigMap:
    return ConfigMap(Meta(name=name, namespace=namespace, uid=uid, resource_version=version, labels=labels))


INDEXERS: dict[str, Any] = {
    "color": lambda it: [it.color],
    "letters": lambda it: list(it.metadata.name + it.color),
    "nothing": lambda _: (),
}


@pytest.fixture
def store() -> Store[ConfigMap]:
    return Store(INDEXERS)


A = Key("ns", "a")


def test_a_new_object_has_no_old_state(store):
    a = config_map("a")
    assert store.put(a) == Change(A, None, a)
    assert store.get(A) is a


def test_a_changed_object_comes_with_its_old_state(store):
    old, new = config_map("a", "1"), config_map("a", "2")
    store.put(old)
    assert store.put(new) == Change(A, old, new)
    assert len(store) == 1


def test_the_same_version_of_the_same_object_is_no_change(store):
    store.put(config_map("a", "1"))
    assert store.put(config_map("a", "1", color="blue")) is None


def test_an_object_created_anew_is_a_change_even_with_the_same_version(store):
    store.put(config_map("a", "1", uid="first"))
    change = store.put(config_map("a", "1", uid="second"))
    assert (change.old.metadata.uid, change.new.metadata.uid) == ("first", "second")


def test_an_object_without_a_version_always_changes(store):
    store.put(config_map("a", ""))
    assert store.put(config_map("a", "")) is not None


def test_a_dropped_object_is_gone_from_the_indexes(store):
    a = config_map("a", color="blue")
    store.put(a)
    assert store.drop(A) == Change(A, a, None)
    assert store.by("color", "blue") == []
    assert list(store.values("color")) == []
    assert store.drop(A) is None


def test_a_replacement_says_what_went_and_what_came(store):
    kept, gone, changed = config_map("kept"), config_map("gone"), config_map("changed", "1")
    for item in (kept, gone, changed):
        store.put(item)
    newer, new = config_map("changed", "2"), config_map("new")
    changes = store.replace([config_map("kept"), newer, new])
    assert changes == [
        Change(Key("ns", "gone"), gone, None),
        Change(Key("ns", "changed"), changed, newer),
        Change(Key("ns", "new"), None, new),
    ]
    assert sorted(store.keys()) == [Key("ns", "changed"), Key("ns", "kept"), Key("ns", "new")]


def test_the_same_name_in_two_namespaces_is_two_objects(store):
    for namespace in ("one", "two"):
        store.put(config_map("a", namespace=namespace, color="blue"))
    assert [item.metadata.namespace for item in store.by("color", "blue")] == ["one", "two"]


items = st.builds(
    lambda name, version, uid, color: config_map(name, str(version), uid=uid, color=color),
    st.sampled_from("abcd"),
    st.integers(1, 5),
    st.sampled_from("xy"),
    st.sampled_from(["red", "blue", ""]),
)


class StoreMachine(RuleBasedStateMachine):
    """Whatever is put, dropped and replaced: the store is a dict, and the indexes are what one computes from it."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(INDEXERS)
        self.model: dict[Key, ConfigMap] = {}

    def remember(self, item: ConfigMap) -> None:
        held = self.model.get(item.metadata.key)
        same = held and (held.metadata.uid, held.metadata.resource_version) == (
            item.metadata.uid,
            item.metadata.resource_version,
        )
        if not same:
            self.model[item.metadata.key] = item

    @rule(item=items)
    def put(self, item: ConfigMap) -> None:
        old = self.model.get(item.metadata.key)
        change = self.store.put(item)
        self.remember(item)
        assert (change is None) == (self.model[item.metadata.key] is old)
        assert change is None or (change.old, change.new) == (old, item)

    @rule(name=st.sampled_from("abcd"))
    def drop(self, name: str) -> None:
        key = Key("ns", name)
        change, old = self.store.drop(key), self.model.pop(key, None)
        assert (change.old if change else None) is old

    @rule(listed=st.lists(items, max_size=4))
    def replace(self, listed: list[ConfigMap]) -> None:
        before = dict(self.model)
        changes = self.store.replace(listed)
        fresh = {item.metadata.key: item for item in listed}
        self.model = {key: item for key, item in self.model.items() if key in fresh}
        for item in fresh.values():
            self.remember(item)
        for change in changes:
            assert change.old is before.get(change.key)
            assert change.new is self.model.get(change.key)
        assert {change.key for change in changes} == {
            key for key in before | self.model if before.get(key) is not self.model.get(key)
        }

    @invariant()
    def objects_are_those_of_the_model(self) -> None:
        assert {item.metadata.key: item for item in self.store} == self.model

    @invariant()
    def indexes_equal_a_recomputation(self) -> None:
        check_indexes(self.store, INDEXERS)


def check_indexes(store: Store[ConfigMap], indexers: dict[str, Any]) -> None:
    for name, indexer in indexers.items():
        computed: dict[Any, set[Key]] = {}
        for item in store:
            for value in indexer(item):
                computed.setdefault(value, set()).add(item.metadata.key)
        held = {value: [item.metadata.key for item in store.by(name, value)] for value in store.values(name)}
        assert {value: set(keys) for value, keys in held.items()} == computed
        assert all(len(keys) == len(set(keys)) for keys in held.values())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
