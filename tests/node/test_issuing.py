"""Each row of the table of answers, with real informers on a stand-in API server and a stand-in IMDS."""

import asyncio
from ipaddress import IPv4Address

import pytest

from podidentity.api.meta import Key
from podidentity.emulator.azure.imds import server_error, throttled
from podidentity.emulator.azure.service import Delay, Hang, Json
from podidentity.emulator.kubernetes import Call
from podidentity.node.issuing import Issued
from podidentity.node.refusal import Refusal
from podidentity.node.request import Selector, SelectorKind, TokenRequest
from tests.node.objects import assigned, binding, identity, pod
from tests.node.town import Town, town
from tests.virtual_time import settle, virtual_time

ADDRESS, OTHER = IPv4Address("10.244.0.5"), IPv4Address("10.244.0.6")
VAULT = TokenRequest("https://vault.azure.net")
BOUND = (pod(), binding(), identity())
READY = (*BOUND, assigned())


def now() -> float:
    return asyncio.get_running_loop().time()


async def issue(place: Town, caller=ADDRESS, request=VAULT) -> Issued:
    """As the server does it."""
    return place.issuer.at_once(caller, request) or await place.issuer.issue(caller, request)


async def refusal(place: Town, caller=ADDRESS, request=VAULT) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await issue(place, caller, request)
    return caught.value


def answer(refusal: Refusal) -> tuple[int, float | None]:
    return refusal.status, refusal.retry_after


def held(place: Town, caller=ADDRESS, request=VAULT) -> "asyncio.Task[Issued]":
    return asyncio.create_task(issue(place, caller, request))


@virtual_time
async def test_an_assigned_pod_gets_a_token_of_its_identity():
    async with town(*READY) as place:
        place.own(identity())
        issued = await issue(place)
        assert issued.token.client_id == "client-one"
        assert (issued.pod.key, issued.assigned.identity.metadata.name) == (Key("default", "web"), "one")
        assert now() < 1


@virtual_time
async def test_the_second_token_comes_at_once_and_imds_is_not_asked():
    async with town(*READY) as place:
        place.own(identity())
        assert place.issuer.at_once(ADDRESS, VAULT) is None
        first = await issue(place)
        second = place.issuer.at_once(ADDRESS, VAULT)
        assert second is not None
        assert second.token is first.token
        assert place.asked == 1


@virtual_time
async def test_a_program_of_the_host_gets_a_token_in_the_name_of_a_pod():
    async with town(*READY) as place:
        place.own(identity())
        assert (await issue(place, Key("default", "web"))).token.client_id == "client-one"
        assert answer(await refusal(place, Key("default", "nobody"))) == (503, 2)


@virtual_time
async def test_an_address_of_nobody_costs_one_lookup_and_gets_503():
    async with town(*READY) as place:
        assert answer(await refusal(place, OTHER)) == (503, 2)
        assert now() < 1


@virtual_time
async def test_a_pod_that_the_informer_has_not_seen_yet_is_looked_up():
    async with town(binding(), identity(), assigned()) as place:
        place.own(identity())
        await settle()  # the watches are open
        place.api.state.faults.stall_streams(lambda call: call.path == "/api/v1/pods")
        place.api.put(pod())
        issued = await issue(place)
        assert issued.pod.key == Key("default", "web")
        assert len(place.cluster.pods.store) == 0


@virtual_time
async def test_a_sick_api_server_delays_an_unknown_address_by_seconds_only():
    async with town(*READY) as place:
        place.api.state.faults.delay(60, times=None, match=lambda call: not call.is_watch)
        assert answer(await refusal(place, OTHER)) == (503, 2)
        assert now() < 5


@virtual_time
async def test_a_pod_without_the_label_is_refused_at_once():
    async with town(pod(label=""), binding(), identity()) as place:
        found = await refusal(place)
        assert answer(found) == (400, None)
        assert "Identity not found" in found.description
        assert (now(), place.asked) == (0, 0)


@virtual_time
async def test_where_nothing_binds_the_pod_it_waits_five_seconds_and_gets_404():
    async with town(pod(), identity()) as place:
        found = await refusal(place)
        assert answer(found) == (404, None)
        assert "no AzureIdentityBinding has the selector 'app'" in found.description
        assert now() == 5


