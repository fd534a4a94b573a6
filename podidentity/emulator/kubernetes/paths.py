"""From a URL path to what it names: resource, namespace, name, subresource."""

from podidentity.emulator.kubernetes.resources import Registry, Target

_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


def target_of(registry: Registry, path: str) -> Target | None:
    """Resolve `/api/v1/namespaces/a/pods/b/status` and its relatives; None when nothing is served there."""
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            return None
    namespace, (plural, name, subresource) = _split(rest, core=not group)
    resource = registry.find(group, version, plural)
    if resource is None:
        return None
    misplaced = resource.namespaced is (namespace is None) and (name is not None or namespace is not None)
    if misplaced or (subresource and subresource not in resource.subresources):
        return None
    return Target(resource, namespace, name, subresource)


def _split(rest: list[str], *, core: bool) -> tuple[str | None, tuple[str, str | None, str | None]]:
    """Split what follows the version; `namespaces/a/status` is a subresource, `namespaces/a/pods` a collection."""
    match rest:
        case ["namespaces", namespace, plural, *others] if not (core and plural in _NAMESPACE_SUBRESOURCES):
            return namespace, _split([plural, *others], core=False)[1]
        case [plural]:
            return None, (plural, None, None)
        case [plural, name]:
            return None, (plural, name, None)
        case [plural, name, subresource]:
            return None, (plural, name, subresource)
    return None, ("", None, None)
