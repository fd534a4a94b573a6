"""The command line: flags and environment become settings, and one mode runs. No logic lives here.

Each command imports only its own mode: all together would cost every node agent 60 MiB.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated, Any

import typer

from podidentity import __version__
from podidentity.api.durations import parse_duration
from podidentity.api.errors import ConfigurationError, InvalidValue, PodIdentityError
from podidentity.flags import CONTROLLER_UNNEEDED, NODE_UNNEEDED, from_pflag, unneeded_words
from podidentity.telemetry.logging import configure

app = typer.Typer(
    name="podidentity",
    help="Azure identities for Kubernetes pods, without secrets in the pods. `--version` prints the version.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut the names of flags off at 80 columns
)

_INTERRUPTED = 130
"""What a shell reports for Ctrl-C."""
_LONGEST_OPERATION = 60.0
"""Seconds: the node agent holds the demo's first request for 80."""
_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _flag(names: str, text: str, **options: Any) -> Any:
    return typer.Option(*names.split(), help=text, **options)


def _port(name: str, text: str) -> Any:
    return _flag(name, text, min=1, max=65535)


def _switch(name: str, text: str, **options: Any) -> Any:
    return typer.Option(f"--{name}/--no-{name}", help=text, **options)


Kubeconfig = Annotated[str, _flag("--kubeconfig", "Kubeconfig file; else KUBECONFIG, else the pod's own account.")]
Namespaced = Annotated[
    bool, _switch("forceNamespaced", "Identity, binding and pod must share a namespace.", envvar="FORCENAMESPACED")
]
LogFormat = Annotated[str, _flag("--log-format", "json or text; json unless at a terminal.")]
Verbosity = Annotated[int, _flag("-v --v", "5 and above: debug.")]
ProbePort = Annotated[int, _port("--http-probe-port", "Port of /healthz, /livez and /readyz.")]
MetricsPort = Annotated[int, _port("--prometheus-port", "Port of /metrics.")]


@app.callback()
def _root() -> None:
    """Say nothing: it makes typer keep commands when there is only one."""


@app.command(epilog=unneeded_words(CONTROLLER_UNNEEDED))
def controller(
    # Kubernetes
    kubeconfig: Kubeconfig = "",
    namespaced: Namespaced = False,
    workers: Annotated[int, _flag("--createDeleteBatch", "Pods reconciled at once.", min=1)] = 20,
    # Azure
    cloudconfig: Annotated[
        str, _flag("--cloudconfig", "azure.json; without it CLOUD, TENANT_ID, CLIENT_ID, ... count.")
    ] = "",
    unassign: Annotated[
        str,
        _flag(
            "--unassign",
            "When an identity that no pod uses any more leaves its machine: immediate, never, or after a duration.",
            metavar="immediate|never|DURATION",
        ),
    ] = "10s",
    immutable: Annotated[
        str, _flag("--immutable-user-msis", "Client IDs, separated by commas, that never leave a machine.")
    ] = "",
    reread: Annotated[
        str,
        _flag(
            "--identity-assignment-reconcile-interval",
            "When a machine that nothing happens to is read again: somebody else may have changed it.",
            metavar="DURATION",
        ),
    ] = "3m",
    # Logs, health, metrics
    probe_port: ProbePort = 8080,
    metrics_port: MetricsPort = 8888,
    log_format: LogFormat = "auto",
    verbosity: Verbosity = 0,
) -> None:
    """Assign identities to the machines under the pods that are bound to them (upstream: MIC).

    Watches pods, AzureIdentity and AzureIdentityBinding; writes AzureAssignedIdentity; changes the identities of VMs
    and scale sets, and takes off again what it put there.
    """
    _set_up_logs(log_format, verbosity)
    from podidentity.azure import config
    from podidentity.controller.app import run
    from podidentity.controller.settings import ControllerSettings

    _run(
        lambda stop: run(
            ControllerSettings(
                azure=config.load(cloudconfig, os.environ),
                kubeconfig=kubeconfig,
                namespace=_own_namespace(),
                namespaced=namespaced,
                immutable_client_ids=frozenset(it.strip().lower() for it in immutable.split(",") if it.strip()),
                unassign_after=_grace(unassign),
                reread_after=_at_least_a_second(reread, "--identity-assignment-reconcile-interval"),
                workers=workers,
                probe_port=probe_port,
                metrics_port=metrics_port,
            ),
            stop,
        )
    )


