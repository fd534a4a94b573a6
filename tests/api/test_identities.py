import contextlib
import json
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity.api.identities import (
    AssignedState,
    IdentityType,
    read_assigned_identity,
    read_binding,
    read_exception,
    read_identity,
)
from podidentity.api.meta import Key
from tests.api.jsons import anything, objects, spellings

RESOURCE_ID = "/subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/One"
READERS = [read_identity, read_binding, read_exception, read_assigned_identity]

FROM_MIC = """
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureAssignedIdentity
metadata:
  name: p0-default-idx
  namespace: default
  finalizers: [azureassignedidentity.finalizers.aadpodidentity.k8s.io]
  labels: {nodename: node-a}
  resourceVersion: "230"
  managedFields: [{manager: mic, operation: Update, fieldsV1: {"f:spec": {}}}]
spec:
  azureBindingRef:
    apiVersion: aadpodidentity.k8s.io/v1
    kind: AzureIdentityBinding
    metadata:
      {name: idx-b, namespace: default, uid: u1, resourceVersion: "229", generation: 1,
       creationTimestamp: "2026-01-01T00:00:00Z", managedFields: []}
    spec: {azureIdentity: idx, selector: idx, metadata: {}}
    status: {metadata: {}}
  azureIdentityRef:
    apiVersion: aadpodidentity.k8s.io/v1
    kind: AzureIdentity
    metadata: {name: idx, namespace: default, uid: u2, creationTimestamp: null}
    spec:
      clientID: C-IDX
      clientPassword: {}
      metadata: {}
      resourceID: /subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/idx
    status: {metadata: {}}
  metadata: {}
  nodename: node-a
  pod: p0
  podNamespace: default
status: {availableReplicas: 1, metadata: {}, status: Assigned}
"""


def obj(spec, **more) -> bytes:
    return json.dumps({"metadata": {"name": "n", "namespace": "ns"}, "spec": spec, **more}).encode()


def from_mic(**status) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FROM_MIC)
    return loaded | {"status": status}


def assigned(body: dict[str, Any]):
    return read_assigned_identity(json.dumps(body, default=str).encode())


def test_an_identity_is_read_with_its_ids_in_one_spelling():
    read = read_identity(obj({"type": 0, "resourceID": RESOURCE_ID, "clientID": " C-One "}))
    assert (read.type, read.resource_id, read.client_id) == (IdentityType.USER_ASSIGNED, RESOURCE_ID.lower(), "c-one")
    assert read.problem == ""
    assert read.key == Key("ns", "n")


def test_the_field_names_of_before_version_1_6_are_read():
    spec = {
        "Type": 1,
        "ClientID": "C",
        "ClientPassword": {"Name": "s", "Namespace": "ns"},
        "TenantID": "T",
        "ADResourceID": "R",
        "ADEndpoint": "E",
    }
    read = read_identity(obj(spec))
    assert read.problem == ""
    assert (read.type, read.client_id, read.tenant_id) == (IdentityType.SERVICE_PRINCIPAL, "c", "T")
    assert (read.ad_resource_id, read.ad_endpoint) == ("R", "E")
    assert (read.client_password.name, read.client_password.namespace) == ("s", "ns")
    binding = read_binding(obj({"AzureIdentity": "id", "Selector": "web", "Weight": 3}))
    assert (binding.azure_identity, binding.selector, binding.weight) == ("id", "web", 3)
    assert read_exception(obj({"PodLabels": {"a": "b"}})).pod_labels == {"a": "b"}


@given(st.data())
def test_a_field_is_found_in_any_spelling(data):
    spec = {data.draw(spellings("resourceID")): RESOURCE_ID, data.draw(spellings("clientID")): "c"}
    read = read_identity(obj(spec))
    assert (read.resource_id, read.client_id) == (RESOURCE_ID.lower(), "c")


@pytest.mark.parametrize("spec", [{"clientid": "old", "clientID": "new"}, {"clientID": "new", "CLIENTID": "old"}])
def test_the_exact_spelling_wins(spec):
    assert read_identity(obj({"resourceID": RESOURCE_ID, **spec})).client_id == "new"


def test_a_type_of_null_is_a_user_assigned_identity():
    read = read_identity(obj({"type": None, "resourceID": RESOURCE_ID, "auxiliaryTenantIDs": None, "replicas": None}))
    assert (read.type, read.problem) == (IdentityType.USER_ASSIGNED, "")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (None, "spec.resourceID is missing"),
        ({}, "spec.resourceID is missing"),
        ("x", "spec must be an object, not a text"),
        ([], "spec must be an object, not a list"),
        ({"type": "0"}, "spec.type must be a whole number, not a text"),
        ({"type": 0.5}, "spec.type must be a whole number, not a number"),
        ({"type": True}, "spec.type must be a whole number, not true or false"),
        ({"type": 3}, "spec.type is 3: "),
        ({"type": -1}, "spec.type is -1: "),
        ({"type": 1}, "spec.clientID is missing"),
        ({"resourceID": 5}, "spec.resourceID must be a text, not a number"),
        ({"resourceID": "/x"}, "'/x' is no ID of a user-assigned identity"),
        ({"resourceID": RESOURCE_ID, "clientID": {}}, "spec.clientID must be a text, not an object"),
        ({"resourceID": RESOURCE_ID, "clientPassword": "s"}, "spec.clientPassword must be an object, not a text"),
        ({"resourceID": RESOURCE_ID, "auxiliaryTenantIDs": "t"}, "spec.auxiliaryTenantIDs must be a list of texts"),
        ({"resourceID": RESOURCE_ID, "auxiliaryTenantIDs": [1]}, "spec.auxiliaryTenantIDs must be a list of texts"),
    ],
)
def test_an_identity_that_cannot_be_used_says_why(spec, problem):
    read = read_identity(obj(spec))
    assert read.problem.startswith(problem)
    assert read.key == Key("ns", "n")
    assert read.resource_id == read.client_id == ""


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"selector": "s"}, "spec.azureIdentity is missing"),
        ({"azureIdentity": "i", "selector": " "}, "spec.selector is missing"),
        ({"azureIdentity": "i", "selector": "s", "weight": "5"}, "spec.weight must be a whole number, not a text"),
        (5, "spec must be an object, not a number"),
    ],
)
def test_a_binding_that_cannot_be_used_says_why(spec, problem):
    read = read_binding(obj(spec))
    assert read.problem.startswith(problem)
    assert (read.azure_identity, read.selector) == ("", "")


