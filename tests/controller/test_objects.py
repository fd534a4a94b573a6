import msgspec
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.identities import AssignedState, read_assigned_identity
from podidentity.api.matching import Match
from podidentity.api.meta import Key
from podidentity.controller.changes import outdated
from podidentity.controller.objects import assigned_body, assigned_name, assigned_patch, state_patch
from podidentity.emulator.kubernetes.patches import merge_patch
from tests.controller import builders
from tests.controller.builders import binding, identity, pod

words = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", fullmatch=True)
keys = st.builds(Key, words, words)
sound = builders.identities.filter(lambda it: not it.problem)


def free(_key):
    return True


def taken(_key):
    return False


def match_of(name, namespace="default", home="default"):
    return Match(binding(to=name), identity(name, namespace), home)


def test_the_name_is_upstream_s():
    assert assigned_name(Key("ns", "web-0"), match_of("x"), free) == "web-0-ns-x"


@given(of=keys, name=words, namespace=words)
def test_a_name_is_never_too_long_and_ends_in_a_letter_or_digit(of, name, namespace):
    for is_free in (free, taken):
        made = assigned_name(of, match_of(name, namespace), is_free)
        assert len(made) <= 253
        assert made[-1].isalnum()
        assert made[0].isalnum()


@given(
    triples=st.lists(
        st.tuples(builders.names, builders.namespaces, builders.names, builders.namespaces),
        unique=True,
        min_size=2,
        max_size=8,
    )
)
def test_different_pods_and_identities_get_different_names(triples):
    used = set()
    for pod_name, pod_namespace, name, namespace in triples:
        made = assigned_name(
            Key(pod_namespace, pod_name), match_of(name, namespace), lambda key: key.name not in used
        )
        assert made not in used
        used.add(made)


@given(pod_namespace=words, pod_name=words, name=words)
def test_the_second_name_depends_on_nothing_but_pod_and_identity(pod_namespace, pod_name, name):
    of = Key(pod_namespace, pod_name)
    assert assigned_name(of, match_of(name), taken) == assigned_name(of, match_of(name, home="team"), taken)


@given(bound=builders.bindings, known=sound, of=builders.pods, state=st.sampled_from(AssignedState))
def test_what_is_written_is_read_back_as_it_was(bound, known, of, state):
    match = Match(bound, known, "default")
    body = assigned_body("name", of, match, state)
    read = read_assigned_identity(msgspec.json.encode(body))
    assert (read.pod, read.node, read.state) == (of.key, of.spec.node_name, state)
    assert not read.problem
    assert (read.identity.client_id, read.identity.resource_id) == (known.client_id, known.resource_id)
    assert read.identity.namespaced == known.namespaced
    if state is not AssignedState.UNASSIGNED and not bound.problem:
        assert not outdated(read, of, match)


@given(
    old=st.tuples(builders.bindings, sound, builders.pods),
    new=st.tuples(builders.bindings.filter(lambda it: not it.problem), sound, builders.pods),
    annotations=st.none() | st.dictionaries(st.sampled_from(["a", "b"]), st.just("1")),
)
def test_a_patch_brings_any_object_up_to_date(old, new, annotations):
    body = assigned_body("name", old[2], Match(old[0], old[1], "default"), AssignedState.ASSIGNED)
    embedded = body["spec"]["azureIdentityRef"]["metadata"]
    embedded["annotations"] = {**embedded["annotations"], **(annotations or {})}
    match = Match(new[0], new[1], "default")
    patched = merge_patch(body, assigned_patch(new[2], match, AssignedState.CREATED))
    read = read_assigned_identity(msgspec.json.encode(patched))
    read = msgspec.structs.replace(read, pod=new[2].key)
    assert not outdated(read, new[2], match)
    assert read.state is AssignedState.CREATED


def test_the_label_of_the_node_is_left_out_where_no_label_may_be_so_long():
    match, long = match_of("x"), "n" * 64
    assert "nodename" not in assigned_body("a", pod(node=long), match, AssignedState.CREATED)["metadata"]["labels"]
    patched = merge_patch(
        assigned_body("a", pod(node="n"), match, AssignedState.CREATED),
        assigned_patch(pod(node=long), match, AssignedState.CREATED),
    )
    assert "nodename" not in patched["metadata"]["labels"]
    assert patched["spec"]["nodename"] == long


def test_a_new_object_holds_no_nulls():
    body = assigned_body("a", pod(), match_of("x"), AssignedState.CREATED)
    assert b"null" not in msgspec.json.encode(body)


def test_the_state_is_written_with_the_replica_that_upstream_writes():
    assert state_patch(AssignedState.ASSIGNED) == {"status": {"status": "Assigned", "availableReplicas": 1}}