@app.command(epilog=unneeded_words(NODE_UNNEEDED))
def node(
    # Kubernetes
    name: Annotated[str, _flag("--node", "Name of this node.", envvar="NODE_NAME")] = "",
    kubeconfig: Kubeconfig = "",
    namespaced: Namespaced = False,
    scale_features: Annotated[
        bool, _switch("enableScaleFeatures", "Watch only the AzureAssignedIdentities of this node.")
    ] = True,
    mode: Annotated[str, _flag("--operation-mode", "standard; managed is not there yet.")] = "standard",
    # Azure
    metadata_address: Annotated[str, _flag("--metadata-ip", "Address of the metadata service.")] = "169.254.169.254",
    metadata_port: Annotated[int, _port("--metadata-port", "Port of the metadata service.")] = 80,
    # What pods are answered
    listen_address: Annotated[
        str,
        _flag(
            "--nmi-listen-address",
            "Address where redirected calls arrive; else HOST_IP, else the address of the default route.",
        ),
    ] = "",
    listen_port: Annotated[int, _port("--nmi-port", "Port where redirected calls arrive.")] = 2579,
    host_ip: Annotated[str, _flag("--host-ip", "The node's address, as older charts pass it.")] = "",
    header_required: Annotated[
        bool, _switch("metadata-header-required", "Refuse requests without `Metadata: true`.")
    ] = True,
    attempts: Annotated[
        int,
        _flag(
            "--retry-attempts-for-created",
            "Times --find-identity-retry-interval: how long a request waits for its assignment.",
            min=0,
        ),
    ] = 16,
    interval: Annotated[int, _flag("--find-identity-retry-interval", "Seconds.", min=0)] = 5,
    stale_limit: Annotated[
        str,
        _flag(
            "--stale-cache-limit",
            "How long what is known counts while the API server is silent.",
            metavar="DURATION",
        ),
    ] = "10m",
    # Rules, logs, health, metrics
    rules_interval: Annotated[
        float, _flag("--ipt-update-interval-sec", "Seconds between checks of the netfilter rules.", min=1)
    ] = 60.0,
    probe_port: ProbePort = 8080,
    metrics_port: MetricsPort = 9090,
    log_format: LogFormat = "auto",
    verbosity: Verbosity = 0,
) -> None:
    """Answer the token requests of this node's pods (upstream: NMI).

    Redirects what pods send to the metadata service with nftables, finds the pod by its address, checks what it may
    use, and answers as the service would. Needs the capability NET_ADMIN and the host's network.
    """
    _set_up_logs(log_format, verbosity)
    from podidentity.node.app import run
    from podidentity.node.settings import NodeSettings

    _run(
        lambda stop: run(
            NodeSettings(
                node=_node_name(name, mode),
                kubeconfig=kubeconfig,
                namespaced=namespaced,
                listen_address=_listen_address(listen_address or host_ip or os.environ.get("HOST_IP", "")),
                listen_port=listen_port,
                metadata_address=_ipv4(metadata_address, "--metadata-ip"),
                metadata_port=metadata_port,
                metadata_header_required=header_required,
                probe_port=probe_port,
                metrics_port=metrics_port,
                rules_interval=rules_interval,
                label_filter=scale_features,
                assignment_wait=float(attempts * interval),
                stale_cache_limit=_seconds(stale_limit, "--stale-cache-limit"),
            ),
            stop,
        )
    )


