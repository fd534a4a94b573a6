"""What a client reads before it starts: version, groups, resources, and enough OpenAPI for kubectl's validation."""

import hashlib
from collections.abc import Iterable
from itertools import groupby

from podidentity.emulator.kubernetes.errors import Object
from podidentity.emulator.kubernetes.resources import Registry, Resource

VERSION: Object = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.2+podidentity-emulator",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.8",
    "compiler": "gc",
    "platform": "linux/amd64",
}
_SUBRESOURCE_KINDS = {"token": ("TokenRequest", "authentication.k8s.io", ["create"])}
_STATUS_VERBS = ["get", "patch", "update"]


def serves_version_of(registry: Registry, path: str) -> bool:
    """Whether the group and version at the start of a path are served."""
    match path.strip("/").split("/"):
        case ["api", version, *_]:
            return bool(_of(registry, "", version))
        case ["apis", group, version, *_]:
            return bool(_of(registry, group, version))
    return False


def document(registry: Registry, path: str) -> Object | None:
    """Return the discovery document at a path; None when there is none."""
    found: Object | None = None
    match path.strip("/").split("/"):
        case ["version"]:
            found = VERSION
        case ["api"]:
            found = {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(registry)}
        case ["apis", group]:
            entry = next((e for e in _groups(registry) if e["name"] == group), None)
            found = entry and {"kind": "APIGroup", "apiVersion": "v1"} | entry
        case ["api", version]:
            found = _resource_list(registry, "", version)
        case ["apis", group, version]:
            found = _resource_list(registry, group, version)
        case ["openapi", "v3"]:
            found = _open_api_index(registry)
        case ["openapi", "v3", "api", version]:
            found = _open_api(_of(registry, "", version))
        case ["openapi", "v3", "apis", group, version]:
            found = _open_api(_of(registry, group, version))
    return found


def _of(registry: Registry, group: str, version: str) -> list[Resource]:
    return [resource for resource in registry if (resource.group, resource.version) == (group, version)]


def _groups(registry: Registry) -> list[Object]:
    pairs = sorted({(resource.group, resource.version) for resource in registry if resource.group})
    groups = []
    for group, members in groupby(pairs, key=lambda pair: pair[0]):
        versions = [{"groupVersion": f"{group}/{version}", "version": version} for _, version in members]
        groups.append({"name": group, "versions": versions, "preferredVersion": versions[-1]})
    return groups


def _resource_list(registry: Registry, group: str, version: str) -> Object | None:
    resources = _of(registry, group, version)
    entries = [entry for resource in resources for entry in _entries(resource)]
    return (
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": resources[0].api_version,
            "resources": entries,
        }
        if resources
        else None
    )


def _entries(resource: Resource) -> Iterable[Object]:
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    yield entry
    for name in resource.subresources:
        kind, group, verbs = _SUBRESOURCE_KINDS.get(name, (resource.kind, "", _STATUS_VERBS))
        other = {"group": group, "version": "v1"} if group else {}
        yield {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind,
            "verbs": verbs,
            **other,
        }


def _open_api_index(registry: Registry) -> Object:
    paths = {}
    for api_version in sorted({resource.api_version for resource in registry}):
        where = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
        members = [resource.plural for resource in registry if resource.api_version == api_version]
        # kubectl caches by this hash.
        digest = hashlib.sha256(repr(sorted(members)).encode()).hexdigest()
        paths[where] = {"serverRelativeURL": f"/openapi/v3/{where}?hash={digest}"}
    return {"paths": paths}


def _open_api(resources: list[Resource]) -> Object | None:
    """Say only what kubectl looks up before a write: that PATCH takes `fieldValidation`, so the server validates."""
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    paths = {}
    for resource in resources:
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        operation = {"parameters": parameters, "x-kubernetes-group-version-kind": kind, "responses": {}}
        prefix = "/apis" if resource.group else "/api"
        paths[f"{prefix}/{resource.api_version}/{resource.plural}/{{name}}"] = {"patch": operation}
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths} if resources else None