@virtual_time
async def test_what_is_applied_within_these_seconds_releases_the_request():
    async with town(pod()) as place:
        place.own(identity())
        waiting = held(place)
        for step in (identity(), binding(), assigned(state="Created"), assigned()):
            await asyncio.sleep(1)
            assert not waiting.done()
            place.api.put(step)
        assert (await waiting).token.client_id == "client-one"
        assert now() == pytest.approx(4, abs=0.1)


@virtual_time
async def test_an_identity_of_another_namespace_in_namespaced_mode_is_404_in_time():
    objects = (pod(), binding(namespace="far"), identity(namespace="far"))
    async with town(
        *objects, assigned(identity(namespace="far"), binding(namespace="far")), namespaced=True
    ) as place:
        found = await refusal(place)
        assert answer(found) == (404, None)
        assert (place.asked, now()) == (0, 5)


@pytest.mark.parametrize("value", ["client-two", "CLIENT-ONE "])
def test_a_selector_of_another_identity_is_refused_at_once(value):
    @virtual_time
    async def scenario():
        async with town(*READY) as place:
            request = TokenRequest("x", Selector(SelectorKind.CLIENT_ID, value))
            assert answer(await refusal(place, request=request)) == (400, None)
            assert (now(), place.asked) == (0, 0)

    scenario()


@virtual_time
async def test_an_assignment_under_way_is_awaited_and_its_watch_event_releases_the_request():
    async with town(*BOUND, assigned(state="Created")) as place:
        place.own(identity())
        waiting = held(place)
        await asyncio.sleep(60)
        assert not waiting.done()
        place.api.put(assigned())
        assert (await waiting).token.client_id == "client-one"
        assert now() == pytest.approx(60, abs=0.1)


@virtual_time
async def test_after_eighty_seconds_an_assignment_is_a_503_with_its_state():
    async with town(*BOUND, assigned(state="Created")) as place:
        found = await refusal(place)
        assert answer(found) == (503, 5)
        assert "the identity one is bound, and its assignment in Azure is under way" in found.description
        assert now() == 80


@virtual_time
async def test_the_flags_of_upstream_say_how_long_that_is():
    async with town(*BOUND, assignment_wait=7.0) as place:
        assert answer(await refusal(place)) == (503, 5)
        assert now() == 7


@virtual_time
async def test_an_address_in_doubt_is_held_for_five_seconds():
    async with town(pod(terminating=True), pod("next", ""), binding(), identity(), assigned()) as place:
        assert answer(await refusal(place)) == (503, 2)
        assert (now(), place.asked) == (5, 0)


@virtual_time
async def test_an_address_in_doubt_is_served_when_the_doubt_is_gone():
    async with town(pod(terminating=True), pod("next", ""), binding(), identity(), assigned()) as place:
        place.own(identity())
        waiting = held(place)
        await asyncio.sleep(1)
        place.api.put(pod("next", "10.244.0.6"))
        assert (await waiting).pod.metadata.name == "web"
        assert now() == pytest.approx(1, abs=0.1)


@virtual_time
async def test_a_held_request_is_never_answered_for_the_next_pod_at_its_address():
    two = identity("two")
    async with town(*BOUND, two, binding("b2", "two", selector="next")) as place:
        place.own(identity(), two)
        waiting = held(place)
        await asyncio.sleep(1)
        following = pod("next", label="next")
        place.api.put(assigned(two, binding("b2", "two", selector="next"), following))
        place.api.drop(pod())
        place.api.put(following)
        await settle()
        with pytest.raises(Refusal, match="gone to another pod"):
            await waiting


class AfterTheFetch:
    """IMDS takes ten seconds for a token; meanwhile things change."""

    @staticmethod
    async def outcome(place: Town, *, drop=(), put=()) -> "asyncio.Task[Issued]":
        place.own(identity())
        place.imds.faults.add(Delay(10))
        waiting = held(place)
        await asyncio.sleep(5)
        assert place.asked == 1
        place.api.drop(*drop)
        place.api.put(*put)
        await asyncio.wait([waiting])
        return waiting