@app.command()
def demo(
    keep: Annotated[
        bool, _flag("--keep", "Leave everything running until Ctrl-C, and say how to play with it.")
    ] = False,
    kubeconfig: Annotated[
        str, _flag("--kubeconfig", "Use this real API server, an empty one, in place of the stand-in.")
    ] = "",
    operation_seconds: Annotated[
        float,
        _flag("--operation-seconds", "How long Azure takes to change the scale set.", min=0, max=_LONGEST_OPERATION),
    ] = 4.0,
) -> None:
    """Show the main job on this machine: a pod gets its token, end to end.

    Starts stand-ins for Azure and Kubernetes, a node and pods as network namespaces, and the shipped controller and
    node agent; applies an identity, a binding and pods; asks for tokens as applications do. Leaves nothing behind.
    """
    try:
        from podidentity.emulator.demo.run import run

        code = run(keep=keep, kubeconfig=kubeconfig, operation_seconds=operation_seconds)
    except ModuleNotFoundError as error:
        raise SystemExit(f"podidentity: {error.name} is missing: pip install 'podidentity[demo]'") from None
    except PodIdentityError as error:
        raise SystemExit(_complaint(error)) from None
    raise typer.Exit(code)


def main() -> None:
    """Run the program: the entry point of the package."""
    try:
        _main(sys.argv[1:])
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def _main(words: list[str]) -> None:
    if "--version" in words:  # upstream's programs take it anywhere
        typer.echo(f"podidentity {__version__}")
        return
    unneeded = {"controller": CONTROLLER_UNNEEDED, "node": NODE_UNNEEDED}.get(words[0] if words else "")
    try:
        arguments = from_pflag(words, booleans=_switches(), unneeded=unneeded)
    except ConfigurationError as error:
        raise SystemExit(_complaint(error)) from None
    app(arguments)


def _switches() -> set[str]:
    """Return the names of all flags that are true or false."""
    root = typer.main.get_command(app)
    commands = [root, *getattr(root, "commands", {}).values()]
    return {name for command in commands for it in command.params if it.secondary_opts for name in it.opts}


def _run(mode: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a mode until a signal; what stops it from starting is one line and exit code 1."""
    from podidentity.telemetry.lifecycle import stopped_by_signals

    try:
        asyncio.run(stopped_by_signals(mode))
    except PodIdentityError as error:
        raise SystemExit(_complaint(error)) from None


def _complaint(error: PodIdentityError) -> str:
    return f"podidentity: {error}"


def _set_up_logs(log_format: str, verbosity: int) -> None:
    if log_format not in {"auto", "json", "text"}:
        raise typer.BadParameter("json or text", param_hint="--log-format")
    configure(log_format=log_format, verbosity=verbosity)  # type: ignore[arg-type] # checked in the line above


def _own_namespace() -> str:
    if written := os.environ.get("MIC_POD_NAMESPACE"):
        return written
    return _ACCOUNT_NAMESPACE.read_text().strip() if _ACCOUNT_NAMESPACE.is_file() else "default"


def _node_name(name: str, mode: str) -> str:
    if mode != "standard":
        raise ConfigurationError(f"--operation-mode {mode} is not served by this version; only standard is")
    if not name:
        raise ConfigurationError(
            "the name of this node is missing: give --node or NODE_NAME (in a pod: fieldRef spec.nodeName)"
        )
    return name


def _listen_address(text: str) -> IPv4Address | None:
    """Return the address to listen on; upstream's default, loopback, cannot be reached by pods and is left out."""
    address = _ipv4(text, "--nmi-listen-address") if text else None
    if address is not None and (address.is_loopback or address.is_unspecified):
        typer.echo(f"--nmi-listen-address {address}: using the node's own address, which pods can reach", err=True)
        return None
    return address


def _grace(text: str) -> float:
    fixed = {"immediate": 0.0, "never": float("inf")}
    return fixed[text] if text in fixed else _seconds(text, "--unassign (or immediate, or never)")


def _seconds(text: str, flag: str) -> float:
    try:
        return parse_duration(text)
    except InvalidValue as error:
        raise ConfigurationError(f"{flag}: {error}") from None


def _at_least_a_second(text: str, flag: str) -> float:
    seconds = _seconds(text, flag)
    if seconds < 1:
        raise ConfigurationError(f"{flag}: {text} is too short; Azure limits how often it is asked")
    return seconds


def _ipv4(text: str, flag: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise ConfigurationError(f"{flag} {text!r} is no IPv4 address") from None
