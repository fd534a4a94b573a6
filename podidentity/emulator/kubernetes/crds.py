"""From a CustomResourceDefinition to the resources that it serves."""

from podidentity.emulator.kubernetes.columns import custom_columns
from podidentity.emulator.kubernetes.errors import Object
from podidentity.emulator.kubernetes.resources import Resource


def resources_of(crd: Object) -> list[Resource]:
    """List one resource for each served version."""
    spec = crd["spec"]
    names = spec["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names["singular"],
            namespaced=spec.get("scope") == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=("status",) if "status" in (version.get("subresources") or {}) else (),
            columns=custom_columns(version.get("additionalPrinterColumns") or ()),
            has_generation=True,
            unconditional_update=False,
            schema=version["schema"]["openAPIV3Schema"],
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def accepted_status(crd: Object, now: str) -> Object:
    """Say that the names are accepted and the kind is served; the real server gets there within a second."""
    stored = [version["name"] for version in crd["spec"]["versions"] if version.get("storage")]
    return {
        "conditions": [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found", now),
            _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", now),
        ],
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": stored,
    }


def _condition(kind: str, reason: str, message: str, now: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