@pytest.mark.parametrize("labels", ["x", ["a"], {"a": 1}, {"a": None}])
def test_an_exception_that_cannot_be_read_excepts_nobody(labels):
    read = read_exception(obj({"podLabels": labels}))
    assert read.problem
    assert read.pod_labels == {}


@pytest.mark.parametrize(("value", "namespaced"), [("namespaced", True), ("Namespaced", False), ("", False)])
def test_only_the_exact_annotation_makes_an_identity_namespaced(value, namespaced):
    metadata = {"name": "n", "annotations": {"aadpodidentity.k8s.io/Behavior": value}}
    assert read_identity(obj({}, metadata=metadata)).namespaced is namespaced


def test_an_assigned_identity_as_mic_writes_it_is_usable():
    read = assigned(yaml.safe_load(FROM_MIC))
    assert read.problem == ""
    assert read.usable
    assert (read.pod, read.node, read.state) == (Key("default", "p0"), "node-a", AssignedState.ASSIGNED)
    assert (read.identity.type, read.identity.client_id) == (IdentityType.USER_ASSIGNED, "c-idx")
    assert read.identity.key == Key("default", "idx")
    assert read.binding.identity_key == Key("default", "idx")


@pytest.mark.parametrize("status", [None, {}, {"status": ""}, {"status": None}, {"availableReplicas": 1}])
def test_an_assigned_identity_of_a_very_old_mic_is_usable(status):
    assert assigned(from_mic() | {"status": status}).usable


def test_an_assigned_identity_of_a_very_old_mic_may_have_its_field_names():
    old = from_mic(Status="Assigned")
    spec = old["spec"]
    identity = spec["azureIdentityRef"] | {"spec": {"Type": 0, "ResourceID": RESOURCE_ID, "ClientID": "C"}}
    old["spec"] = {
        "AzureIdentityRef": identity,
        "AzureBindingRef": spec["azureBindingRef"],
        "Pod": "p0",
        "PodNamespace": "default",
        "NodeName": "node-a",
    }
    read = assigned(old)
    assert read.usable
    assert (read.identity.client_id, read.pod, read.node) == ("c", Key("default", "p0"), "node-a")


@pytest.mark.parametrize(
    ("status", "usable"),
    [
        ("Assigned", True),
        ("Created", False),
        ("Unassigned", False),
        ("assigned", False),
        ("Other", False),
        (5, False),
    ],
)
def test_only_the_state_assigned_is_usable(status, usable):
    assert assigned(from_mic(status=status)).usable is usable


def test_an_assigned_identity_that_is_being_deleted_is_not_usable():
    body = from_mic(status="Assigned")
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not assigned(body).usable


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {"azureIdentityRef": None},
        {"azureIdentityRef": "x"},
        {"azureIdentityRef": {"metadata": "x"}},
        {"azureIdentityRef": {"spec": {"type": 9}}},
        {"azureBindingRef": 5},
        {"pod": 5},
        {"podNamespace": []},
        {"nodename": {}},
    ],
)
def test_an_assigned_identity_with_a_broken_part_is_not_usable(broken):
    body = from_mic(status="Assigned")
    body["spec"] = body["spec"] | broken if broken else broken
    read = assigned(body)
    assert read.problem
    assert not read.usable
    assert read.key == Key("default", "p0-default-idx")


specs = anything | objects(
    "type", "resourceID", "clientID", "clientPassword", "tenantID", "auxiliaryTenantIDs", "adEndpoint",
    "azureIdentity", "selector", "weight", "podLabels", "azureIdentityRef", "azureBindingRef", "pod", "nodename",
)  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@given(spec=specs, status=anything | objects("status"))
@settings(deadline=None)
def test_no_spec_whatever_makes_a_reader_raise(reader, spec, status):
    read = reader(obj(spec, status=status))
    assert read.key == Key("ns", "n")
    assert isinstance(read.problem, str)


@pytest.mark.parametrize("reader", READERS)
@given(spec=specs, metadata=anything)
def test_what_an_embedded_object_is_does_not_make_a_reader_raise(reader, spec, metadata):
    inner = {"metadata": metadata, "spec": spec}
    assert reader(obj({"azureIdentityRef": inner, "azureBindingRef": inner})).key == Key("ns", "n")


@pytest.mark.parametrize("reader", READERS)
@given(data=st.binary(max_size=40) | anything.map(lambda it: json.dumps(it).encode()))
def test_what_is_no_object_is_a_decode_error_and_nothing_else(reader, data):
    with contextlib.suppress(msgspec.DecodeError):
        reader(data)


@pytest.mark.parametrize("reader", READERS)
def test_an_object_nested_deeper_than_the_stack_is_read(reader):
    nested = json.loads("[" * 400 + "]" * 400)
    deep = json.dumps(nested).replace("[]", "[" * 6000 + "]" * 6000)
    data = obj({"resourceID": RESOURCE_ID, "zzz": "DEEP"}).replace(b'"DEEP"', deep.encode())
    assert reader(data).key == Key("ns", "n")
