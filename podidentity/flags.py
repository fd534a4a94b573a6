"""Upstream's flags are pflag's; typer's are click's. This is the difference, on the list of arguments, before typer.

pflag takes `--forceNamespaced=true` and `-v=5`; click takes `--forceNamespaced`, `--no-forceNamespaced` and `-v 5`.
Flags that upstream's manifests pass and that mean nothing here are taken out.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from podidentity.api.errors import ConfigurationError

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
"""Go's strconv.ParseBool."""
_AS_IT_IS = "\b"
"""Before a paragraph that click must not wrap: it would break lines inside the names of flags."""
_SHORT = re.compile(r"-[a-zA-Z]=.*")


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A flag that is taken and does nothing."""

    why: str
    is_switch: bool = False


_COMMON = {
    "--logtostderr": Unneeded("logs always go there", is_switch=True),
    "--enableProfile": Unneeded("py-spy profiles any process", is_switch=True),
    "--custom-user-agent": Unneeded("the user agent is podidentity's own"),
}
CONTROLLER_UNNEEDED: Mapping[str, Unneeded] = _COMMON | {
    "--leader-election-instance": Unneeded("no election yet: run one replica"),
    "--leader-election-namespace": Unneeded("no election yet: run one replica"),
    "--leader-election-name": Unneeded("no election yet: run one replica"),
    "--leader-election-duration": Unneeded("no election yet: run one replica"),
    "--syncRetryDuration": Unneeded("every change is acted on as it comes"),
    "--clientQps": Unneeded("the API server's own fairness decides"),
    "--enableScaleFeatures": Unneeded("objects always carry their node's label", is_switch=True),
    "--enable-type-upgrade": Unneeded("old field names are read as they are", is_switch=True),
    "--type-upgrade-status-key": Unneeded("old field names are read as they are"),
    "--config-map-name": Unneeded("old field names are read as they are"),
    "--update-user-msi-max-retry": Unneeded("retries back off and never end"),
    "--update-user-msi-retry-interval": Unneeded("retries back off and never end"),
}
NODE_UNNEEDED: Mapping[str, Unneeded] = _COMMON | {
    "--MICNamespace": Unneeded("no pod is trusted by its name"),
    "--retry-attempts-for-assigned": Unneeded("waiting ends with the event that it waits for"),
    "--block-instance-metadata": Unneeded("pods get nothing but tokens", is_switch=True),
    "--allow-network-plugin-kubenet": Unneeded("kubenet is not checked", is_switch=True),
    "--kubelet-config": Unneeded("kubenet is not checked"),
    "--set-retry-after-header": Unneeded("it is set wherever a retry helps", is_switch=True),
    "--enable-conntrack-deletion": Unneeded("older connections are always reset", is_switch=True),
}


def unneeded_words(flags: Mapping[str, Unneeded]) -> str:
    """Return the paragraphs for `--help`."""
    lines = "\n".join(f"{name} ({flag.why})" for name, flag in flags.items())
    return f"Taken because upstream's manifests pass them, without effect:\n\n{_AS_IT_IS}\n{lines}"


def from_pflag(
    arguments: Sequence[str], *, booleans: Collection[str], unneeded: Mapping[str, Unneeded] | None = None
) -> list[str]:
    """Translate arguments; `booleans` are the names of the flags that are true or false, with their dashes."""
    return list(_translated(iter(arguments), booleans, unneeded or {}))


def _translated(
    arguments: Iterator[str], booleans: Collection[str], unneeded: Mapping[str, Unneeded]
) -> Iterator[str]:
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in unneeded:
            if not equals and not unneeded[name].is_switch:
                next(arguments, None)
        elif _SHORT.fullmatch(argument):
            yield from (name, value)
        elif equals and name in booleans:
            yield _switched(name, value)
        else:
            yield argument


def _switched(name: str, value: str) -> str:
    if value in _TRUE:
        return name
    if value in _FALSE:
        return "--no-" + name.removeprefix("--")
    raise ConfigurationError(f"{name}={value}: the value must be true or false")
