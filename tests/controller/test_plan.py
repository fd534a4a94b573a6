from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.azure.compute import IdentitySet
from podidentity.controller.plan import FORGET_AFTER, LARGEST_CHANGE, Situation, plan

ALL = [f"id{number}" for number in range(6)]
some = st.frozensets(st.sampled_from(ALL))
times = st.dictionaries(st.sampled_from(ALL), st.floats(0, 1000))
NOW = 1000.0


@st.composite
def situations(draw):
    present = draw(some)
    return Situation(
        wanted=draw(some),
        present=IdentitySet(
            kind="UserAssigned", client_ids={it: f"client-{it}" for it in present}, settled=draw(st.booleans())
        ),
        in_effect=present & draw(some),
        owned=draw(some),
        unused_since=draw(times),
        refused_until=draw(st.dictionaries(st.sampled_from(ALL), st.floats(0, 2000))),
        protected_client_ids=frozenset(f"client-{it}" for it in draw(some)),
        unassign_after=draw(st.sampled_from([0.0, 10.0, 600.0, inf])),
    )


def situation(**changes):
    nothing = Situation(
        wanted=frozenset(),
        present=IdentitySet(kind="None", client_ids={}),
        in_effect=frozenset(),
        owned=frozenset(),
        unused_since={},
        refused_until={},
        protected_client_ids=frozenset(),
        unassign_after=0.0,
    )
    return replace(nothing, **changes)


def present(*names):
    return IdentitySet(kind="UserAssigned", client_ids=dict.fromkeys(names, "client"))


@given(now_is=situations())
def test_only_what_is_wanted_and_not_in_effect_is_added(now_is):
    todo = plan(now_is, NOW)
    assert todo.add <= now_is.wanted - now_is.in_effect
    left_out = now_is.wanted - now_is.in_effect - todo.add
    assert all(now_is.refused_until[it] > NOW for it in left_out)


@given(now_is=situations())
def test_nothing_wanted_foreign_or_protected_is_ever_removed(now_is):
    todo = plan(now_is, NOW)
    assert not todo.remove & now_is.wanted
    assert not todo.remove & todo.add
    assert todo.remove <= now_is.owned
    assert not {now_is.present.client_ids.get(it) for it in todo.remove} & now_is.protected_client_ids
    assert all(now_is.unused_since.get(it, NOW) + now_is.unassign_after <= NOW for it in todo.remove)


@given(now_is=situations())
def test_what_is_not_shown_is_removed_only_when_that_is_in_doubt_and_nothing_else_is_to_be_done(now_is):
    todo = plan(now_is, NOW)
    if hidden := todo.remove - now_is.present.user_assigned:
        assert not now_is.present.settled
        assert todo.remove == hidden
        assert not todo.add


@given(now_is=situations())
def test_only_what_is_neither_used_nor_there_is_forgotten_and_only_after_a_while(now_is):
    todo = plan(now_is, NOW)
    assert todo.forget <= now_is.owned - now_is.wanted - now_is.present.user_assigned
    assert all(now_is.unused_since[it] + FORGET_AFTER <= NOW for it in todo.forget)


@given(now_is=situations())
def test_looking_again_at_the_time_it_says_finds_something_to_do(now_is):
    todo = plan(now_is, NOW)
    if todo.look_again_at is not None:
        assert todo.look_again_at > NOW
        later = plan(
            replace(now_is, unused_since=dict.fromkeys(ALL, NOW) | dict(now_is.unused_since)), todo.look_again_at
        )
        assert not later.empty


@given(now_is=situations())
def test_when_all_is_done_there_is_nothing_left_to_do(now_is):
    todo = plan(now_is, NOW)
    patched = bool(todo.add or todo.remove)
    after = now_is.present.changed(add=todo.add, remove=todo.remove) if patched else now_is.present
    done = replace(
        now_is,
        present=after,
        in_effect=after.user_assigned if patched else now_is.in_effect,
        owned=(now_is.owned | todo.add) - todo.remove - todo.forget,
    )
    assert plan(done, NOW).empty


def test_never_is_never():
    todo = plan(situation(owned=frozenset({"a"}), present=present("a"), unassign_after=inf), 1e12)
    assert todo.empty
    assert todo.look_again_at is None


def test_a_grace_that_runs_is_looked_at_when_it_ends():
    now_is = situation(owned=frozenset({"a"}), present=present("a"), unused_since={"a": 995.0}, unassign_after=10.0)
    assert plan(now_is, NOW).look_again_at == 1005.0
    assert plan(now_is, 1005.0).remove == {"a"}


@pytest.mark.parametrize(("added", "removed"), [(0, 400), (400, 0), (149, 400), (150, 400), (200, 200)])
def test_one_change_holds_no_more_than_arm_takes_and_additions_come_first(added, removed):
    wanted = frozenset(f"new{number}" for number in range(added))
    old = [f"old{number}" for number in range(removed)]
    todo = plan(situation(wanted=wanted, owned=frozenset(old), present=present(*old)), NOW)
    assert len(todo.add) == min(added, LARGEST_CHANGE)
    assert len(todo.add) + len(todo.remove) == min(added + removed, LARGEST_CHANGE)
