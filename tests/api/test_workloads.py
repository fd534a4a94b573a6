import json
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.ids import TargetKind
from podidentity.api.meta import Key
from podidentity.api.workloads import Node, Pod


def pod(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **metadata) -> Pod:
    body = {"metadata": {"name": "p", "namespace": "ns", **metadata}, "spec": spec or {}, "status": status or {}}
    return msgspec.json.decode(json.dumps(body), type=Pod)


def test_a_pod_is_read_as_the_api_server_sends_it():
    read = pod(
        {"nodeName": "n", "serviceAccountName": "sa", "containers": [{"name": "c"}], "hostNetwork": False},
        {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        labels={"aadpodidbinding": "web"},
        managedFields=[{"fieldsV1": {}}],
    )
    assert (read.key, read.spec.node_name, read.spec.service_account_name) == (Key("ns", "p"), "n", "sa")
    assert read.binding_label == "web"
    assert read.addresses == {ip_address("10.0.0.1"), ip_address("fd00::1")}


def test_a_pod_without_label_asks_for_nothing():
    assert pod().binding_label == ""
    assert pod(labels={}).binding_label == ""


def test_a_pod_on_the_network_of_its_host_has_no_address_of_its_own():
    assert pod({"hostNetwork": True}, {"podIP": "10.0.0.1"}).addresses == frozenset()


@pytest.mark.parametrize("status", [{}, {"podIP": ""}, {"podIPs": None}, {"podIPs": []}, {"podIP": "nonsense"}])
def test_a_pod_without_a_readable_address_has_none(status):
    assert pod(status=status).addresses == frozenset()


@given(st.ip_addresses())
def test_an_address_is_the_same_however_it_is_written(address):
    for written in (str(address), address.exploded.upper()):
        assert pod(status={"podIP": written}).addresses == {address}


@pytest.mark.parametrize(
    ("phase", "finished"),
    [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True), ("Unknown", False), ("", False)],
)
def test_a_pod_is_finished_when_no_container_will_run_again(phase, finished):
    assert pod(status={"phase": phase}).finished is finished


def test_a_pod_that_was_deleted_is_terminating():
    assert pod(deletionTimestamp="2026-01-01T00:00:00Z").metadata.terminating
    assert not pod().metadata.terminating


def node(provider_id: str | None) -> Node:
    spec = {} if provider_id is None else {"providerID": provider_id}
    return msgspec.json.decode(json.dumps({"metadata": {"name": "n"}, "spec": spec}), type=Node)


def test_a_node_knows_the_machine_under_it():
    found = node("azure:///subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/V").target
    assert found is not None
    assert (found.kind, found.name) == (TargetKind.VM, "v")
    assert node("x").key == Key("", "n")


@pytest.mark.parametrize("provider_id", [None, "", "kind://docker/kind/node"])
def test_a_node_without_a_machine_of_azure_has_none(provider_id):
    assert node(provider_id).target is None


def test_a_key_is_written_as_people_write_it():
    assert (str(Key("ns", "p")), str(Key("", "n"))) == ("ns/p", "n")
