"""The demo's Azure: a scale set, two identities, and ARM, Entra and IMDS on real sockets of the lab's base."""

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

from podidentity.emulator.azure.arm import Arm
from podidentity.emulator.azure.entra import Entra
from podidentity.emulator.azure.imds import Imds
from podidentity.emulator.azure.machines import OperationSettings
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.demo.screen import StepFailed
from podidentity.emulator.lab.network import GATEWAY, METADATA_ADDRESS
from podidentity.emulator.serving import serve
from podidentity.emulator.tls import CertificateAuthority

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
_GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/demo/providers"
SCALE_SET = f"{_GROUP}/Microsoft.Compute/virtualMachineScaleSets/pool"
READER = f"{_GROUP}/Microsoft.ManagedIdentity/userAssignedIdentities/reader"
MONITORING = f"{_GROUP}/Microsoft.ManagedIdentity/userAssignedIdentities/monitoring"
"""On the scale set from the start, put there by somebody else: it must be there in the end."""
CLIENT_ID = "11111111-1111-1111-1111-111111111111"
_CONTROLLER_ID, _CONTROLLER_SECRET = "22222222-2222-2222-2222-222222222222", "a-secret-of-the-demo"
_ARM_PORT, _ENTRA_PORT = 8443, 8444
_POLL = 0.05
"""Seconds; what is waited for shows within that."""
_VIRTUAL_NETWORK = ip_network("10.240.0.0/12")
"""Where the node and its pods are: whoever asks IMDS from there is on the scale set."""


class DemoAzure:
    """Runs for the length of the stack it is started on."""

    def __init__(self, folder: Path, ca: CertificateAuthority, *, operation_seconds: float) -> None:
        self._folder = folder
        self._ca = ca
        self.state = AzureState()
        settings = OperationSettings(scale_set_seconds=(operation_seconds, operation_seconds))
        self.state.machines.settings = settings
        self.state.add_identity(READER, client_id=CLIENT_ID)
        self.state.add_identity(MONITORING)
        self.state.add_service_principal(_CONTROLLER_ID, secret=_CONTROLLER_SECRET)
        self.scale_set = self.state.add_scale_set(SCALE_SET, users=[MONITORING])

    async def start(self, stack: AsyncExitStack) -> None:
        """Serve ARM and Entra with TLS, and IMDS as the machines see it."""
        host = str(GATEWAY)
        certificate = self._ca.issue(self._folder, host)
        for app, address, port, tls in (
            (Arm(self.state), host, _ARM_PORT, certificate),
            (Entra(self.state), host, _ENTRA_PORT, certificate),
            (Imds(self.state, _machine_of), str(METADATA_ADDRESS), 80, None),
        ):
            opened = socket.create_server((address, port))
            await stack.enter_async_context(serve(app, sockets=[opened], tls=tls))

    def write_config(self) -> tuple[Path, Path]:
        """Write azure.json and the file of the custom cloud, as an operator would; return their paths."""
        azure = self._folder / "azure.json"
        azure.write_text(
            json.dumps(
                {
                    "cloud": "AzureStackCloud",
                    "tenantId": self.state.tenant_id,
                    "subscriptionId": SUBSCRIPTION,
                    "resourceGroup": "demo",
                    "vmType": "vmss",
                    "aadClientId": _CONTROLLER_ID,
                    "aadClientSecret": _CONTROLLER_SECRET,
                    "useManagedIdentityExtension": False,
                },
                indent=2,
            )
        )
        cloud = self._folder / "cloud.json"
        cloud.write_text(
            json.dumps(
                {
                    "name": "AzureStackCloud",
                    "resourceManagerEndpoint": f"https://{GATEWAY}:{_ARM_PORT}/",
                    "activeDirectoryEndpoint": f"https://{GATEWAY}:{_ENTRA_PORT}/",
                    "serviceManagementEndpoint": "https://management.core.windows.net/",
                },
                indent=2,
            )
        )
        return azure, cloud

    async def wait_for_assigned(self, *names: str, seconds: float) -> None:
        """Wait until exactly these identities are on the scale set."""
        deadline = time.monotonic() + seconds
        while self.assigned != sorted(names):
            if time.monotonic() > deadline:
                raise StepFailed(f"on the scale set are {self.assigned} after {seconds:.0f} s")
            await asyncio.sleep(_POLL)

    @property
    def assigned(self) -> list[str]:
        """The names of the identities that are in effect on the scale set."""
        return sorted(identity.rsplit("/", 1)[-1] for identity in self.scale_set.effective.users)


def _machine_of(client: str) -> str | None:
    return SCALE_SET if ip_address(client) in _VIRTUAL_NETWORK else None
