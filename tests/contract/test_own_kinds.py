"""The project's own CRDs, as they stand in manifests/crds, and the objects that people have."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.client import MERGE_PATCH, Client
from tests.contract.conftest import until_status

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANIFESTS = Path(__file__).parents[2] / "manifests"
GROUP = "/apis/aadpodidentity.k8s.io/v1"
RESOURCE_ID = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n"


@pytest.fixture
async def kinds(api: Client, namespace: str) -> str:
    for file in sorted((MANIFESTS / "crds").glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        assert (await api.post(CRDS, definition)).status in (201, 409)
        await until_status(api, f"{GROUP}/{definition['spec']['names']['plural']}", 200)
    return f"{GROUP}/namespaces/{namespace}"


def thing(kind: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec, **more}


async def test_a_definition_in_a_protected_group_needs_the_approval_annotation(api: Client):
    definition = yaml.safe_load((MANIFESTS / "crds/azureidentities.yaml").read_text())
    definition["metadata"] = {"name": "unapproveds.aadpodidentity.k8s.io"}
    definition["spec"]["names"] = {"kind": "Unapproved", "plural": "unapproveds"}
    answer = await api.post(CRDS, definition)
    assert (answer.status, answer.body["details"]["causes"][0]["reason"]) == (422, "FieldValueRequired")
    assert "protected groups must have approval annotation" in answer.body["message"]


@pytest.mark.parametrize(
    "spec",
    [
        {"type": 0, "resourceID": RESOURCE_ID, "clientID": "c"},
        {"type": None, "resourceID": RESOURCE_ID, "auxiliaryTenantIDs": None, "replicas": None},
        {"Type": 0, "ResourceID": RESOURCE_ID, "ClientID": "c"},
        {"clientPassword": {}, "metadata": {}, "resourceID": RESOURCE_ID},
        {"type": 1, "clientID": "c", "tenantID": "t", "clientPassword": {"name": "n", "namespace": "s"}},
    ],
    ids=["plain", "nulls", "fields of before v1.6.0", "empty objects of Go", "service principal"],
)
async def test_every_identity_that_upstream_took_is_accepted_and_kept_whole(api: Client, kinds: str, spec):
    answer = await api.post(f"{kinds}/azureidentities", thing("AzureIdentity", spec))
    assert answer.status == 201
    kept = answer.body["spec"]
    assert {name: kept.get(name) for name in spec} == spec


async def test_an_assigned_identity_keeps_the_whole_objects_that_mic_embeds(api: Client, kinds: str):
    identity = {"metadata": {"name": "i", "uid": "u", "managedFields": [{"any": 1}]}, "spec": {"ClientID": "c"}}
    spec = {
        "azureIdentityRef": identity,
        "azureBindingRef": {"spec": {"selector": "s"}, "status": {"metadata": {}}},
        "pod": "p",
        "podNamespace": "n",
        "nodename": "node",
        "metadata": {},
    }
    status = {"availableReplicas": 1, "metadata": {}, "status": "Created"}
    answer = await api.post(f"{kinds}/azureassignedidentities", thing("AzureAssignedIdentity", spec, status=status))
    assert (answer.status, answer.body["spec"], answer.body["status"]) == (201, spec, status)


async def test_the_state_of_an_assigned_identity_is_patched_on_the_object_itself(api: Client, kinds: str):
    path = f"{kinds}/azureassignedidentities"
    await api.post(path, thing("AzureAssignedIdentity", {"pod": "p"}, status={"status": "Created"}))
    answer = await api.patch(f"{path}/x", {"status": {"status": "Assigned"}}, MERGE_PATCH)
    assert answer.body["status"]["status"] == "Assigned"
