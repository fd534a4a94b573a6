"""Printer columns: what `kubectl get` shows of a kind. A cell is made from the object and the time now (for ages)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

from podidentity.emulator.kubernetes.errors import Object

Cell: TypeAlias = Callable[[Object, datetime], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a Table; `priority` 1 shows only with `-o wide`."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    @property
    def definition(self) -> Object:
        """The `columnDefinitions` entry."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def human_duration(seconds: float) -> str:
    """Say an age as kubectl does: `7s`, `3m5s`, `28m`, `5h12m`, `2d3h`, `91d`."""
    whole = int(seconds)
    if whole < 0:
        return "<invalid>" if whole < -1 else "0s"
    units = (
        (2 * 60, 1, "s", 1, ""),
        (10 * 60, 60, "m", 1, "s"),
        (3 * 3600, 60, "m", 60, ""),
        (8 * 3600, 3600, "h", 60, "m"),
        (48 * 3600, 3600, "h", 3600, ""),
        (8 * 86400, 86400, "d", 3600, "h"),
        (2 * 365 * 86400, 86400, "d", 86400, ""),
    )
    for limit, unit, letter, part, part_letter in units:
        if whole < limit:
            rest = whole % unit // part
            return f"{whole // unit}{letter}" + (f"{rest}{part_letter}" if part_letter and rest else "")
    return f"{whole // (365 * 86400)}y"


def age(value: Any, now: datetime) -> str:
    """Say how long ago an RFC 3339 timestamp was."""
    if not isinstance(value, str):
        return "<unknown>"
    return human_duration((now - datetime.fromisoformat(value)).total_seconds())


def json_path(path: str) -> Callable[[Object], Any]:
    r"""Compile the JSONPath of printer columns: `.a.b`, `.a\.b`, `['a']`, `[0]`, `[?(@.type=="Ready")]`."""
    steps: list[Callable[[Any], Any]] = []
    for match in _PATH_STEP.finditer(path):
        name, quoted, index, key, wanted = match.groups()
        if key is not None:
            steps.append(partial(_first_with, key, wanted))
        elif index is not None:
            steps.append(partial(_element, int(index)))
        else:
            steps.append(partial(_field, quoted or name.replace("\\.", ".")))

    def evaluate(obj: Object) -> Any:
        value: Any = obj
        for step in steps:
            if value is None:
                return None
            value = step(value)
        return value

    return evaluate


def _first_with(key: str, wanted: str, value: Any) -> Any:
    return next((item for item in value if item.get(key) == wanted), None)


def _element(index: int, value: Any) -> Any:
    return value[index] if index < len(value) else None


def _field(name: str, value: Any) -> Any:
    return value.get(name) if isinstance(value, dict) else None


_PATH_STEP = re.compile(
    r"""\.((?:\\.|[^.\[\\])+)|\['([^']+)'\]|\[(\d+)\]|\[\?\(@\.(\w+)\s*==\s*["']([^"']*)["']\)\]"""
)


