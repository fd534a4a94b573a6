import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.identities import AssignedState
from podidentity.api.matching import Match
from podidentity.controller.changes import Changes, changes, outdated
from podidentity.controller.desired import desired
from tests.controller import builders
from tests.controller.builders import assigned, binding, identity, pod

matches = st.builds(Match, builders.bindings, builders.identities, st.sampled_from(["default", "a"]))
existing_of = st.lists(
    st.tuples(matches, st.sampled_from(AssignedState), st.booleans(), st.sampled_from(["", "", "broken"])), max_size=5
)


def applied(todo, of, existing):
    """What exists after the changes were written."""
    gone = [*todo.release, *todo.delete]
    kept = [it for it in existing if it not in gone and it not in [old for old, _ in todo.update]]
    updated = [assigned(of, match, name=old.key.name) for old, match in todo.update]
    created = [assigned(of, match, name=f"new-{number}") for number, match in enumerate(todo.create)]
    return kept + updated + created


@given(
    of=builders.pods | st.none(),
    bound=st.lists(builders.bindings, max_size=5),
    known=st.lists(builders.identities, max_size=5),
    found=existing_of,
)
def test_after_the_changes_there_is_nothing_left_to_change(of, bound, known, found):
    by_key = {it.key: it for it in known}
    wanted = desired(of, bound, by_key.get, namespaced=False)
    owner = of or pod()
    existing = [
        assigned(owner, match, name=f"a{number}", state=state, deleted=deleted, problem=problem)
        for number, (match, state, deleted, problem) in enumerate(found)
    ]
    todo = changes(of, wanted, existing)
    after = applied(todo, of, existing)
    assert {it.identity.key for it in after} == set(wanted)
    assert len(after) == len(wanted)
    again = changes(of, wanted, after)
    assert again == Changes()


@given(found=existing_of)
def test_without_a_pod_everything_goes(found):
    existing = [assigned(pod(), match, name=f"a{number}") for number, (match, *_) in enumerate(found)]
    todo = changes(None, {}, existing)
    assert sorted(it.key for it in todo.delete) == sorted(it.key for it in existing)
    assert (todo.create, todo.update) == ([], [])


def test_an_object_under_any_name_is_adopted():
    match = Match(binding(), identity(), "default")
    todo = changes(
        pod(), {match.identity.key: match}, [assigned(pod(), match, name="as-somebody-called-it", ours=False)]
    )
    assert todo == Changes()


def test_one_of_two_objects_for_the_same_is_deleted():
    match = Match(binding(), identity(), "default")
    twins = [assigned(pod(), match, name=name) for name in ("one", "two")]
    todo = changes(pod(), {match.identity.key: match}, twins)
    assert [it.key.name for it in todo.delete] == ["two"]
    assert not todo.create


def test_an_object_in_the_wrong_namespace_is_made_anew():
    old = Match(binding(), identity(), "default")
    new = Match(binding(), identity(), "team")
    todo = changes(pod(), {new.identity.key: new}, [assigned(pod(), old)])
    assert (len(todo.delete), todo.create) == (1, [new])


@pytest.mark.parametrize(
    "changed",
    [
        identity(resource_id=builders.resource_id("other")),
        identity(client_id="other"),
        identity(tenant_id="t"),
        identity(ad_endpoint="https://e"),
        identity(auxiliary_tenant_ids=("t",)),
        identity(namespaced=True),
    ],
)
def test_a_change_of_a_field_that_means_something_is_an_update(changed):
    match = Match(binding(), identity(), "default")
    assert outdated(assigned(pod(), match), pod(), Match(binding(), changed, "default"))


@pytest.mark.parametrize("changed", [binding(selector="t"), binding(weight=3), binding("other")])
def test_another_binding_is_an_update(changed):
    match = Match(binding(), identity(), "default")
    assert outdated(assigned(pod(), match), pod(), Match(changed, identity(), "default"))


def test_another_node_is_an_update():
    match = Match(binding(), identity(), "default")
    assert outdated(assigned(pod(node="m"), match), pod(node="n"), match)


@pytest.mark.parametrize(
    ("state", "problem", "expected"),
    [
        (AssignedState.CREATED, "", False),
        (AssignedState.NONE, "", False),
        (AssignedState.UNASSIGNED, "", True),
        (AssignedState.ASSIGNED, "broken", True),
    ],
)
def test_what_somebody_left_half_done_is_an_update(state, problem, expected):
    match = Match(binding(), identity(), "default")
    assert outdated(assigned(pod(), match, state=state, problem=problem), pod(), match) is expected
