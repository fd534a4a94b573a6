import asyncio
import http.client

import aiohttp
import msal
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from azure.identity.aio import ManagedIdentityCredential

from podidentity.emulator.azure import imds as imds_module
from podidentity.emulator.azure.identity_block import IdentityBlock
from podidentity.emulator.azure.imds import Imds, ImdsSettings
from podidentity.emulator.azure.service import Delay

TOKEN = "/metadata/identity/oauth2/token"
VAULT = "https://vault.azure.net"
QUERY = {"api-version": "2018-02-01", "resource": VAULT}


@pytest.fixture
async def raw(served):
    async with aiohttp.ClientSession(served.imds, headers={"Metadata": "true"}) as session:
        yield session


@pytest.fixture
def give(state, names):
    """Give the VM identities, at once."""

    def give(*users, system=False):
        machine = state.machines.get(names.vm)
        state.machines.set_identity(machine, IdentityBlock.of(users, system=system))
        return machine

    return give


@pytest.fixture
def pod_identity_host(served, monkeypatch):
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", served.imds)


async def ask(raw, **query):
    async with raw.get(TOKEN, params=QUERY | query) as response:
        return response.status, await response.json()


async def test_azure_identity_gets_a_token_of_each_identity_by_each_selector(pod_identity_host, give, state, names):
    give(names.one, names.two)
    two = state.identity(names.two)
    selectors = [
        {"client_id": two.client_id},
        {"identity_config": {"object_id": two.principal_id}},
        {"identity_config": {"mi_res_id": names.two.upper()}},
    ]
    for selector in selectors:
        async with ManagedIdentityCredential(**selector) as credential:
            token = await credential.get_token(f"{VAULT}/.default")
        claims = state.tokens.verify(token.token)
        assert (claims["appid"], claims["xms_mirid"], claims["aud"]) == (two.client_id, names.two, VAULT)


async def test_msal_gets_a_token(pod_identity_host, give, state, names):
    give(names.one)
    client = msal.ManagedIdentityClient(msal.SystemAssignedManagedIdentity(), http_client=requests.Session())
    result = await asyncio.to_thread(client.acquire_token_for_client, resource=VAULT)
    client._http_client.close()
    assert state.tokens.verify(result["access_token"])["appid"] == state.identity(names.one).client_id


async def test_azure_identity_reports_what_imds_says_of_an_unknown_identity(pod_identity_host, give, names):
    give(names.one)
    async with ManagedIdentityCredential(client_id="unknown") as credential:
        with pytest.raises((CredentialUnavailableError, ClientAuthenticationError), match="Identity not found"):
            await credential.get_token(VAULT)


async def test_a_token_answer_has_only_strings_in_the_documented_order(raw, give, state, names):
    give(names.one)
    status, body = await ask(raw)
    assert status == 200
    assert list(body)[:7] == [
        "access_token",
        "refresh_token",
        "expires_in",
        "expires_on",
        "not_before",
        "resource",
        "token_type",
    ]
    assert all(isinstance(value, str) for value in body.values())
    assert body["resource"] == VAULT
    assert body["client_id"] == state.identity(names.one).client_id
    assert int(body["expires_on"]) - int(body["not_before"]) == 86400


async def test_without_a_selector_the_system_assigned_identity_comes_first(raw, give, state, names):
    machine = give(names.one, names.two, system=True)
    _, body = await ask(raw)
    claims = state.tokens.verify(body["access_token"])
    assert claims["oid"] == machine.system_principal.object_id
    assert claims["xms_mirid"] == names.vm


async def test_without_a_selector_several_user_assigned_identities_are_refused(raw, give, names):
    give(names.one, names.two)
    status, body = await ask(raw)
    assert (status, body["error"]) == (400, "invalid_request")
    assert body["error_description"].startswith("Multiple user assigned identities exist, please specify")


