import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.emulator.kubernetes import ClusterSettings, ClusterState
from podidentity.emulator.kubernetes.deletion import DeleteOptions, delete
from podidentity.emulator.kubernetes.errors import ApiError
from podidentity.emulator.kubernetes.incoming import WriteOptions
from podidentity.emulator.kubernetes.resources import CONFIG_MAPS, Target
from podidentity.emulator.kubernetes.writes import create, patch

steps = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["create", "patch", "delete"])), max_size=30)


def step(state: ClusterState, name: str, action: str, number: int) -> None:
    """Do what a client might do, where it can be done."""
    target = Target(CONFIG_MAPS, "default", name)
    there = target.key in state.collection(CONFIG_MAPS).objects
    if action == "create" and not there:
        body = {"metadata": {"name": name}, "data": {"n": str(number)}}
        create(state, Target(CONFIG_MAPS, "default"), body, WriteOptions())
    elif action == "patch" and there:
        patch(state, target, lambda old: {**old, "data": {"n": str(number)}}, WriteOptions())
    elif action == "delete" and there:
        delete(state, target, DeleteOptions())


def snapshot(state: ClusterState) -> dict[str, Any]:
    return dict(state.collection(CONFIG_MAPS).objects)


@given(steps)
def test_every_revision_can_be_seen_again(actions):
    state = ClusterState()
    seen = {state.revision: snapshot(state)}
    for number, (name, action) in enumerate(actions):
        step(state, name, action, number)
        seen[state.revision] = snapshot(state)
    for revision, objects in seen.items():
        assert state.collection(CONFIG_MAPS).at(revision) == objects


@given(steps)
def test_changes_since_a_snapshot_lead_to_the_present(actions):
    state = ClusterState()
    objects = snapshot(state)
    begin = state.revision
    for number, (name, action) in enumerate(actions):
        step(state, name, action, number)
    for change in state.collection(CONFIG_MAPS).since(begin):
        source = change.after or change.before
        assert source is not None
        key = f"default/{source['metadata']['name']}"
        assert objects.get(key) == change.before
        if change.after is None:
            del objects[key]
        else:
            objects[key] = change.after
    assert objects == snapshot(state)


def test_the_same_seed_and_clock_make_the_same_cluster():
    def run() -> dict[str, Any]:
        state = ClusterState(clock=lambda: 1.0, rng=random.Random(7))
        for number in range(5):
            create(
                state, Target(CONFIG_MAPS, "default"), {"metadata": {"generateName": f"x{number}-"}}, WriteOptions()
            )
        return snapshot(state)

    assert run() == run()


def test_the_log_is_bounded():
    state = ClusterState(settings=ClusterSettings(log_limit=10))
    begin = state.revision
    for number in range(50):
        step(state, "a", "create" if number == 0 else "patch", number)
    assert len(state.collection(CONFIG_MAPS).log) <= 10
    with pytest.raises(ApiError, match="too old resource version"):
        state.collection(CONFIG_MAPS).since(begin)
