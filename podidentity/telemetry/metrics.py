"""The names of all metrics in one place. Upstream's names are kept where the thing still exists: dashboards use them.

Labels have few possible values: nothing that a pod sends becomes one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, Histogram

from podidentity.api.errors import PodIdentityError

_PREFIX = "aadpodidentity"
_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Buckets that hold both a cached token (milliseconds) and a scale set's operation (a minute)."""


class ControllerMetrics:
    """What the controller counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.additions = _count(registry, "assigned_identity_addition_count", "AzureAssignedIdentities created.")
        self.deletions = _count(registry, "assigned_identity_deletion_count", "AzureAssignedIdentities deleted.")
        self.updates = _count(registry, "assigned_identity_update_count", "AzureAssignedIdentities changed.")
        self.cloud_seconds, self.cloud_errors = _operations(
            registry, "cloud_provider_operations", "Calls to Azure Resource Manager, long-running ones to their end"
        )

    @contextmanager
    def cloud_call(self, operation: str) -> Iterator[None]:
        """Time one call (`vm_get`, `vmss_update`, ...), and count it when it fails."""
        with _timed(self.cloud_seconds, self.cloud_errors, operation):
            yield


class NodeMetrics:
    """What the node agent counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.request_seconds = Histogram(
            "nmi_operations_duration_seconds",
            "Requests answered, by what they asked for and how it ended.",
            ["operation_type", "status_code"],
            namespace=_PREFIX,
            registry=registry,
            buckets=_SECONDS,
        )
        self.imds_seconds, self.imds_errors = _operations(
            registry, "imds_operations", "Calls to the instance metadata service"
        )

    @contextmanager
    def imds_call(self, operation: str) -> Iterator[None]:
        """Time one call to IMDS, and count it when it fails."""
        with _timed(self.imds_seconds, self.imds_errors, operation):
            yield


def _operations(registry: CollectorRegistry, name: str, what: str) -> tuple[Histogram, Gauge]:
    """Make the two metrics that upstream has of calls elsewhere: how long they take, and how many fail."""
    label = "operation_type"
    seconds = Histogram(
        f"{name}_duration_seconds", f"{what}.", [label], namespace=_PREFIX, registry=registry, buckets=_SECONDS
    )
    return seconds, _count(registry, f"{name}_errors_count", f"{what} that failed.", label)


@contextmanager
def _timed(seconds: Histogram, errors: Gauge, operation: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    except PodIdentityError:
        errors.labels(operation).inc()
        raise
    seconds.labels(operation).observe(time.perf_counter() - started)


def _count(registry: CollectorRegistry, name: str, help_text: str, *labels: str) -> Gauge:
    """Make a counter of upstream's name: a Counter of this library would add `_total` to it."""
    return Gauge(name, help_text, labels, namespace=_PREFIX, registry=registry)