@pytest.mark.parametrize("gone", [assigned(), binding(), identity()], ids=lambda it: it["kind"])
def test_a_right_that_ends_during_the_fetch_gives_no_token(gone):
    @virtual_time
    async def scenario():
        async with town(*READY, assignment_wait=20.0) as place:
            waiting = await AfterTheFetch.outcome(place, drop=[gone])
            with pytest.raises(Refusal):
                waiting.result()

    scenario()


@virtual_time
async def test_an_address_that_moves_during_the_fetch_gives_no_token():
    async with town(*READY) as place:
        waiting = await AfterTheFetch.outcome(place, drop=[pod()], put=[pod("next")])
        with pytest.raises(Refusal, match="gone to another pod"):
            waiting.result()


@virtual_time
async def test_a_pod_of_the_same_name_that_came_during_the_fetch_gets_no_token():
    async with town(*READY) as place:
        waiting = await AfterTheFetch.outcome(place, put=[pod(uid="a-new-one")])
        with pytest.raises(Refusal, match="gone to another pod"):
            waiting.result()


@virtual_time
async def test_a_label_that_goes_during_the_fetch_gives_no_token():
    async with town(*READY) as place:
        waiting = await AfterTheFetch.outcome(place, put=[pod(label="")])
        with pytest.raises(Refusal, match="Identity not found"):
            waiting.result()


@virtual_time
async def test_a_cluster_that_falls_silent_during_the_fetch_gives_no_token():
    async with town(*READY, stale_cache_limit=4.0) as place:
        place.api.state.faults.stall_streams()
        waiting = await AfterTheFetch.outcome(place)
        with pytest.raises(Refusal, match="has not answered for too long"):
            waiting.result()


@virtual_time
async def test_an_identity_that_changes_during_the_fetch_gives_a_token_of_the_new_one():
    two = identity("two")
    async with town(*READY, two) as place:
        moved = assigned(two, binding(to="two"), name="web-default-one")
        place.own(identity(), two)
        place.imds.faults.add(Delay(10), times=1)
        waiting = held(place)
        await asyncio.sleep(5)
        place.api.put(binding(to="two"), moved)
        assert (await waiting).token.client_id == "client-two"


@virtual_time
async def test_what_has_nothing_to_do_with_the_request_does_not_disturb_the_fetch():
    async with town(*READY) as place:
        waiting = await AfterTheFetch.outcome(place, put=[pod("other", "10.244.0.9"), binding("b9", "nine")])
        assert waiting.result().token.client_id == "client-one"
        assert place.asked == 1


@virtual_time
async def test_a_service_principal_is_refused_at_once():
    principal = identity(type=1, clientPassword={"name": "s", "namespace": "default"})
    async with town(pod(), binding(), principal, assigned(principal)) as place:
        assert answer(await refusal(place)) == (403, None)
        assert (now(), place.asked) == (0, 0)


@virtual_time
async def test_an_identity_that_imds_does_not_know_yet_is_worth_another_try():
    async with town(*READY) as place:
        place.own()
        assert answer(await refusal(place)) == (503, 5)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (throttled(None), (429, 2)),
        (throttled(9), (429, 9)),
        (server_error(500), (500, 5)),
        (server_error(503), (503, 5)),
        (Json({"error": "Gone"}, status_code=410), (503, 5)),
        (Json({"error": "invalid_resource", "error_description": "AADSTS500011"}, status_code=400), (400, None)),
        (Json({"error": "unauthorized_client"}, status_code=401), (401, None)),
        (Json({}, status_code=302, headers={"Location": "http://elsewhere/"}), (503, 5)),
        (Json({"access_token": 7}), (503, 5)),
        (Json(["a list"], status_code=502), (502, 5)),
    ],
    ids=lambda it: str(it) if isinstance(it, tuple) else "",
)
def test_trouble_of_imds_stays_what_it_is(fault, expected):
    @virtual_time
    async def scenario():
        async with town(*READY) as place:
            place.imds.faults.add(fault)
            assert answer(await refusal(place)) == expected

    scenario()


