"""Each row of the table of answers that is decided without I/O, and what must hold for all of them."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.identities import AzureAssignedIdentity
from podidentity.api.workloads import Pod
from podidentity.node.refusal import Refusal
from podidentity.node.request import Selector, SelectorKind
from podidentity.node.rights import Awaited, Evidence, Pending, decide
from tests.node.objects import (
    DELETED_AT,
    NODE,
    Object,
    as_assigned,
    as_binding,
    as_identity,
    as_pod,
    assigned,
    binding,
    identity,
    pod,
)

WEB = pod()


def evidence(
    *,
    pod: Object = WEB,
    assigned: Iterable[Object] = (),
    bindings: Iterable[Object] = (),
    identities: Iterable[Object] = (),
    namespaced: bool = False,
) -> Evidence:
    known = {it.key: it for it in map(as_identity, identities)}
    caller = as_pod(pod)
    return Evidence(
        pod=caller,
        node=NODE,
        assigned=[as_assigned(it) for it in assigned],
        bindings=[it for it in map(as_binding, bindings) if it.selector == caller.binding_label],
        identity_of=known.get,
        namespaced=namespaced,
    )


def by_client(name: str) -> Selector:
    return Selector(SelectorKind.CLIENT_ID, name)


def given_away(facts: Evidence, selector: Selector | None = None) -> str:
    """The name of the identity that the decision gives."""
    decision = decide(facts, selector)
    assert isinstance(decision, AzureAssignedIdentity), decision
    return decision.identity.metadata.name


def pending(facts: Evidence, selector: Selector | None = None) -> Pending:
    decision = decide(facts, selector)
    assert isinstance(decision, Pending), decision
    return decision


def refused(facts: Evidence, selector: Selector | None = None) -> str:
    decision = decide(facts, selector)
    assert isinstance(decision, Refusal), decision
    assert (decision.status, decision.retry_after) == (400, None)
    return decision.description


BOUND: Any = {"bindings": [binding()], "identities": [identity()]}


@pytest.mark.parametrize("state", ["Assigned", ""])
def test_an_assigned_identity_is_given(state):
    assert given_away(evidence(**BOUND, assigned=[assigned(state=state)])) == "one"


def test_a_pod_without_the_label_is_refused_as_a_machine_without_identity():
    facts = evidence(pod=pod(label=""), **BOUND, assigned=[assigned()])
    assert "Identity not found" in refused(facts)


def test_an_object_id_is_refused_rather_than_ignored():
    facts = evidence(**BOUND, assigned=[assigned()])
    assert "object_id" in refused(facts, Selector(SelectorKind.OBJECT_ID, "x"))


def test_a_label_that_nothing_matches_may_be_bound_soon():
    found = pending(evidence(identities=[identity()]))
    assert found.awaited is Awaited.BINDING
    assert found.reason == "no AzureIdentityBinding has the selector 'app' of the pod default/web"


def test_a_binding_without_its_identity_may_be_completed_soon():
    found = pending(evidence(bindings=[binding()]))
    assert found.awaited is Awaited.BINDING
    assert "names the AzureIdentity one, which does not exist" in found.reason


def test_an_invalid_identity_is_told_with_its_flaw():
    found = pending(evidence(bindings=[binding()], identities=[identity(resource_id="/nonsense")]))
    assert found.awaited is Awaited.BINDING
    assert "the AzureIdentity one cannot be used: '/nonsense' is no ID" in found.reason


def test_a_binding_elsewhere_to_nothing_is_told_without_its_name():
    found = pending(evidence(bindings=[binding("hidden", namespace="far")]))
    assert (
        found.reason
        == "an AzureIdentityBinding with the selector 'app' exists, but its AzureIdentity is missing or invalid"
    )


@pytest.mark.parametrize("by_annotation", [True, False])
def test_an_identity_of_another_namespace_serves_only_where_that_is_allowed(by_annotation):
    far, bind = identity(namespace="far", confined=by_annotation), binding(namespace="far")
    confined = evidence(
        bindings=[bind], identities=[far], assigned=[assigned(far, bind)], namespaced=not by_annotation
    )
    found = pending(confined)
    assert found.awaited is Awaited.BINDING
    assert "of their own namespace only" in found.reason
    open_one = identity(namespace="far")
    assert given_away(evidence(bindings=[bind], identities=[open_one], assigned=[assigned(open_one, bind)])) == "one"


def test_an_annotation_that_confines_counts_at_once():
    was, now = identity(namespace="far"), identity(namespace="far", confined=True)
    bind = binding(namespace="far")
    facts = evidence(bindings=[bind], identities=[now], assigned=[assigned(was, bind)])
    assert pending(facts).awaited is Awaited.BINDING


def test_a_confined_identity_serves_its_own_namespace():
    own = identity(confined=True)
    assert given_away(evidence(bindings=[binding()], identities=[own], assigned=[assigned(own)])) == "one"


def test_a_bound_identity_that_is_not_assigned_is_under_way():
    found = pending(evidence(**BOUND))
    assert found == Pending(Awaited.ASSIGNMENT, "the identity one is bound, and its assignment in Azure is under way")


def test_an_identity_of_another_namespace_is_not_named():
    facts = evidence(bindings=[binding(namespace="far")], identities=[identity(namespace="far")])
    assert pending(facts).reason.startswith("an identity of another namespace is bound")


def test_a_created_assignment_is_under_way_since_a_moment():
    made = assigned(state="Created")
    made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    found = pending(evidence(**BOUND, assigned=[made]))
    assert found.awaited is Awaited.ASSIGNMENT
    assert found.reason.endswith("under way since 2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "stale",
    [
        assigned(state="Unassigned"),
        assigned(state="Nonsense"),
        assigned(terminating=True),
        assigned(node="node-b"),
        assigned(of=pod("other")),
        assigned(of=pod(namespace="far")),
    ],
    ids=["unassigned", "unknown state", "terminating", "other node", "other pod", "other namespace"],
)
def test_an_assignment_that_does_not_count_leaves_the_pod_waiting(stale):
    assert pending(evidence(**BOUND, assigned=[stale])).awaited is Awaited.ASSIGNMENT


def test_a_deleted_binding_ends_the_right_though_the_assignment_is_still_there():
    assert pending(evidence(identities=[identity()], assigned=[assigned()])).awaited is Awaited.BINDING


def test_an_assignment_that_a_person_wrote_without_a_binding_counts_as_it_is():
    by_hand = assigned(by={"spec": {"azureIdentity": "one", "selector": "app"}, "metadata": {"name": "bind"}})
    assert given_away(evidence(assigned=[by_hand])) == "one"
    assert isinstance(decide(evidence(assigned=[by_hand], pod=pod(label="other")), None), Pending)


def test_a_deleted_identity_ends_the_right_though_the_assignment_is_still_there():
    assert pending(evidence(bindings=[binding()], assigned=[assigned()])).awaited is Awaited.BINDING


def test_a_changed_label_ends_the_right():
    facts = evidence(pod=pod(label="else"), **BOUND, assigned=[assigned(of=pod(label="else"))])
    assert pending(facts).awaited is Awaited.BINDING


def test_a_second_binding_to_the_same_identity_keeps_the_right():
    facts = evidence(bindings=[binding("second")], identities=[identity()], assigned=[assigned(by=binding("first"))])
    assert given_away(facts) == "one"


TWO: Any = {
    "bindings": [binding("b1", "one"), binding("b2", "two")],
    "identities": [identity("one"), identity("two")],
}
BOTH = [assigned(identity("two"), binding("b2", "two")), assigned(identity("one"), binding("b1", "one"))]


def test_of_several_the_first_by_name_is_given():
    assert given_away(evidence(**TWO, assigned=BOTH)) == "one"


def test_of_several_the_heaviest_is_given():
    heavy = [binding("b1", "one"), binding("b2", "two", weight=5)]
    assert given_away(evidence(bindings=heavy, identities=TWO["identities"], assigned=BOTH)) == "two"


def test_the_first_choice_is_waited_for_rather_than_replaced():
    facts = evidence(**TWO, assigned=[assigned(identity("one"), state="Created"), BOTH[0]])
    assert pending(facts).awaited is Awaited.ASSIGNMENT


def test_an_assignment_of_the_second_choice_does_not_replace_the_first_before_its_own_is_there():
    found = pending(evidence(**TWO, assigned=[BOTH[0]]))
    assert "the identity one is bound" in found.reason


@pytest.mark.parametrize(
    "edit", [{"clientID": "new"}, {"resource_id": identity("new")["spec"]["resourceID"]}], ids=str
)
def test_an_identity_that_was_edited_has_to_be_assigned_anew(edit):
    edited = identity(**edit)
    assert (
        pending(evidence(bindings=[binding()], identities=[edited], assigned=[assigned()])).awaited
        is Awaited.ASSIGNMENT
    )
    assert given_away(evidence(bindings=[binding()], identities=[edited], assigned=[assigned(edited)])) == "one"


def test_an_edit_of_metadata_alone_changes_nothing():
    labelled = identity()
    labelled["metadata"]["labels"] = {"team": "a"}
    assert given_away(evidence(bindings=[binding()], identities=[labelled], assigned=[assigned()])) == "one"


def test_of_two_assignments_of_one_identity_the_usable_one_counts():
    facts = evidence(**BOUND, assigned=[assigned(state="Created", name="a"), assigned(name="b")])
    assert given_away(facts) == "one"


@pytest.mark.parametrize(
    "selector",
    [by_client("client-two"), Selector(SelectorKind.RESOURCE_ID, as_identity(identity("two")).resource_id)],
    ids=["client ID", "resource ID"],
)
def test_a_selector_chooses(selector):
    assert given_away(evidence(**TWO, assigned=BOTH), selector) == "two"
    assert pending(evidence(**TWO), selector).awaited is Awaited.ASSIGNMENT


def test_a_selector_of_none_that_is_bound_is_refused_at_once():
    for facts in (evidence(**TWO, assigned=BOTH), evidence(**BOUND)):
        assert refused(facts, by_client("client-x")).startswith(
            "Identity not found: no identity with client_id=client-x"
        )


def test_a_selector_waits_while_nothing_at_all_is_bound():
    assert pending(evidence(), by_client("client-one")).awaited is Awaited.BINDING


@pytest.mark.parametrize("kind", [SelectorKind.CLIENT_ID, SelectorKind.RESOURCE_ID])
def test_an_empty_selector_matches_no_empty_id(kind):
    bare = identity(clientID="")
    facts = evidence(bindings=[binding()], identities=[bare], assigned=[assigned(bare)])
    refused(facts, Selector(kind, ""))


NAMESPACES = st.sampled_from(["default", "far"])
NAMES = st.sampled_from(["one", "two"])
# Names say the namespace, so that words that should not name an object can be found out.
IDENTITIES = st.builds(
    lambda name, namespace, confined: identity(
        f"{namespace}-{name}", namespace=namespace, confined=confined, clientID=f"client-{name}"
    ),
    NAMES,
    NAMESPACES,
    st.booleans(),
)
BINDINGS = st.builds(
    lambda name, to, namespace, selector, weight: binding(
        f"{namespace}-{name}", f"{namespace}-{to}", namespace=namespace, selector=selector, weight=weight
    ),
    st.sampled_from(["b1", "b2", "b3"]),
    NAMES,
    NAMESPACES,
    st.sampled_from(["app", "app", "else"]),
    st.integers(0, 1),
)
ASSIGNED = st.builds(
    lambda to, by, of, state, node, terminating, number: assigned(
        to, by, of, state=state, node=node, terminating=terminating, name=f"a{number}"
    ),
    IDENTITIES,
    BINDINGS,
    st.sampled_from([WEB, WEB, pod("other")]),
    st.sampled_from(["Assigned", "Created", "Unassigned", ""]),
    st.sampled_from([NODE, NODE, "node-b"]),
    st.booleans(),
    st.integers(0, 3),
)
SELECTORS = st.sampled_from([None, None, by_client("client-one"), by_client("client-two"), by_client("client-x")])


def unique(objects: list[Object]) -> list[Object]:
    return list({(it["metadata"]["namespace"], it["metadata"]["name"]): it for it in objects}.values())


@given(
    st.lists(ASSIGNED, max_size=4).map(unique),
    st.lists(BINDINGS, max_size=4).map(unique),
    st.lists(IDENTITIES, max_size=4).map(unique),
    SELECTORS,
    st.booleans(),
)
def test_whatever_is_given_is_usable_of_this_pod_here_bound_and_allowed(
    made, bindings, identities, selector, namespaced
):
    def decided(backwards: bool) -> AzureAssignedIdentity | Pending | Refusal:  # noqa: FBT001 - a test's own
        turn = -1 if backwards else 1
        facts = evidence(
            assigned=made[::turn], bindings=bindings[::turn], identities=identities, namespaced=namespaced
        )
        return decide(facts, selector)

    decision, other_order = decided(backwards=False), decided(backwards=True)
    if isinstance(decision, Refusal):
        assert isinstance(other_order, Refusal)
        assert decision.body == other_order.body
        assert "far" not in decision.description
        return
    assert decision == other_order
    if isinstance(decision, Pending):
        assert "far" not in decision.reason
        return
    chosen = decision.identity
    live = {it.key: it for it in map(as_identity, identities)}
    assert decision.usable
    assert decision.pod == as_pod(WEB).key
    assert decision.node == NODE
    assert selector is None or chosen.client_id == selector.value
    assert chosen.client_id == live[chosen.key].client_id
    assert any(as_binding(it).identity_key == chosen.key for it in bindings if it["spec"]["selector"] == "app")
    confined = namespaced or live[chosen.key].namespaced
    assert chosen.metadata.namespace == "default" or not confined


def test_the_builders_here_build_what_they_say():
    made = as_assigned(assigned(terminating=True))
    assert isinstance(as_pod(WEB), Pod)
    assert (made.problem, made.metadata.deletion_timestamp) == ("", DELETED_AT)
