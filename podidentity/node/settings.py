"""What the node agent is told at its start. Frozen: flags and environment are read once, in `cli.py`."""

from dataclasses import dataclass
from ipaddress import IPv4Address

_METADATA = IPv4Address("169.254.169.254")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Seconds unless said."""

    node: str
    """The node's name (`--node`): only its pods are served."""
    kubeconfig: str = ""
    namespaced: bool = False
    """Identity, binding and pod must share a namespace (`--forceNamespaced`)."""
    listen_address: IPv4Address | None = None
    """Where the pods' redirected calls arrive (`--nmi-listen-address`); None: the node's own address is found out."""
    listen_port: int = 2579
    metadata_address: IPv4Address = _METADATA
    metadata_port: int = 80
    metadata_header_required: bool = True
    probe_port: int = 8080
    metrics_port: int = 9090
    rules_interval: float = 60.0
    """Between two checks of our netfilter table when nothing announces a change (`--ipt-update-interval-sec`)."""
    label_filter: bool = True
    """Watch only AzureAssignedIdentities labelled with this node (`--enableScaleFeatures`)."""
    assignment_wait: float = 80.0
    """How long a request is held while its assignment is under way: `--retry-attempts-for-created` times
    `--find-identity-retry-interval`. msal and the az CLI never retry, so holding serves them."""
    unbound_wait: float = 5.0
    """How long a request is held while nothing binds the pod: the order of `kubectl apply`."""
    handover_wait: float = 5.0
    """How long a request from a terminating pod's address is held while another pod waits for an address."""
    held_per_pod: int = 16
    """Requests of one pod that may be held at once; a client that retries in parallel gets a 503 beyond."""
    stale_cache_limit: float = 600.0
    """How long what we know of the cluster counts while the API server is silent (`--stale-cache-limit`)."""
    token_max_age: float = 300.0
    """How long a token is served without asking IMDS again: permissions change in Azure, and people look for it."""
    imds_concurrency: int = 4
    """Calls to IMDS at once; it refuses more than 5 of a VM, and the host's own programs ask, too."""