@pytest.mark.parametrize("selector", ["msi_res_id", "mi_res_id"])
async def test_both_names_of_the_resource_id_are_taken(raw, give, names, selector):
    give(names.one, names.two)
    assert (await ask(raw, **{selector: names.one}))[0] == 200


async def test_two_selectors_are_refused(raw, give, state, names):
    give(names.one)
    status, _ = await ask(raw, client_id=state.identity(names.one).client_id, msi_res_id=names.one)
    assert status == 400


@pytest.mark.parametrize("users", [False, True])
async def test_an_identity_that_the_vm_has_not_is_not_found(raw, give, state, names, users):
    give(*([names.one] if users else []))
    status, body = await ask(raw, client_id=state.identity(names.two).client_id)
    assert (status, body) == (400, {"error": "invalid_request", "error_description": "Identity not found"})


async def test_a_vm_without_identity_has_none(raw):
    assert (await ask(raw))[1]["error_description"] == "Identity not found"


async def test_a_deleted_identity_is_not_found(raw, give, state, names):
    give(names.one)
    state.remove_identity(names.one)
    assert (await ask(raw))[1]["error_description"] == "Identity not found"


async def test_an_instance_of_a_scale_set_has_its_identities(state, names, call):
    state.machines.set_identity(state.machines.get(names.scale_set), IdentityBlock.of([names.one]))
    imds = Imds(state, lambda _address: f"{names.scale_set}/virtualMachines/3")
    status, _, body = await call(imds, "GET", f"{TOKEN}?api-version=2018-02-01&resource={VAULT}")
    assert status == 200
    assert state.identity(names.one).client_id.encode() in body


@pytest.mark.parametrize(
    ("headers", "description"),
    [
        ({}, "Required metadata header not specified"),
        ({"Metadata": "yes"}, "Required metadata header not specified"),
        ({"Metadata": "true", "X-Forwarded-For": "10.0.0.1"}, "X-Forwarded-For"),
    ],
)
async def test_a_request_without_the_header_or_a_forwarded_one_is_refused(served, give, names, headers, description):
    give(names.one)
    async with (
        aiohttp.ClientSession(served.imds) as session,
        session.get(TOKEN, params=QUERY, headers=headers) as response,
    ):
        assert response.status == 400
        assert description in (await response.json())["error_description"]
        assert response.headers["Server"].startswith("IMDS/")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("api-version=2018-02-01", "Required query variable 'resource' is missing"),
        ("api-version=2018-02-01&resource=a&resource=b", "duplicate query parameter"),
        ("resource=https://vault.azure.net", "api-version was not specified"),
        ("api-version=1999-01-01&resource=https://vault.azure.net", "api-version is invalid"),
        ("api-version=2018-02-01&resource=nonsense", "AADSTS500011"),
    ],
)
async def test_a_wrong_query_is_refused(raw, give, names, query, words):
    give(names.one)
    async with raw.get(f"{TOKEN}?{query}") as response:
        assert response.status == 400
        assert words in await response.text()


async def test_a_token_is_kept_for_an_hour_unless_the_cache_is_bypassed(raw, give, names, clock):
    give(names.one)
    first = (await ask(raw))[1]
    clock.ahead = 1800
    second = (await ask(raw))[1]
    bypassed = (await ask(raw, bypass_cache="true"))[1]
    clock.ahead = 1800 + 3601
    later = (await ask(raw))[1]
    assert second["access_token"] == first["access_token"]
    assert int(second["expires_in"]) < int(first["expires_in"]) - 1790
    assert len({body["access_token"] for body in (first, bypassed, later)}) == 3


async def test_more_than_twenty_requests_a_second_are_throttled(raw, give, names):
    give(names.one)
    statuses = [(await ask(raw))[0] for _ in range(21)]
    assert statuses == [200] * 20 + [429]


