"""What the controller is told at its start. Frozen: flags and environment are read once, in `cli.py`."""

from dataclasses import dataclass

from podidentity.azure.config import AzureConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """Seconds unless said."""

    azure: AzureConfig
    kubeconfig: str = ""
    namespace: str = "default"
    """Where the controller runs: its ConfigMaps live there."""
    namespaced: bool = False
    """Identity, binding and pod must share a namespace (`--forceNamespaced`)."""
    immutable_client_ids: frozenset[str] = frozenset()
    """Client IDs, in lower case, that are never taken off a machine (`--immutable-user-msis`)."""
    unassign_after: float = 10.0
    """From the last use of an identity until it leaves the machine; `inf`: never. Jobs that follow one another find
    it still there."""
    reread_after: float = 180.0
    """Until a quiet target is read again, because somebody else may have changed it
    (`--identity-assignment-reconcile-interval`)."""
    workers: int = 20
    """Pods reconciled at once (`--createDeleteBatch`); each waits for the API server most of the time."""
    probe_port: int = 8080
    metrics_port: int = 8888

    @property
    def protected_client_ids(self) -> frozenset[str]:
        """All client IDs that stay on machines: those of the flag, and the cluster's own."""
        return self.immutable_client_ids | {self.azure.user_assigned_client_id.lower()} - {""}
