"""Resource types: what is served under which path, and the rules that differ from kind to kind."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from podidentity.emulator.kubernetes.columns import BUILT_IN, PLAIN, Column
from podidentity.emulator.kubernetes.errors import GroupResource, Object

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NAMES = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One resource in one version. Versions of the same resource share what is stored (`storage`)."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[str, ...] = ()
    columns: tuple[Column, ...] = PLAIN
    field_selectors: frozenset[str] = _NAMES
    has_generation: bool = False
    unconditional_update: bool = True
    """Whether a PUT without a resource version overwrites."""
    returns_deleted: bool = False
    """Whether DELETE answers with the object instead of a Status."""
    schema: Object | None = field(default=None, hash=False)
    """The structural schema of a custom resource; None for the built-in kinds."""

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> GroupResource:
        """How errors name it."""
        return GroupResource(self.group, self.plural)

    @property
    def storage(self) -> GroupResource:
        """Where its objects are kept. Events of both groups are the same objects."""
        is_event = self.plural == "events" and self.group == "events.k8s.io"
        return EVENTS.group_resource if is_event else self.group_resource

    @property
    def is_custom(self) -> bool:
        """Whether a CRD defines it."""
        return self.schema is not None

    @property
    def has_status(self) -> bool:
        """Whether status is written only through `/status`."""
        return "status" in self.subresources


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. Without a name it is the collection; without a namespace, of all namespaces."""

    resource: Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @property
    def key(self) -> str:
        """The etcd key of the object below its resource."""
        return key_for(self.namespace, self.name or "")


def key_for(namespace: str | None, name: str) -> str:
    """Return the etcd key below the resource: pages come in its byte order, `a-b/x` before `a/x`."""
    return f"{namespace}/{name}" if namespace else name


def _built_in(group: str, kind: str, plural: str, **rules: object) -> Resource:
    settings: Object = {"columns": BUILT_IN.get(plural, PLAIN), "singular": kind.lower(), **rules}
    return Resource(group=group, version="v1", kind=kind, plural=plural, **settings)


def _fields(*paths: str) -> frozenset[str]:
    return _NAMES | set(paths)


_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_FIELDS = _fields(
    *(f"involvedObject.{part}" for part in _INVOLVED),
    *("reason", "reportingComponent", "source", "type"),
)

NAMESPACES = _built_in(
    "", "Namespace", "namespaces", namespaced=False, short_names=("ns",), subresources=("status",),
    field_selectors=_NAMES | {"status.phase"}, returns_deleted=True,
)  # fmt: skip
PODS = _built_in(
    "", "Pod", "pods", short_names=("po",), categories=("all",), subresources=("status",), has_generation=True,
    field_selectors=_fields("spec.nodeName", "spec.serviceAccountName", "status.phase", "status.podIP"),
    returns_deleted=True,
)  # fmt: skip
NODES = _built_in(
    "", "Node", "nodes", namespaced=False, short_names=("no",), subresources=("status",),
    field_selectors=_fields("spec.unschedulable"),
)  # fmt: skip
SERVICE_ACCOUNTS = _built_in(
    "", "ServiceAccount", "serviceaccounts", short_names=("sa",), subresources=("token",), returns_deleted=True
)
SECRETS = _built_in("", "Secret", "secrets", field_selectors=_fields("type"))
CONFIG_MAPS = _built_in("", "ConfigMap", "configmaps", short_names=("cm",))
ENDPOINTS = _built_in("", "Endpoints", "endpoints", short_names=("ep",))
EVENTS = _built_in("", "Event", "events", short_names=("ev",), field_selectors=_EVENT_FIELDS)
NEW_EVENTS = _built_in("events.k8s.io", "Event", "events", short_names=("ev",), field_selectors=_EVENT_FIELDS)
LEASES = _built_in("coordination.k8s.io", "Lease", "leases", unconditional_update=False)
DEPLOYMENTS = _built_in(
    "apps", "Deployment", "deployments", short_names=("deploy",), categories=("all",), subresources=("status",),
    has_generation=True,
)  # fmt: skip
DAEMON_SETS = _built_in(
    "apps", "DaemonSet", "daemonsets", short_names=("ds",), categories=("all",), subresources=("status",),
    has_generation=True,
)  # fmt: skip
CRDS = _built_in(
    "apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False,
    short_names=("crd", "crds"), categories=("api-extensions",), subresources=("status",), has_generation=True,
    unconditional_update=False,
)  # fmt: skip
ACCESS_REVIEWS = _built_in(
    "authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False, verbs=("create",)
)

BUILT_INS = (
    NAMESPACES, PODS, NODES, SERVICE_ACCOUNTS, SECRETS, CONFIG_MAPS, ENDPOINTS, EVENTS, NEW_EVENTS, LEASES,
    DEPLOYMENTS, DAEMON_SETS, CRDS, ACCESS_REVIEWS,
)  # fmt: skip


class Registry:
    """The resources served now: the built-in ones and those of the CRDs."""

    def __init__(self) -> None:
        self._resources = {(r.group, r.version, r.plural): r for r in BUILT_INS}

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources.values())

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Look a resource up by its path."""
        return self._resources.get((group, version, plural))

    def serve(self, group: str, plural: str, resources: Iterable[Resource]) -> None:
        """Replace all versions of a custom resource; none stops serving it."""
        for key in [key for key in self._resources if (key[0], key[2]) == (group, plural)]:
            del self._resources[key]
        self._resources |= {(r.group, r.version, r.plural): r for r in resources}
