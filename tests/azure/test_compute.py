import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from podidentity.api.ids import target_of_provider_id
from podidentity.azure import compute as module
from podidentity.azure.clouds import Cloud
from podidentity.azure.compute import Compute, IdentitySet, identity_block, shared_transport
from podidentity.azure.config import AzureConfig
from podidentity.azure.credentials import ServicePrincipalCredential
from podidentity.azure.errors import ArmError, ArmUnreachable, CredentialError, TargetGone
from podidentity.emulator.azure import arm_errors
from podidentity.emulator.azure.arm import error_response
from podidentity.emulator.azure.identity_block import IdentityBlock, apply_patch, decode_patch
from podidentity.emulator.azure.machines import OperationPlan
from podidentity.emulator.azure.service import Hang

NODES = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/RG-Nodes/providers/Microsoft.Compute"
IDS = "/subscriptions/11111111-2222-4333-8444-555555555555/resourcegroups/rg-ids/providers"
VM = target_of_provider_id(f"azure://{NODES}/virtualMachines/vm-0")
SCALE_SET = target_of_provider_id(f"azure://{NODES}/virtualMachineScaleSets/pool/virtualMachines/0")
ONE, TWO, THREE = (f"{IDS}/microsoft.managedidentity/userassignedidentities/{it}" for it in ("one", "two", "three"))
TARGETS = pytest.mark.parametrize("target", [VM, SCALE_SET], ids=["vm", "scale set"])
OPERATIONS = "*/operations/*"


@pytest.fixture
async def compute(tenant):
    tenant.state.add_service_principal("controller", secret="s3cr3t")
    async with open_compute(tenant, tenant.cloud) as compute:
        yield compute


class open_compute:  # noqa: N801 - reads as a function
    def __init__(self, tenant, cloud, secret="s3cr3t"):
        config = AzureConfig(
            cloud=cloud, tenant_id=tenant.state.tenant_id, client_id="controller", client_secret=secret
        )
        self.credential = ServicePrincipalCredential(config, clock=time.time)
        self.compute = Compute(cloud, self.credential, shared_transport())

    async def __aenter__(self):
        return self.compute

    async def __aexit__(self, *_):
        await self.compute.close()
        await self.credential.close()


@TARGETS
async def test_a_machine_without_identity_has_an_empty_set(target, compute):
    assert await compute.read(target) == IdentitySet(kind="None", client_ids={})


@TARGETS
async def test_identities_come_and_go(target, compute, tenant):
    one, two, _ = tenant.identities
    now = await compute.read(target)
    await compute.update(target, now, add=[ONE, TWO], remove=[])
    now = await compute.read(target)
    assert now == IdentitySet(kind="UserAssigned", client_ids={ONE: one.client_id, TWO: two.client_id})
    await compute.update(target, now, add=[], remove=[ONE])
    now = await compute.read(target)
    assert now.user_assigned == {TWO}
    await compute.update(target, now, add=[], remove=[TWO])
    assert await compute.read(target) == IdentitySet(kind="None", client_ids={})


@TARGETS
async def test_an_update_is_over_when_azure_has_done_it(target, compute, tenant):
    await compute.update(target, await compute.read(target), add=[ONE], remove=[])
    machine = tenant.machine(target.resource_id)
    assert list(machine.effective.users) == [ONE]


async def test_the_system_assigned_identity_is_never_lost(compute, tenant):
    tenant.state.machines.set_identity(tenant.vm, IdentityBlock.of(system=True))
    now = await compute.read(VM)
    assert now.kind == "SystemAssigned"
    await compute.update(VM, now, add=[ONE], remove=[])
    assert tenant.vm.effective.type == "SystemAssigned, UserAssigned"
    await compute.update(VM, await compute.read(VM), add=[], remove=[ONE])
    assert tenant.vm.effective.type == "SystemAssigned"


async def test_only_the_identity_block_is_sent(compute, tenant):
    await compute.update(VM, await compute.read(VM), add=[ONE], remove=[])
    (patch,) = tenant.calls("PATCH")
    assert json.loads(patch.body) == {"identity": {"type": "UserAssigned", "userAssignedIdentities": {ONE: {}}}}
    assert patch.parameter("api-version") == "2022-03-01"
    assert patch.header("user-agent").startswith("podidentity/")


async def test_an_identity_that_azure_has_lost_has_no_client_id(compute, tenant):
    tenant.state.machines.set_identity(tenant.vm, IdentityBlock.of([ONE]))
    tenant.state.remove_identity(ONE)
    assert (await compute.read(VM)).client_ids == {ONE: ""}