@virtual_time
async def test_the_words_of_entra_reach_the_pod():
    async with town(*READY) as place:
        place.own(identity())
        place.azure.unregistered_resources.add(VAULT.resource)
        found = await refusal(place)
        assert (answer(found), found.error) == ((400, None), "invalid_resource")
        assert "AADSTS500011" in found.description


@virtual_time
async def test_a_valid_token_is_served_through_trouble_of_imds():
    async with town(*READY) as place:
        place.own(identity())
        first = await issue(place)
        place.imds.faults.add(server_error())
        await asyncio.sleep(400)
        assert (await issue(place)).token == first.token


@virtual_time
async def test_before_the_first_list_nobody_is_answered():
    async with town(*READY, synced=False) as place:
        assert answer(await refusal(place)) == (503, 5)


@pytest.mark.parametrize("silent", ["pods", "azureassignedidentities", "azureidentitybindings", "azureidentities"])
def test_what_is_known_counts_for_ten_minutes_of_silence(silent):
    def concerns(call: Call) -> bool:
        return call.path.endswith("/" + silent)

    @virtual_time
    async def scenario():
        async with town(*READY) as place:
            place.own(identity())
            place.api.state.faults.answer(503, times=None, match=concerns)
            place.api.state.faults.cut_streams(concerns)
            for _ in range(9):
                await asyncio.sleep(60)
                await issue(place)
            await asyncio.sleep(61)
            assert answer(await refusal(place)) == (503, 5)
            place.api.state.faults.clear()
            await asyncio.sleep(60)
            await issue(place)

    scenario()


@virtual_time
async def test_a_quiet_cluster_is_no_silent_one():
    async with town(*READY) as place:
        place.own(identity())
        for _ in range(10):
            await asyncio.sleep(300)
            await issue(place)


@virtual_time
async def test_one_pod_may_hold_so_many_requests_and_no_more_and_others_are_free():
    two = pod("other", "10.244.0.6", label="other")
    async with town(*BOUND, two, binding("b2", selector="other"), assigned(by=binding("b2"), of=two)) as place:
        place.own(identity())
        waiting = [held(place) for _ in range(16)]
        await settle()
        found = await refusal(place)
        assert answer(found) == (503, 5)
        assert "16 requests of this pod wait already" in found.description
        assert (await issue(place, OTHER)).token.client_id == "client-one"
        place.api.put(assigned())
        assert len({(await it).token for it in waiting}) == 1
        await issue(place)


@virtual_time
async def test_fetches_are_bounded_for_each_pod_too_but_not_what_is_in_the_cache():
    async with town(*READY) as place:
        place.own(identity())
        await issue(place)
        place.imds.faults.add(Hang())
        flood = [held(place, request=TokenRequest(f"https://{number}.test")) for number in range(17)]
        await settle()
        [refused] = [it for it in flood if it.done()]
        with pytest.raises(Refusal, match="wait already"):
            refused.result()
        assert (await issue(place)).token.client_id == "client-one"
        for task in flood:
            task.cancel()


@virtual_time
async def test_a_client_that_leaves_frees_its_place():
    async with town(*BOUND) as place:
        for _ in range(3):
            waiting = [held(place) for _ in range(16)]
            await settle()
            assert not any(it.done() for it in waiting)
            for task in waiting:
                task.cancel()
            await settle()
        assert not place.issuer._waiting


@virtual_time
async def test_at_a_stop_nobody_is_held_and_whoever_can_be_answered_is():
    async with town(*BOUND) as place:
        place.own(identity())
        waiting = held(place)
        await asyncio.sleep(1)
        place.issuer.close()
        with pytest.raises(Refusal, match="being stopped"):
            await waiting
        assert answer(await refusal(place)) == (503, 2)
        assert now() == 1
        place.api.put(assigned())
        await settle()
        assert (await issue(place)).token.client_id == "client-one"


@virtual_time
async def test_a_fetch_that_does_not_end_is_told_to_come_again_at_a_stop():
    async with town(*READY) as place:
        place.imds.faults.add(Hang())
        asking = asyncio.create_task(issue(place))
        await settle()
        place.issuer.close()
        with pytest.raises(Refusal, match="being stopped") as caught:
            await asking
        assert caught.value.status == 503
