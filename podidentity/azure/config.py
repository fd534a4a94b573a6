"""The controller's view of Azure, as upstream: the cloud provider's azure.json, or environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from podidentity.api.errors import ConfigurationError
from podidentity.azure.clouds import ENVIRONMENT_FILE, Cloud, find_cloud

_PLACEHOLDER = "msi"
"""AKS writes this as aadClientId when the cluster has a managed identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureConfig:
    """Which cloud, and who the controller is there."""

    cloud: Cloud
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    use_managed_identity: bool = False
    user_assigned_client_id: str = ""
    """The cluster's own identity (kubelet's): the controller may run as it, and never takes it off a machine."""


class _File(msgspec.Struct, frozen=True, rename="camel"):
    cloud: str = ""
    tenant_id: str = ""
    aad_client_id: str = ""
    aad_client_secret: str = ""
    use_managed_identity_extension: bool = False
    user_assigned_identity_id: str = msgspec.field(default="", name="userAssignedIdentityID")


def load(path: str, environment: Mapping[str, str]) -> AzureConfig:
    """Read azure.json (JSON or YAML) when a path is given, else the environment."""
    return _checked(_read(path) if path else _from_environment(environment), path or "environment", environment)


def _read(path: str) -> _File:
    try:
        parsed = _parsed(Path(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"--cloudconfig {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""  # the text itself may hold the secret
        raise ConfigurationError(f"--cloudconfig {path} is neither JSON nor YAML{place}") from None
    if not isinstance(parsed, dict):
        raise ConfigurationError(f"--cloudconfig {path} is no azure.json: it is no object")
    # Only these keys count; the cloud provider's file has dozens of others, of every type.
    known = {name: parsed[name] for name in _File.__struct_encode_fields__ if parsed.get(name) is not None}
    try:
        return msgspec.convert(known, _File, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"--cloudconfig {path} is no azure.json: {error}") from None


def _parsed(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)  # first: JSON may be indented with tabs, which YAML forbids
    except (msgspec.DecodeError, UnicodeDecodeError):
        return yaml.safe_load(data)


def _from_environment(environment: Mapping[str, str]) -> _File:
    return _File(
        cloud=environment.get("CLOUD", ""),
        tenant_id=environment.get("TENANT_ID", ""),
        aad_client_id=environment.get("CLIENT_ID", ""),
        aad_client_secret=environment.get("CLIENT_SECRET", ""),
        use_managed_identity_extension=environment.get("USE_MSI", "").lower() in {"true", "1", "t"},
        user_assigned_identity_id=environment.get("USER_ASSIGNED_MSI_CLIENT_ID", ""),
    )


def _checked(file: _File, source: str, environment: Mapping[str, str]) -> AzureConfig:
    config = AzureConfig(
        cloud=find_cloud(file.cloud, environment.get(ENVIRONMENT_FILE, "")),
        tenant_id=file.tenant_id,
        client_id=file.aad_client_id,
        client_secret=file.aad_client_secret,
        use_managed_identity=file.use_managed_identity_extension,
        user_assigned_client_id=file.user_assigned_identity_id,
    )
    if config.use_managed_identity:
        return config
    needed = {
        "tenantId (TENANT_ID)": config.tenant_id,
        "aadClientId (CLIENT_ID)": "" if config.client_id == _PLACEHOLDER else config.client_id,
        "aadClientSecret (CLIENT_SECRET)": config.client_secret,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise ConfigurationError(
            f"no credential for Azure in {source}: {', '.join(missing)} missing; "
            "or set useManagedIdentityExtension (USE_MSI) to true"
        )
    return config
