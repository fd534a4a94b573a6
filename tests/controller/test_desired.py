from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.matching import DEFAULT_NAMESPACE
from podidentity.controller.desired import desired
from tests.controller import builders
from tests.controller.builders import binding, identity, pod


def wanted(of, bound, known, *, namespaced=False):
    by_key = {it.key: it for it in known}
    return desired(of, bound, by_key.get, namespaced=namespaced)


@given(
    of=builders.pods | st.none(),
    bound=st.lists(builders.bindings, max_size=6),
    known=st.lists(builders.identities, max_size=6),
    namespaced=st.booleans(),
)
def test_exactly_the_usable_bindings_of_the_label_count(of, bound, known, namespaced):
    by_key = {it.key: it for it in known}
    matches = desired(of, bound, by_key.get, namespaced=namespaced)

    def counts(it):
        found = by_key.get(it.identity_key)
        if of is None or it.problem or found is None or found.problem or not of.spec.node_name or of.finished:
            return False
        confined = namespaced or found.namespaced
        return it.selector == of.binding_label and not (confined and it.key.namespace != of.key.namespace)

    assert set(matches) == {it.identity_key for it in bound if counts(it)}
    for key, match in matches.items():
        assert match.identity is by_key[key]
        assert counts(match.binding)
        assert match.binding.identity_key == key
        confined = namespaced or match.identity.namespaced
        assert match.namespace == (key.namespace if confined else DEFAULT_NAMESPACE)


@given(bound=st.permutations([binding(name, weight=weight) for name, weight in [("b", 1), ("a", 1), ("c", 0)]]))
def test_of_several_bindings_the_heaviest_counts_then_the_first_by_name_in_any_order(bound):
    (match,) = wanted(pod(), bound, [identity()]).values()
    assert match.binding.key.name == "a"


@given(bound=st.permutations([binding(to=name, name=name) for name in "xyz"]))
def test_the_order_of_the_bindings_changes_nothing(bound):
    known = [identity(name) for name in "xyz"]
    assert list(wanted(pod(), bound, known)) == list(wanted(pod(), sorted(bound, key=lambda it: it.key), known))


def test_a_finished_pod_wants_nothing():
    assert not wanted(pod(phase="Succeeded"), [binding()], [identity()])
    assert not wanted(pod(phase="Failed"), [binding()], [identity()])
    assert wanted(pod(phase="Pending"), [binding()], [identity()])


def test_a_pod_without_a_node_wants_nothing_yet():
    assert not wanted(pod(node=""), [binding()], [identity()])
