"""One request about one resource, from its verb to its answer."""

import dataclasses
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from podidentity.emulator.kubernetes import deletion, patches, tokens, writes
from podidentity.emulator.kubernetes.bodies import json_response, media_type, read_body
from podidentity.emulator.kubernetes.deletion import DeleteOptions
from podidentity.emulator.kubernetes.errors import ApiError, FieldError, Object, invalid, method_not_allowed
from podidentity.emulator.kubernetes.faults import Call
from podidentity.emulator.kubernetes.incoming import WriteOptions
from podidentity.emulator.kubernetes.lists import list_page, reached
from podidentity.emulator.kubernetes.options import ListOptions
from podidentity.emulator.kubernetes.resources import ACCESS_REVIEWS, Target
from podidentity.emulator.kubernetes.state import ClusterState
from podidentity.emulator.kubernetes.tables import Form, accepted_form, list_object, table
from podidentity.emulator.kubernetes.watch import Watch
from podidentity.emulator.kubernetes.writes import Written

_APPLY = "application/apply-patch+yaml"
_STRATEGIC = "application/strategic-merge-patch+json"
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": patches.json_patch,
    "application/merge-patch+json": patches.merge_patch,
    _STRATEGIC: patches.strategic_merge,
}


class Exchange:
    """One request about one target."""

    def __init__(self, state: ClusterState, request: Request, call: Call, target: Target) -> None:
        self._state = state
        self._request = request
        self._call = call
        self._target = target
        self._query = request.query_params

    async def answer(self) -> ASGIApp:
        """Do the work.

        Raises:
            ApiError: whatever the request fails with.

        """
        form = accepted_form(self._request.headers.get("accept", ""))
        target, method = self._target, self._request.method
        if target.subresource == "token":
            return await self._token()
        if target.name is None:
            return await self._on_collection(method, form)
        if method == "GET":
            return await self._get(form)
        if method == "PUT":
            body = await read_body(self._request, target.resource)
            return self._written(writes.replace(self._state, target, body, self._write_options()), form)
        if method == "PATCH":
            return self._written(await self._patch(), form)
        if method == "DELETE" and not target.subresource:
            return json_response(deletion.delete(self._state, target, await self._delete_options()))
        raise method_not_allowed()

    async def _on_collection(self, method: str, form: Form) -> ASGIApp:
        target, resource = self._target, self._target.resource
        misplaced = resource.namespaced and target.namespace is None
        if method == "POST" and not misplaced:
            body = await read_body(self._request, resource)
            if resource == ACCESS_REVIEWS:
                return json_response(tokens.review_access(body), 201)
            return self._written(writes.create(self._state, target, body, self._write_options()), form)
        if method == "GET" and "list" in resource.verbs:
            return await self._list_or_watch(form)
        if method == "DELETE" and not misplaced and "deletecollection" in resource.verbs:
            return await self._delete_collection()
        raise method_not_allowed()

    async def _get(self, form: Form) -> Response:
        asked = ListOptions.parse(self._target.resource, {"resourceVersion": self._query.get("resourceVersion", "")})
        await reached(self._state, asked.revision or 0)
        return self._shown(writes.read(self._state, self._target), form)

    async def _list_or_watch(self, form: Form) -> ASGIApp:
        options = ListOptions.parse(self._target.resource, self._query)
        if options.watch:
            if options.send_initial:
                await reached(self._state, options.revision or 0)
            return Watch(
                state=self._state,
                resource=self._target.resource,
                namespace=self._target.namespace,
                options=options,
                call=self._call,
                show=self._watch_form(form),
            )
        page = await list_page(self._state, self._target.resource, self._target.namespace, options)
        if form is Form.TABLE:
            return json_response(self._table(page.items, page.metadata))
        return json_response(list_object(self._target.resource, page))

    async def _delete_collection(self) -> Response:
        target, options = self._target, await self._delete_options()
        selection = ListOptions.parse(target.resource, self._query)
        page = await list_page(self._state, target.resource, target.namespace, selection)
        for item in page.items:
            deletion.delete(self._state, dataclasses.replace(target, name=item["metadata"]["name"]), options)
        return json_response(list_object(target.resource, page))

    async def _token(self) -> Response:
        if self._request.method != "POST":
            raise method_not_allowed()
        body = await read_body(self._request, self._target.resource)
        return json_response(tokens.request_token(self._state, self._target, body), 201)

    async def _patch(self) -> Written:
        if media_type(self._request) not in (*_PATCHES, _APPLY):
            raise ApiError(415, "415: Unsupported Media Type", details={})
        custom = self._target.resource.is_custom
        accepted = [media for media in (*_PATCHES, _APPLY) if not (custom and media == _STRATEGIC)]
        body = await read_body(self._request, self._target.resource, accepted)
        change = _PATCHES.get(media_type(self._request))
        if change is None:
            return self._apply(body)
        return writes.patch(self._state, self._target, lambda old: change(old, body), self._write_options())

    def _apply(self, body: Any) -> Written:
        """Server-side apply without field ownership: a merge, or a create when there is nothing yet."""
        if not self._query.get("fieldManager"):
            error = FieldError.required("fieldManager", "is required for apply patch")
            raise invalid("meta.k8s.io", "PatchOptions", "", [error])
        merge = patches.merge_patch if self._target.resource.is_custom else patches.strategic_merge
        options = self._write_options()
        if self._target.key not in self._state.collection(self._target.resource).objects:
            return writes.create(self._state, self._target, body, options)
        return writes.patch(self._state, self._target, lambda old: merge(old, body), options)

    def _write_options(self) -> WriteOptions:
        return WriteOptions(
            dry_run=self._query.get("dryRun") == "All",
            field_validation=self._query.get("fieldValidation") or "Warn",
        )

    async def _delete_options(self) -> DeleteOptions:
        sent = await read_body(self._request, self._target.resource) if await self._request.body() else {}
        wanted = sent.get("preconditions") or {}
        grace = self._query.get("gracePeriodSeconds", sent.get("gracePeriodSeconds"))
        return DeleteOptions(
            grace=None if grace is None else int(grace),
            uid=wanted.get("uid"),
            revision=wanted.get("resourceVersion"),
            dry_run="All" in (self._query.get("dryRun"), *(sent.get("dryRun") or ())),
        )

    def _written(self, written: Written, form: Form) -> Response:
        response = self._shown(written.obj, form, 201 if written.created else 200)
        for warning in written.warnings:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.append("Warning", f'299 - "{text}"')
        return response

    def _shown(self, obj: Object, form: Form, status: int = 200) -> Response:
        if form is Form.OBJECT:
            return json_response(obj, status)
        return json_response(
            self._table([obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")}), status
        )

    def _table(self, objects: list[Object], metadata: Object, *, headers: bool = True) -> Object:
        include = self._query.get("includeObject", "Metadata")
        return table(self._target.resource, objects, metadata, self._state.now(), include=include, headers=headers)

    def _watch_form(self, form: Form) -> Callable[[Object], Object]:
        if form is Form.OBJECT:
            return lambda obj: obj
        first = True

        def show(obj: Object) -> Object:
            nonlocal first
            headers, first = first, False
            metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return self._table([obj], metadata, headers=headers)

        return show
