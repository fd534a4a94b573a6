import asyncio
import ssl

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceResponseTimeoutError,
)
from azure.core.rest import AsyncHttpResponse
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.compute.models import (
    UserAssignedIdentitiesValue,
    VirtualMachineIdentity,
    VirtualMachineScaleSetIdentity,
    VirtualMachineScaleSetUpdate,
    VirtualMachineUpdate,
)
from azure.mgmt.msi.aio import ManagedServiceIdentityClient

from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm import error_response
from podidentity.emulator.azure.identity_block import IdentityBlock, decode_patch
from podidentity.emulator.azure.machines import OperationPlan, OperationSettings
from podidentity.emulator.azure.resource_ids import key
from podidentity.emulator.azure.service import Delay, Hang
from podidentity.emulator.azure.tokens import Principal

CALLER = Principal(client_id="caller", object_id="caller-object")


class Credential:
    """A token of the state's own issuer: Entra has tests of its own."""

    def __init__(self, state, names):
        self.token = state.tokens.mint(CALLER, names.management, tenant=state.tenant_id, lifetime=3600).value

    async def get_token(self, *_scopes, **_kwargs):
        return AccessToken(self.token, 4102444800)

    async def close(self):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


@pytest.fixture
async def compute(served, state, names):
    async with ComputeManagementClient(
        Credential(state, names),
        names.subscription,
        base_url=served.arm,
        connection_verify=served.ca,
        polling_interval=0.01,
        retry_total=0,
    ) as client:
        yield client


@pytest.fixture
async def raw(served, state, names):
    """A plain HTTP session with a good token, for what the SDK does not show."""
    headers = {"Authorization": f"Bearer {Credential(state, names).token}"}
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=served.ca))
    async with aiohttp.ClientSession(served.arm, headers=headers, connector=connector) as session:
        yield session


def code_of(caught):
    assert caught.value.error
    return caught.value.error.code


def identities(*add, remove=(), kind="UserAssigned"):
    users = dict.fromkeys(add, UserAssignedIdentitiesValue()) | dict.fromkeys(remove)
    return {"type": kind, "user_assigned_identities": users}


def wire_patch(identity):
    return {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}


async def begin_vm(compute, **identity):
    update = VirtualMachineUpdate(identity=VirtualMachineIdentity(**identity))
    return await compute.virtual_machines.begin_update("rg-nodes", "vm-0", update)


async def begin_scale_set(compute, **identity):
    update = VirtualMachineScaleSetUpdate(identity=VirtualMachineScaleSetIdentity(**identity))
    return await compute.virtual_machine_scale_sets.begin_update("rg-nodes", "pool", update)


@pytest.mark.parametrize("begin", [begin_vm, begin_scale_set])
async def test_the_real_client_assigns_and_removes_identities(compute, state, names, begin):
    first = await (await begin(compute, **identities(names.one, names.two))).result()
    assert set(first.identity.user_assigned_identities) == {names.one, names.two}
    assert first.identity.user_assigned_identities[names.one].client_id == state.identity(names.one).client_id

    second = await (await begin(compute, **identities(remove=[names.one.lower()]))).result()
    assert set(second.identity.user_assigned_identities) == {names.two}

    last = await (await begin(compute, type="None")).result()
    assert last.identity is None
    assert [(set(change.added), set(change.removed)) for change in state.machines.changes] == [
        ({key(names.one), key(names.two)}, set()),
        (set(), {key(names.one)}),
        (set(), {key(names.two)}),
    ]


async def test_a_resource_shows_the_new_block_and_updating_while_the_operation_runs(compute, state, names):
    state.machines.get(names.vm).plans.append(OperationPlan(seconds=None))
    await begin_vm(compute, **identities(names.one))

    shown = await compute.virtual_machines.get("rg-nodes", "vm-0")

    assert shown.provisioning_state == "Updating"
    assert list(shown.identity.user_assigned_identities) == [names.one]
    assert state.machines.get(names.vm).effective == IdentityBlock()
    assert state.machines.changes == []