async def test_more_than_five_requests_at_a_time_are_throttled(raw, give, imds, names):
    give(names.one)
    imds.latency = (0.1, 0.1)
    answers = await asyncio.gather(*(ask(raw) for _ in range(7)))
    assert sorted(status for status, _ in answers) == [200] * 5 + [429] * 2
    assert (await ask(raw))[0] == 200


async def test_limits_can_be_switched_off_and_told_to_name_a_delay(raw, give, imds, names):
    give(names.one)
    imds.settings = ImdsSettings(per_second=None, concurrent=0, retry_after=3)
    async with raw.get(TOKEN, params=QUERY) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")


async def test_other_paths_do_not_count_towards_the_limit(raw):
    for _ in range(25):
        async with raw.get("/metadata/versions") as response:
            assert response.status == 200


async def test_info_names_the_tenant(raw, state):
    async with raw.get("/metadata/identity/info?api-version=2018-02-01") as response:
        assert await response.json() == {"tenantId": state.tenant_id}


async def test_the_vms_own_credential_can_be_had_and_shows_in_the_log(raw, imds):
    async with raw.get("/metadata/identity/getplatformmetadata?api-version=2021-02-01") as platform:
        assert (await platform.json())["clientId"]
    async with raw.post("/metadata/identity/issuecredential?api-version=2021-02-01") as credential:
        assert (await credential.json())["certificate"]
    assert [request.status for request in imds.log] == [200, 200]


async def test_the_instance_document_tells_of_the_vm(raw, names):
    async with raw.get("/metadata/instance?api-version=2021-02-01") as response:
        compute = (await response.json())["compute"]
    assert (compute["name"], compute["resourceId"]) == ("vm-0", names.vm)
    async with raw.get("/metadata/instance/compute/location?api-version=2021-02-01&format=text") as response:
        assert await response.text() == "westeurope"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metadata/identity", 404),
        ("GET", "/metadata/identity/oauth2/tokens", 404),
        ("GET", "/metadata/instance/compute/name/x?api-version=2021-02-01", 404),
        ("GET", "/latest/meta-data", 404),
        ("POST", TOKEN, 405),
        ("POST", "/metadata/versions", 404),
        ("GET", "/metadata/identity/issuecredential", 405),
    ],
)
async def test_other_paths_and_verbs_are_refused_in_json(raw, method, path, status):
    async with raw.request(method, path) as response:
        assert response.status == status
        assert (await response.json())["error"]


async def test_an_address_without_a_vm_gets_nothing(state, call):
    imds = Imds(state, lambda _address: None)
    status, _, body = await call(imds, "GET", f"{TOKEN}?api-version=2018-02-01&resource={VAULT}")
    assert status == 404
    assert b"no VM" in body


async def test_the_log_holds_the_path_as_it_was_on_the_wire(served, imds, give, names):
    give(names.one)
    raw_path = "//metadata/identity%2Foauth2/../oauth2/token"

    def fetch():
        connection = http.client.HTTPConnection(served.imds.removeprefix("http://"))
        connection.putrequest("GET", f"{raw_path}?api-version=2018-02-01&resource={VAULT}")
        connection.putheader("metadata", "true")
        connection.endheaders()
        with connection.getresponse() as response:
            status = response.status
        connection.close()
        return status

    assert await asyncio.to_thread(fetch) == 200
    assert imds.log[0].raw_path == raw_path
    assert imds.log[0].header("metadata") == "true"
    assert imds.log[0].query == (("api-version", "2018-02-01"), ("resource", VAULT))


async def test_faults_of_imds_reach_its_caller(raw, imds, give, names):
    give(names.one)
    for fault in (imds_module.garbage(), imds_module.server_error(503), imds_module.throttled(2), Delay(0.01)):
        imds.faults.add(fault, path="*/token", times=1)
    seen = []
    for _ in range(4):
        async with raw.get(TOKEN, params=QUERY) as response:
            seen.append((response.status, response.content_type))
    assert seen == [
        (200, "text/html"),
        (503, "application/json"),
        (429, "application/json"),
        (200, "application/json"),
    ]
