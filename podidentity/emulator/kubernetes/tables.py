"""How objects are shown: as they are, as lists, or as a Table for `kubectl get`."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

from podidentity.emulator.kubernetes.errors import ApiError, Object
from podidentity.emulator.kubernetes.lists import Page
from podidentity.emulator.kubernetes.resources import Resource


class Form(Enum):
    """What the client accepts."""

    OBJECT = "object"
    TABLE = "table"


def accepted_form(accept: str) -> Form:
    """Choose the first form in an `Accept` header that this server speaks; it speaks no protobuf.

    Raises:
        ApiError: 406.

    """
    for entry in (accept or "*/*").split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        named = dict(part.split("=", 1) for part in parameters if "=" in part)
        if media not in ("application/json", "application/*", "*/*"):
            continue
        if "as" not in named:
            return Form.OBJECT
        if (named["as"], named.get("g"), named.get("v")) == ("Table", "meta.k8s.io", "v1"):
            return Form.TABLE
    raise ApiError(
        406, "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml", details={}
    )


def list_object(resource: Resource, page: Page) -> Object:
    """Make the list; the items of built-in kinds carry no kind and apiVersion, those of custom ones do."""
    items = page.items
    if not resource.is_custom:
        items = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": page.metadata,
        "items": items,
    }


def table(
    resource: Resource,
    objects: Sequence[Object],
    metadata: Object,
    now: datetime,
    *,
    include: str = "Metadata",
    headers: bool = True,
) -> Object:
    """Make a Table; `include` is the client's `includeObject`: `None`, `Metadata` or `Object`."""
    columns = resource.columns
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [column.definition for column in columns] if headers else None,
        "rows": [
            {"cells": [column.cell(obj, now) for column in columns], "object": _row_object(obj, include)}
            for obj in objects
        ],
    }


def _row_object(obj: Object, include: str) -> Object | None:
    if include == "Object":
        return obj
    if include == "None":
        return None
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