async def test_the_system_assigned_identity_is_shown_with_its_principal(compute, state, names):
    state.machines.set_identity(state.machines.get(names.vm), IdentityBlock(system=True))
    both = await (await begin_vm(compute, **identities(names.one, kind="SystemAssigned, UserAssigned"))).result()
    assert both.identity.type == "SystemAssigned, UserAssigned"
    assert both.identity.principal_id == state.machines.get(names.vm).system_principal.object_id
    assert both.identity.tenant_id == state.tenant_id


async def test_path_segments_are_compared_without_case(raw, names):
    async with raw.get(names.vm.upper() + "?api-version=2024-07-01") as response:
        assert response.status == 200
        assert (await response.json())["id"] == names.vm
        assert response.headers["x-ms-ratelimit-remaining-subscription-reads"] == "11998"
        assert response.headers["x-ms-request-id"]


async def test_a_patch_answers_200_with_the_url_of_its_operation(raw, served, state, names):
    body = {"identity": wire_patch(names.one)}
    async with raw.patch(names.scale_set + "?api-version=2024-07-01", json=body) as response:
        assert response.status == 200
        assert response.headers["Retry-After"] == "0"
        url = response.headers["Azure-AsyncOperation"]
        assert url.startswith(
            f"{served.arm}/subscriptions/{names.subscription}/providers/Microsoft.Compute/locations/"
        )
    async with raw.get(url) as running:
        assert (await running.json())["status"] == "InProgress"
    document: dict[str, str] = {}
    while document.get("status") != "Succeeded":
        async with raw.get(url) as polled:
            document = await polled.json()
    assert document["startTime"] < document["endTime"]


async def test_a_patch_without_identity_changes_nothing(raw, state, names):
    async with raw.patch(names.vm + "?api-version=2024-07-01", json={"tags": {}}) as response:
        assert response.status == 200
        assert "Azure-AsyncOperation" not in response.headers
    assert state.machines.operations == {}