async def test_a_machine_on_its_way_out_is_said_so(compute, tenant):
    tenant.vm.provisioning_state = "Deleting"
    assert (await compute.read(VM)).deleting
    with pytest.raises(ArmError, match="marked for deletion") as raised:
        await compute.update(VM, IdentitySet(kind="None", client_ids={}), add=[ONE], remove=[])
    assert raised.value.status == 409


@TARGETS
async def test_a_machine_that_is_gone_is_target_gone(target, compute, tenant):
    tenant.state.machines.remove(target.resource_id)
    with pytest.raises(TargetGone, match="rg-nodes/") as raised:
        await compute.read(target)
    assert raised.value.code == "ResourceNotFound"


@pytest.mark.parametrize(
    "answer",
    [
        error_response(arm_errors.ArmError(404, "SubscriptionNotFound", "The subscription could not be found.")),
        Response("<html>not here", status_code=404),
    ],
)
async def test_a_404_that_is_not_about_the_machine_is_no_target_gone(answer, compute, tenant):
    tenant.arm.faults.add(answer)
    with pytest.raises(ArmError) as raised:
        await compute.read(VM)
    assert not isinstance(raised.value, TargetGone)


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_a_429_comes_back_at_once_with_its_retry_after(method, compute, tenant):
    now = await compute.read(VM)
    tenant.arm.log.clear()
    tenant.arm.faults.add(error_response(arm_errors.throttled(17)), method=method)
    started = time.monotonic()
    with pytest.raises(ArmError) as raised:
        await (compute.read(VM) if method == "GET" else compute.update(VM, now, add=[ONE], remove=[]))
    assert (raised.value.status, raised.value.retry_after) == (429, 17.0)
    assert len(tenant.arm.log) == 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [400, 403, 409, 500, 503])
async def test_a_refusal_keeps_status_code_and_message(status, compute, tenant):
    tenant.arm.faults.add(error_response(arm_errors.ArmError(status, "SomeCode", "some words")))
    with pytest.raises(ArmError, match="SomeCode: vm rg-nodes/vm-0: some words") as raised:
        await compute.read(VM)
    assert (raised.value.status, raised.value.code) == (status, "SomeCode")


async def test_an_answer_that_is_no_json_is_an_arm_error(compute, tenant):
    tenant.arm.faults.add(Response("<html>", status_code=502))
    with pytest.raises(ArmError) as raised:
        await compute.read(VM)
    assert raised.value.status == 502


@TARGETS
async def test_a_failed_operation_is_an_arm_error_with_its_code_and_no_status(target, compute, tenant):
    refusal = arm_errors.failed_identity_operation(target.resource_id, f"Resource '{ONE}' was not found.")
    tenant.machine(target.resource_id).plans.append(OperationPlan(seconds=0.02, error=refusal))
    with pytest.raises(ArmError, match=ONE) as raised:
        await compute.update(target, await compute.read(target), add=[ONE], remove=[])
    assert (raised.value.status, raised.value.code) == (0, "FailedIdentityOperation")
    assert ONE in raised.value.message


async def test_an_unassignable_identity_is_named_in_the_error(compute, tenant):
    tenant.identities[0].assignable = False
    with pytest.raises(ArmError, match=ONE) as raised:
        await compute.update(VM, await compute.read(VM), add=[ONE, TWO], remove=[])
    assert (raised.value.status, raised.value.code) == (403, "LinkedAuthorizationFailed")


async def test_an_operation_is_polled_promptly_although_arm_asks_for_ten_seconds(compute, tenant):
    assert tenant.arm.settings.retry_after == 10
    tenant.vm.plans.append(OperationPlan(seconds=0.4))
    now = await compute.read(VM)
    started = time.monotonic()
    await compute.update(VM, now, add=[ONE], remove=[])
    assert 0.4 <= time.monotonic() - started < 3


