"""Bodies in and out: JSON and YAML, refused where the real server refuses them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import yaml
from starlette.requests import Request
from starlette.responses import Response

from podidentity.emulator.kubernetes.errors import ApiError, Object, bad_request, unsupported_media
from podidentity.emulator.kubernetes.resources import Resource

OBJECT_TYPES = ("application/json", "application/yaml")
_SHOWN_BYTES = 80  # of a body that does not parse


async def read_body(request: Request, resource: Resource, accepted: Sequence[str] = OBJECT_TYPES) -> Any:
    """Read the body of a request about a resource.

    Raises:
        ApiError: 400 for text that does not parse, 415 for a media type that is not accepted.

    """
    media, data = media_type(request), await request.body()
    if media not in accepted:
        raise unsupported_media(accepted)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if media.endswith("yaml"):
            return _from_yaml(data)
        shown = data[:_SHOWN_BYTES].decode(errors="replace")
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            f"couldn't get version/kind; json parse error: {error} ({shown})"
        ) from error


def media_type(request: Request) -> str:
    """Return the media type of the body without parameters; JSON when the client names none."""
    return request.headers.get("content-type", "application/json").partition(";")[0].strip()


def json_response(content: Object, status: int = 200) -> Response:
    """Make a JSON answer."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def error_response(error: ApiError) -> Response:
    """Make the answer to a request that failed."""
    response = json_response(error.status, error.code)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


class _YamlLoader(yaml.SafeLoader):
    """YAML as JSON has it: a timestamp is a string."""


_YamlLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _from_yaml(data: bytes) -> Any:
    try:
        return yaml.load(data, _YamlLoader)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error
