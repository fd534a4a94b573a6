"""The documents that IMDS answers beside tokens: pure."""

from collections.abc import Mapping
from typing import Any

from podidentity.emulator.azure.machines import Machine


def instance(machine: Machine, instance_id: str) -> dict[str, Any]:
    """Return the document of `/metadata/instance`; `instance_id` is the VM's own resource ID."""
    segments = instance_id.split("/")
    scale_set = machine.name if machine.kind == "virtualMachineScaleSets" else ""
    return {
        "compute": {
            "azEnvironment": "AzurePublicCloud",
            "location": machine.location,
            "name": f"{scale_set}_{segments[-1]}" if scale_set else machine.name,
            "osType": "Linux",
            "provider": "Microsoft.Compute",
            "resourceGroupName": segments[4],
            "resourceId": instance_id,
            "subscriptionId": segments[2],
            "tags": "",
            "vmId": machine.unique_id,
            "vmScaleSetName": scale_set,
            "vmSize": "Standard_D2s_v5",
            "zone": "",
        },
        "network": {"interface": []},
    }


def descend(document: Mapping[str, Any], path: list[str]) -> Any:
    """Return the part of a document below `path`. Raises KeyError where there is none."""
    part: Any = document
    for segment in path:
        if not isinstance(part, Mapping):
            raise KeyError(segment)
        part = part[segment]
    return part


def platform_metadata(machine: Machine, tenant_id: str) -> dict[str, Any]:
    """Return what IMDSv2 tells a client that wants a credential of the VM's own identity."""
    return {
        "clientId": machine.system_principal.client_id,
        "tenantId": tenant_id,
        "cuId": {"vmId": machine.unique_id},
        "attestationEndpoint": "",
    }


def issued_credential(machine: Machine, tenant_id: str) -> dict[str, Any]:
    """Return an IMDSv2 credential of the VM's identity: made up, but a pod must never see one."""
    return {
        "client_id": machine.system_principal.client_id,
        "tenant_id": tenant_id,
        "certificate": "made-up-certificate-of-the-machine",
        "identity_type": machine.effective.type,
        "mtls_authentication_endpoint": "https://mtlsauth.microsoft.com",
    }