async def test_the_resource_is_not_read_again_at_the_end(compute, tenant):
    now = await compute.read(VM)
    tenant.arm.log.clear()
    await compute.update(VM, now, add=[ONE], remove=[])
    assert [request.method for request in tenant.arm.log if "/operations/" not in request.path] == ["PATCH"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_fault_while_polling_does_not_end_the_update(status, compute, tenant):
    tenant.arm.faults.add(Response("{}", status_code=status), path=OPERATIONS, times=1)
    await compute.update(VM, await compute.read(VM), add=[ONE], remove=[])
    assert list(tenant.vm.effective.users) == [ONE]


async def test_a_wait_that_arm_asks_for_with_a_429_is_kept(compute, tenant):
    tenant.arm.faults.add(error_response(arm_errors.throttled(1)), path=OPERATIONS, times=1)
    now = await compute.read(VM)
    started = time.monotonic()
    await compute.update(VM, now, add=[ONE], remove=[])
    assert time.monotonic() - started >= 1


async def test_a_refusal_while_polling_ends_the_update(compute, tenant):
    refusal = arm_errors.ArmError(403, "AuthorizationFailed", "no right to read operations")
    tenant.arm.faults.add(error_response(refusal), path=OPERATIONS)
    with pytest.raises(ArmError, match="AuthorizationFailed") as raised:
        await compute.update(VM, await compute.read(VM), add=[ONE], remove=[])
    assert raised.value.status == 403


@pytest.mark.parametrize("header", ["Azure-AsyncOperation", "Location"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:443", "x127.0.0.1", "evil@127.0.0.1"])
async def test_an_operation_on_another_host_is_never_followed(header, host, compute, tenant):
    document = json.dumps({"id": VM.resource_id, "location": "x", "properties": {"provisioningState": "Updating"}})
    where = {header: f"https://{host}/subscriptions/s/providers/Microsoft.Compute/locations/x/operations/1"}
    tenant.arm.faults.add(Response(document, headers=where, media_type="application/json"), method="PATCH", times=1)
    with pytest.raises(ArmError, match="UnexpectedHost"):
        await compute.update(VM, await compute.read(VM), add=[ONE], remove=[])


async def test_an_operation_in_the_clear_is_never_followed(compute, tenant):
    where = {"Azure-AsyncOperation": tenant.cloud.resource_manager.replace("https", "http") + "/operations/1"}
    tenant.arm.faults.add(Response("{}", headers=where, media_type="application/json"), method="PATCH")
    with pytest.raises(ArmError, match="UnexpectedHost"):
        await compute.update(VM, await compute.read(VM), add=[ONE], remove=[])


async def test_a_silent_arm_ends_by_a_timeout(compute, tenant, monkeypatch):
    await compute.read(VM)
    monkeypatch.setattr(module, "_READ_SECONDS", 0.1)
    tenant.arm.faults.add(Hang())
    with pytest.raises(ArmUnreachable, match="no answer in time"):
        await compute.read(VM)


async def test_an_operation_that_never_ends_is_given_up(compute, tenant, monkeypatch):
    now = await compute.read(VM)
    monkeypatch.setattr(module, "_OPERATION_SECONDS", 0.3)
    tenant.vm.plans.append(OperationPlan(seconds=None))
    with pytest.raises(ArmUnreachable, match="no answer in time"):
        await compute.update(VM, now, add=[ONE], remove=[])


async def test_an_arm_that_is_not_there_is_unreachable(tenant):
    tenant.state.add_service_principal("controller", secret="s3cr3t")
    nowhere = Cloud(
        name="x",
        resource_manager="https://127.0.0.1:1",
        active_directory=tenant.cloud.active_directory,
        audience=tenant.cloud.audience,
    )
    async with open_compute(tenant, nowhere) as compute:
        with pytest.raises(ArmUnreachable, match=r"vm rg-nodes/vm-0"):
            await compute.read(VM)


async def test_a_refused_credential_is_no_fault_of_arm(tenant):
    tenant.state.add_service_principal("controller", secret="s3cr3t")
    async with open_compute(tenant, tenant.cloud, secret="wrong") as compute:
        with pytest.raises(CredentialError, match="AADSTS7000215"):
            await compute.read(VM)
    assert tenant.arm.log == []


async def test_an_update_that_is_cancelled_ends_at_once(compute, tenant):
    polled = asyncio.Event()
    tenant.arm.faults.add_source(lambda request: polled.set() if "/operations/" in request.path else None)
    tenant.vm.plans.append(OperationPlan(seconds=None))
    task = asyncio.create_task(compute.update(VM, await compute.read(VM), add=[ONE], remove=[]))
    await polled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


identities = st.frozensets(st.sampled_from([ONE, TWO, THREE, THREE + "x"]))


@given(present=identities, added=identities, removed=identities, system=st.booleans(), upper=st.booleans())
def test_a_block_does_to_a_machine_what_was_asked(present, added, removed, system, upper):
    """The stand-in's own reading of a PATCH is the judge; spelling never matters, and add wins."""
    spelt = [it.upper() if upper else it for it in sorted(added)]
    before = IdentityBlock.of(present, system=system)
    now = IdentitySet(kind=before.type, client_ids=dict.fromkeys(present, "c"))
    block = identity_block(now, add=spelt, remove=removed)
    after = apply_patch(VM.resource_id, before, decode_patch(VM.resource_id, block))
    assert set(after.users) == (present | added) - (removed - added)
    assert after.system is system