def custom_columns(definitions: Sequence[Object]) -> tuple[Column, ...]:
    """Build the columns of a CRD version from `additionalPrinterColumns`; without any there is Age."""
    listed = definitions or [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    return (NAME, *(_custom_column(definition) for definition in listed))


def _custom_column(definition: Object) -> Column:
    read, is_date = json_path(definition["jsonPath"]), definition["type"] == "date"
    return Column(
        definition["name"],
        (lambda obj, now: age(read(obj), now)) if is_date else (lambda obj, _: read(obj)),
        type=definition["type"],
        format=definition.get("format", ""),
        description=definition.get("description", ""),
        priority=definition.get("priority", 0),
    )


def _at(path: str, default: Any = "<none>") -> Cell:
    read = json_path(path)
    return lambda obj, _: default if (value := read(obj)) is None else value


def _count(path: str) -> Cell:
    read = json_path(path)
    return lambda obj, _: len(read(obj) or ())


def _ago(path: str) -> Cell:
    read = json_path(path)
    return lambda obj, now: age(read(obj), now)


def _pod_status(obj: Object, _: datetime) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = obj.get("status", {})
    return str(status.get("reason") or status.get("phase", "Pending"))


def _pod_ready(obj: Object, _: datetime) -> str:
    ready = sum(bool(c.get("ready")) for c in obj.get("status", {}).get("containerStatuses") or ())
    return f"{ready}/{len(obj['spec'].get('containers') or ())}"


def _pod_restarts(obj: Object, _: datetime) -> str:
    statuses = obj.get("status", {}).get("containerStatuses") or ()
    return str(sum(c.get("restartCount", 0) for c in statuses))


def _node_status(obj: Object, _: datetime) -> str:
    ready = json_path('.status.conditions[?(@.type=="Ready")].status')(obj)
    state = {"True": "Ready", None: "Unknown"}.get(ready, "NotReady")
    return f"{state},SchedulingDisabled" if obj.get("spec", {}).get("unschedulable") else state


def _node_roles(obj: Object, _: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or "<none>"


def _event_object(obj: Object, _: datetime) -> str:
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


def _event_seen(obj: Object, now: datetime) -> str:
    series = obj.get("series") or {}
    stamps = (series.get("lastObservedTime"), obj.get("lastTimestamp"), obj.get("deprecatedLastTimestamp"))
    return age(next((s for s in (*stamps, obj.get("eventTime")) if s), None), now)


def _event_text(obj: Object, _: datetime) -> str:
    return str(obj.get("message") or obj.get("note") or "").strip()


NAME = Column("Name", lambda obj, _: obj["metadata"]["name"], format="name", description="Name of the object")
AGE = Column("Age", _ago(".metadata.creationTimestamp"))
PLAIN = (NAME, AGE)

BUILT_IN: dict[str, tuple[Column, ...]] = {
    "namespaces": (NAME, Column("Status", _at(".status.phase")), AGE),
    "pods": (
        NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        AGE,
        Column("IP", _at(".status.podIP"), priority=1),
        Column("Node", _at(".spec.nodeName"), priority=1),
    ),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        Column("Version", _at(".status.nodeInfo.kubeletVersion", "")),
        Column("Internal-IP", _at('.status.addresses[?(@.type=="InternalIP")].address'), priority=1),
    ),
    "serviceaccounts": (NAME, Column("Secrets", _count(".secrets"), type="integer"), AGE),
    "secrets": (NAME, Column("Type", _at(".type")), Column("Data", _count(".data"), type="integer"), AGE),
    "configmaps": (NAME, Column("Data", _count(".data"), type="integer"), AGE),
    "events": (
        Column("Last Seen", _event_seen),
        Column("Type", _at(".type", "")),
        Column("Reason", _at(".reason", "")),
        Column("Object", _event_object),
        Column("Message", _event_text),
        Column("Name", NAME.cell, format="name", priority=1),
    ),
    "leases": (NAME, Column("Holder", _at(".spec.holderIdentity", "")), AGE),
    "deployments": (
        NAME,
        Column("Ready", lambda o, _: f"{o.get('status', {}).get('readyReplicas', 0)}/{o['spec'].get('replicas', 1)}"),
        Column("Up-to-date", _at(".status.updatedReplicas", 0), type="integer"),
        Column("Available", _at(".status.availableReplicas", 0), type="integer"),
        AGE,
    ),
    "daemonsets": (
        NAME,
        Column("Desired", _at(".status.desiredNumberScheduled", 0), type="integer"),
        Column("Current", _at(".status.currentNumberScheduled", 0), type="integer"),
        Column("Ready", _at(".status.numberReady", 0), type="integer"),
        AGE,
    ),
    "customresourcedefinitions": (NAME, Column("Created At", _at(".metadata.creationTimestamp"), type="date")),
}
"""The columns of the built-in kinds by plural; kinds that are not here show name and age."""