@pytest.mark.parametrize("body", [b"not json", b"[]"])
async def test_a_body_that_is_no_object_is_refused(raw, names, body):
    async with raw.patch(names.vm + "?api-version=2024-07-01", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "InvalidRequestContent"


async def test_an_identity_that_may_not_be_assigned_is_named_in_a_403(compute, state, names):
    state.identity(names.one).assignable = False
    with pytest.raises(HttpResponseError) as caught:
        await begin_vm(compute, **identities(names.one, names.two))
    assert (caught.value.status_code, code_of(caught)) == (403, "LinkedAuthorizationFailed")
    assert f"linked scope(s) '{names.one}' or" in caught.value.message
    assert "'caller'" in caught.value.message


async def test_all_identities_that_may_not_be_assigned_are_named_in_one_quote(compute, state, names):
    state.identity(names.one).assignable = False
    state.identity(names.two).assignable = False
    with pytest.raises(HttpResponseError, match=f"'{names.one},{names.two}'"):
        await begin_vm(compute, **identities(names.one, names.two))


async def test_an_identity_that_does_not_exist_is_named_in_a_400(compute, state, names):
    state.remove_identity(names.two)
    with pytest.raises(HttpResponseError) as caught:
        await begin_vm(compute, **identities(names.one, names.two))
    assert (caught.value.status_code, code_of(caught)) == (400, "FailedIdentityOperation")
    assert f"Resource '{names.two}' was not found" in caught.value.message


async def test_a_deleted_identity_can_be_taken_off(compute, state, names):
    state.machines.set_identity(state.machines.get(names.vm), IdentityBlock.of([names.one, names.two]))
    state.remove_identity(names.two)
    after = await (await begin_vm(compute, **identities(remove=[names.two]))).result()
    assert list(after.identity.user_assigned_identities) == [names.one]


async def test_a_second_write_while_one_runs_is_a_conflict(compute, state, names):
    state.machines.get(names.vm).plans.append(OperationPlan(seconds=None))
    await begin_vm(compute, **identities(names.one))
    with pytest.raises(ResourceExistsError) as caught:
        await begin_vm(compute, **identities(names.two))
    assert (caught.value.status_code, code_of(caught)) == (409, "OperationNotAllowed")


async def test_a_second_write_can_preempt_the_first(compute, state, names):
    state.machines.settings = OperationSettings(vm_seconds=(0.01, 0.01), overlap="preempt")
    state.machines.get(names.vm).plans.append(OperationPlan(seconds=None))
    first = await begin_vm(compute, **identities(names.one))
    second = await (await begin_vm(compute, **identities(names.two))).result()
    with pytest.raises(HttpResponseError, match="OperationPreempted"):
        await first.result()
    assert set(second.identity.user_assigned_identities) == {names.one, names.two}


async def test_a_machine_being_deleted_takes_no_writes(compute, state, names):
    state.machines.get(names.vm).provisioning_state = "Deleting"
    with pytest.raises(ResourceExistsError, match="marked for deletion"):
        await begin_vm(compute, **identities(names.one))


@pytest.mark.parametrize(
    ("leaves", "shown", "effective"), [("nothing", False, False), ("shown", True, False), ("done", True, True)]
)
async def test_a_failed_operation_leaves_what_was_planned(compute, state, names, *, leaves, shown, effective):
    machine = state.machines.get(names.vm)
    error = arm_errors.throttled_identity_operation(names.vm)
    machine.plans.append(OperationPlan(seconds=0.01, error=error, leaves=leaves))

    with pytest.raises(HttpResponseError, match="Retry after 20 seconds") as caught:
        await (await begin_vm(compute, **identities(names.one))).result()

    assert code_of(caught) == "FailedIdentityOperation"
    assert bool(machine.shown.users) is shown
    assert bool(machine.effective.users) is effective
    assert machine.provisioning_state == "Failed"


async def test_an_identity_can_take_effect_after_its_operation_succeeded(compute, state, names):
    state.machines.settings = OperationSettings(vm_seconds=(0.0, 0.0), propagation=(0.05, 0.05))
    before = asyncio.get_running_loop().time()
    await begin_vm(compute, **identities(names.one))
    await asyncio.sleep(0.06)
    assert state.machines.changes[0].at - before >= 0.05
    assert key(names.one) in state.machines.get(names.vm).effective.users


async def test_a_late_timer_does_not_bring_an_older_block_back(state, names):
    machine = state.machines.get(names.vm)
    state.machines.settings = OperationSettings(vm_seconds=(0.0, 0.0), propagation=(0.05, 0.05))
    state.machines.update_identity(machine, decode_patch(names.vm, wire_patch(names.one)))
    await asyncio.sleep(0.01)
    state.machines.set_identity(machine, IdentityBlock.of([names.two]))
    await asyncio.sleep(0.06)
    assert machine.effective == IdentityBlock.of([names.two])
    assert len(state.machines.changes) == 1


async def test_what_does_not_exist_is_a_404_that_says_what(compute, state, names):
    with pytest.raises(ResourceNotFoundError) as no_vm:
        await compute.virtual_machines.get("rg-nodes", "gone")
    with pytest.raises(ResourceNotFoundError) as no_group:
        await compute.virtual_machines.get("rg-gone", "vm-0")
    state.machines.remove(names.vm)
    with pytest.raises(ResourceNotFoundError):
        await begin_vm(compute, **identities(names.one))
    assert code_of(no_vm) == "ResourceNotFound"
    assert code_of(no_group) == "ResourceGroupNotFound"


@pytest.mark.parametrize(
    "path", ["/subscriptions/s/providers/Microsoft.Compute/locations/x/operations/y", "/nothing"]
)
async def test_other_paths_are_a_404(raw, path):
    async with raw.get(path + "?api-version=1") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"]


async def test_other_verbs_are_refused(raw, names):
    async with raw.delete(names.vm + "?api-version=1") as response:
        assert response.status == 405


async def test_a_request_without_api_version_is_refused(raw, names):
    async with raw.get(names.vm) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "MissingApiVersionParameter"


@pytest.mark.parametrize(
    ("audience", "ahead", "code"),
    [
        ("https://vault.azure.net", 0, "InvalidAuthenticationTokenAudience"),
        ("https://management.core.windows.net/", 3601, "ExpiredAuthenticationToken"),
        ("https://management.core.windows.net/", 0, None),
    ],
)
async def test_only_a_valid_token_for_management_is_taken(raw, state, names, clock, *, audience, ahead, code):
    token = state.tokens.mint(CALLER, audience, tenant=state.tenant_id, lifetime=3600)
    clock.ahead = ahead
    headers = {"Authorization": f"Bearer {token.value}"}
    async with raw.get(names.vm + "?api-version=1", headers=headers) as response:
        body = await response.json()
        assert response.status == (401 if code else 200)
        assert body.get("error", {}).get("code") == code
        assert ("WWW-Authenticate" in response.headers) is bool(code)


@pytest.mark.parametrize(
    ("header", "code"), [("Basic eDp5", "AuthenticationFailed"), ("Bearer forged", "InvalidAuthenticationToken")]
)
async def test_a_request_without_a_real_token_gets_a_challenge(raw, names, header, code):
    async with raw.get(names.vm + "?api-version=1", headers={"Authorization": header}) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == code
        assert response.headers["WWW-Authenticate"].startswith('Bearer authorization_uri="https://')


async def test_the_real_client_sees_an_authentication_error_when_its_token_expired(compute, clock):
    clock.ahead = 7200
    with pytest.raises(ClientAuthenticationError, match="ExpiredAuthenticationToken"):
        await compute.virtual_machines.get("rg-nodes", "vm-0")


async def test_a_fault_hits_the_chosen_resource_so_many_times(compute, arm, names):
    arm.faults.add(error_response(arm_errors.throttled(7)), method="PATCH", path=names.scale_set, times=1)

    await begin_vm(compute, **identities(names.one))
    with pytest.raises(HttpResponseError) as caught:
        await begin_scale_set(compute, **identities(names.one))
    await begin_scale_set(compute, **identities(names.one))

    assert caught.value.status_code == 429
    assert isinstance(caught.value.response, AsyncHttpResponse)
    assert caught.value.response.headers["Retry-After"] == "7"


async def test_faults_can_be_drawn_for_each_request_and_cleared(compute, arm):
    arm.faults.add_source(lambda request: error_response(arm_errors.server_error(503)) if request.path else None)
    with pytest.raises(HttpResponseError):
        await compute.virtual_machines.get("rg-nodes", "vm-0")
    arm.faults.clear()
    assert await compute.virtual_machines.get("rg-nodes", "vm-0")


async def test_a_request_can_hang_until_its_caller_leaves(compute, arm):
    arm.faults.add(Hang(), times=1)
    with pytest.raises(ServiceResponseTimeoutError):
        await compute.virtual_machines.get("rg-nodes", "vm-0", read_timeout=0.05)
    assert await compute.virtual_machines.get("rg-nodes", "vm-0")
    assert [request.status for request in arm.log] == [None, 200]


async def test_requests_take_as_long_as_they_are_told_to(compute, arm):
    loop = asyncio.get_running_loop()
    arm.latency = (0.05, 0.06)
    arm.faults.add(Delay(0.05))
    before = loop.time()
    await compute.virtual_machines.get("rg-nodes", "vm-0")
    assert loop.time() - before >= 0.1


async def test_the_log_holds_every_request_as_it_came(compute, arm, names):
    await (await begin_vm(compute, **identities(names.one))).result()
    patch = arm.log[0]
    assert (patch.method, patch.raw_path, patch.client, patch.status) == ("PATCH", names.vm, "127.0.0.1", 200)
    assert patch.parameter("api-version")
    assert b'"userAssignedIdentities"' in patch.body
    assert [request.method for request in arm.log[1:]] == ["GET"] * (len(arm.log) - 1)


async def test_the_real_client_reads_user_assigned_identities(served, state, names):
    async with ManagedServiceIdentityClient(
        Credential(state, names), names.subscription, base_url=served.arm, connection_verify=served.ca
    ) as msi:
        found = await msi.user_assigned_identities.get("rg-ids", "one")
        with pytest.raises(ResourceNotFoundError) as missing:
            await msi.user_assigned_identities.get("rg-ids", "gone")
    identity = state.identity(names.one)
    assert (found.client_id, found.principal_id, found.tenant_id) == (
        identity.client_id,
        identity.principal_id,
        state.tenant_id,
    )
    assert code_of(missing) == "ResourceNotFound"
