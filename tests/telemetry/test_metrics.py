import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from podidentity.api.errors import PodIdentityError
from podidentity.telemetry.metrics import ControllerMetrics, NodeMetrics

UPSTREAM_CONTROLLER = {
    "aadpodidentity_assigned_identity_addition_count",
    "aadpodidentity_assigned_identity_deletion_count",
    "aadpodidentity_assigned_identity_update_count",
    "aadpodidentity_cloud_provider_operations_duration_seconds",
    "aadpodidentity_cloud_provider_operations_errors_count",
}
UPSTREAM_NODE = {
    "aadpodidentity_nmi_operations_duration_seconds",
    "aadpodidentity_imds_operations_duration_seconds",
    "aadpodidentity_imds_operations_errors_count",
}


def exposed(registry):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def families(registry):
    return {family.name for family in text_string_to_metric_families(generate_latest(registry).decode())}


@pytest.mark.parametrize(("make", "names"), [(ControllerMetrics, UPSTREAM_CONTROLLER), (NodeMetrics, UPSTREAM_NODE)])
def test_the_names_are_upstream_s(make, names):
    registry = CollectorRegistry()
    make(registry)
    assert families(registry) == names


def test_a_count_is_exposed_under_its_name_without_a_suffix():
    registry = CollectorRegistry()
    ControllerMetrics(registry).additions.inc()
    assert exposed(registry)[("aadpodidentity_assigned_identity_addition_count",)] == 1


def test_a_call_to_azure_is_timed_by_its_kind():
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry)
    with metrics.cloud_call("vmss_update"):
        pass
    seen = exposed(registry)
    assert (
        seen[("aadpodidentity_cloud_provider_operations_duration_seconds_count", ("operation_type", "vmss_update"))]
        == 1
    )
    assert not any("errors" in name for name, *_ in seen)


@pytest.mark.parametrize(
    ("make", "call", "name"),
    [
        (ControllerMetrics, "cloud_call", "aadpodidentity_cloud_provider_operations_errors_count"),
        (NodeMetrics, "imds_call", "aadpodidentity_imds_operations_errors_count"),
    ],
)
def test_a_call_that_fails_is_counted_and_its_error_goes_on(make, call, name):
    registry = CollectorRegistry()
    with pytest.raises(PodIdentityError), getattr(make(registry), call)("it"):
        raise PodIdentityError("no")
    assert exposed(registry)[(name, ("operation_type", "it"))] == 1


def test_a_node_counts_requests_by_two_short_lists_of_words_only():
    registry = CollectorRegistry()
    NodeMetrics(registry).request_seconds.labels("token", "200").observe(0.1)
    labels = {name for key in exposed(registry) for name, _ in key[1:]}
    assert labels == {"operation_type", "status_code", "le"}
