import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.meta import Key
from podidentity.api.workloads import Pod
from podidentity.emulator.inprocess import InProcessTransport
from podidentity.emulator.kubernetes import Call, kubernetes_app
from podidentity.kube.client import KubeClient
from podidentity.kube.store import Store
from podidentity.node.callers import Ambiguous, LiveLookup, owner_of, parse_address, pod_of
from tests.node.objects import NODE, as_pod, pod
from tests.node.town import Api
from tests.virtual_time import settle, virtual_time

ADDRESS = IPv4Address("10.244.0.5")
OTHER = IPv4Address("10.244.0.6")


def store(*objects) -> Store[Pod]:
    made: Store[Pod] = Store({"address": lambda it: it.addresses})
    made.replace([as_pod(it) for it in objects])
    return made


def name_of(found: Pod | None) -> str | None:
    return found.metadata.name if found else None


def owner(*objects, address=ADDRESS):
    return name_of(owner_of(address, store(*objects)))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.244.0.5", ADDRESS),
        ("::ffff:10.244.0.5", ADDRESS),
        ("fd00::5", IPv6Address("fd00::5")),
        ("fe80::1%eth0", IPv6Address("fe80::1")),
    ],
)
def test_a_peer_is_read_as_the_address_that_pods_have(text, address):
    assert parse_address(text) == address


def test_the_pod_with_the_address_is_the_caller():
    assert owner(pod("a", "10.244.0.5"), pod("b", "10.244.0.6")) == "a"


def test_every_address_of_a_pod_counts():
    for address in ("10.244.0.5", "fd00::5"):
        assert owner(pod("a", "10.244.0.5", "fd00::5"), address=ip_address(address)) == "a"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_has_no_address_any_more(phase):
    assert owner(pod("a", phase=phase)) is None


def test_a_pod_on_the_hosts_network_is_never_the_caller():
    assert owner(pod("a", host_network=True)) is None


def test_a_terminating_pod_is_served_while_nobody_can_have_got_its_address():
    assert owner(pod("a", terminating=True), pod("b", "10.244.0.6")) == "a"


def test_a_terminating_pod_is_in_doubt_while_another_waits_for_an_address():
    with pytest.raises(Ambiguous, match="terminating"):
        owner(pod("a", terminating=True), pod("b", ""))


@pytest.mark.parametrize(
    "waiting",
    [pod("b", "", terminating=True), pod("b", "", phase="Failed"), pod("b", "", host_network=True)],
    ids=["terminating", "finished", "host network"],
)
def test_who_will_never_get_an_address_casts_no_doubt(waiting):
    assert owner(pod("a", terminating=True), waiting) == "a"


def test_the_pod_that_stays_has_the_address_of_the_one_that_goes():
    assert owner(pod("a", terminating=True), pod("b"), pod("c", phase="Succeeded")) == "b"


def test_an_address_of_two_pods_is_nobodys():
    with pytest.raises(Ambiguous, match="2 pods"):
        owner(pod("a"), pod("b"))
    with pytest.raises(Ambiguous, match="2 pods"):
        owner(pod("a", terminating=True), pod("b", terminating=True))


PODS = st.lists(
    st.builds(
        lambda name, address, phase, terminating, host: pod(
            f"pod-{name}", address, phase=phase, terminating=terminating, host_network=host
        ),
        st.integers(0, 9),
        st.sampled_from(["10.244.0.5", "10.244.0.6", ""]),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=5,
)


@given(PODS)
def test_an_owner_is_alive_and_alone_and_every_order_finds_the_same(objects):
    unique = list({it["metadata"]["name"]: it for it in objects}.values())

    def outcome(order):
        try:
            return owner_of(ADDRESS, store(*order))
        except Ambiguous:
            return "ambiguous"

    found = outcome(unique)
    assert outcome(unique[::-1]) == found
    if isinstance(found, Pod):
        assert ADDRESS in found.addresses
        assert not found.finished
        rivals = [as_pod(it) for it in unique]
        assert not [
            it
            for it in rivals
            if it.key != found.key and ADDRESS in it.addresses and not (it.finished or it.metadata.terminating)
        ]


def test_a_program_of_the_host_names_a_pod():
    pods = store(pod("a"), pod("b", phase="Failed"), pod("c", "", terminating=True))
    names = [name_of(pod_of(Key("default", name), pods)) for name in "abcd"]
    assert names == ["a", None, "c", None]
    assert pod_of(Key("elsewhere", "a"), pods) is None


def live(api: Api) -> tuple[LiveLookup, InProcessTransport]:
    transport = InProcessTransport(kubernetes_app(api.state))
    return LiveLookup(KubeClient(transport), NODE), transport


def count_lists(api: Api) -> list[str]:
    seen: list[str] = []

    def note(call: Call) -> bool:
        seen.append(call.path)
        return False

    api.state.faults.delay(0, times=None, match=note)
    return seen


@virtual_time
async def test_a_lookup_finds_a_pod_of_this_node_only():
    api = Api()
    api.put(pod("a", "10.244.0.5"), pod("b", "10.244.0.6", node="node-b"))
    lookup, _ = live(api)
    assert name_of(await lookup.find(ADDRESS)) == "a"
    await asyncio.sleep(2)
    assert await lookup.find(OTHER) is None


@virtual_time
async def test_one_lookup_serves_everybody_for_a_second():
    api = Api()
    api.put(pod("a", "10.244.0.5"), pod("b", "10.244.0.6"))
    lists = count_lists(api)
    lookup, _ = live(api)
    found = await asyncio.gather(
        *(lookup.find(it) for it in (ADDRESS, OTHER, Key("default", "a"), IPv4Address("10.1.1.1")) * 5)
    )
    assert [name_of(it) for it in found[:4]] == ["a", "b", "a", None]
    assert len(lists) == 1
    assert name_of(lookup.recent(OTHER)) == "b"
    await asyncio.sleep(1)
    assert lookup.recent(OTHER) is None
    await lookup.find(OTHER)
    assert len(lists) == 2


@virtual_time
async def test_an_ambiguous_lookup_finds_nobody():
    api = Api()
    api.put(pod("a", terminating=True), pod("b", ""))
    lookup, _ = live(api)
    assert await lookup.find(ADDRESS) is None


@virtual_time
async def test_a_sick_api_server_costs_three_seconds_at_most_and_a_second_of_peace_after():
    api = Api()
    api.put(pod("a"))
    api.state.faults.delay(60, times=None)
    lists = count_lists(api)
    lookup, transport = live(api)
    now = asyncio.get_running_loop().time
    assert not any(await asyncio.gather(lookup.find(ADDRESS), lookup.find(ADDRESS)))
    assert (now(), len(lists)) == (3, 1)
    await transport.close()


@pytest.mark.parametrize("body", [None, b"<html>", b"{}", b"[]", b'{"items": [{"metadata": 7}]}'])
def test_an_answer_that_is_none_finds_nobody(body):
    @virtual_time
    async def scenario():
        api = Api()
        api.state.faults.answer(500 if body is None else 200, times=None, body=body)
        lookup, _ = live(api)
        assert await lookup.find(ADDRESS) is None

    scenario()


@virtual_time
async def test_who_leaves_during_a_lookup_takes_it_from_nobody():
    api = Api()
    api.put(pod("a"))
    api.state.faults.delay(1)
    lookup, transport = live(api)
    leaver, stayer = (asyncio.create_task(lookup.find(ADDRESS)) for _ in range(2))
    await settle()
    leaver.cancel()
    assert name_of(await stayer) == "a"
    await transport.close()
