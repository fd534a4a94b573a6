"""The clouds of Azure and their endpoints; sovereign ones, and any other through a file.

Source: go-autorest's `azure.Environment`, whose names and JSON file (`AZURE_ENVIRONMENT_FILEPATH`) upstream took.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from podidentity.api.errors import ConfigurationError

STACK = "AzureStackCloud"
ENVIRONMENT_FILE = "AZURE_ENVIRONMENT_FILEPATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Where a cloud's services are; URLs without a slash at the end."""

    name: str
    resource_manager: str
    active_directory: str
    audience: str
    """The resource of a token for ARM, exactly as Entra knows it (a slash at its end counts)."""
    compute_api: str = "2022-03-01"
    """api-version of Microsoft.Compute: old enough for every region of these clouds."""


CLOUDS = {
    cloud.name.lower(): cloud
    for cloud in (
        Cloud(
            name="AzurePublicCloud",
            resource_manager="https://management.azure.com",
            active_directory="https://login.microsoftonline.com",
            audience="https://management.azure.com/",
        ),
        Cloud(
            name="AzureUSGovernmentCloud",
            resource_manager="https://management.usgovcloudapi.net",
            active_directory="https://login.microsoftonline.us",
            audience="https://management.usgovcloudapi.net/",
        ),
        Cloud(
            name="AzureChinaCloud",
            resource_manager="https://management.chinacloudapi.cn",
            active_directory="https://login.chinacloudapi.cn",
            audience="https://management.chinacloudapi.cn/",
        ),
        Cloud(
            name="AzureGermanCloud",
            resource_manager="https://management.microsoftazure.de",
            active_directory="https://login.microsoftonline.de",
            audience="https://management.microsoftazure.de/",
        ),
    )
}


class _EnvironmentFile(msgspec.Struct, frozen=True, rename="camel"):
    """The fields used here; the file has many more."""

    name: str = STACK
    resource_manager_endpoint: str = ""
    active_directory_endpoint: str = ""
    service_management_endpoint: str = ""
    token_audience: str = ""


_ALIASES = {"azurecloud": "azurepubliccloud", "azureusgovernment": "azureusgovernmentcloud", "": "azurepubliccloud"}
"""go-autorest takes these names as well."""


def find_cloud(name: str, environment_file: str) -> Cloud:
    """Return the cloud of that name (empty: the public one); AzureStackCloud is read from the file."""
    folded = name.lower()
    if folded == STACK.lower():
        return _from_file(environment_file)
    try:
        return CLOUDS[_ALIASES.get(folded, folded)]
    except KeyError:
        known = ", ".join([*(cloud.name for cloud in CLOUDS.values()), STACK])
        raise ConfigurationError(f"the cloud {name!r} is not known; known are {known}") from None


def _from_file(path: str) -> Cloud:
    if not path:
        raise ConfigurationError(f"the cloud is {STACK}, but {ENVIRONMENT_FILE} names no file with its endpoints")
    try:
        written = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
        # Go's decoder, for which these files are made, takes null for an empty text.
        file = msgspec.convert({k: v for k, v in written.items() if v is not None}, _EnvironmentFile)
    except OSError as error:
        raise ConfigurationError(f"{ENVIRONMENT_FILE}={path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{ENVIRONMENT_FILE}={path} is no environment file: {error}") from error
    return Cloud(
        name=file.name,
        resource_manager=_https(path, "resourceManagerEndpoint", file.resource_manager_endpoint),
        active_directory=_https(path, "activeDirectoryEndpoint", file.active_directory_endpoint),
        audience=file.token_audience or file.service_management_endpoint or file.resource_manager_endpoint,
        compute_api="2020-06-01",  # the newest that Azure Stack Hub serves
    )


def _https(path: str, field: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.netloc:
        raise ConfigurationError(
            f"{path}: {field} is {url!r}, but must be an https:// URL: tokens are never sent in the clear"
        )
    return url.rstrip("/")
