"""One tenant with a VM, a scale set and three identities, served on loopback sockets with TLS where Azure has it."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.types import ASGIApp

from podidentity.azure.clouds import Cloud
from podidentity.emulator.azure.arm import Arm, ArmSettings
from podidentity.emulator.azure.entra import Entra
from podidentity.emulator.azure.imds import Imds
from podidentity.emulator.azure.machines import Machine, OperationSettings
from podidentity.emulator.azure.resource_ids import scale_set_id, user_identity_id, virtual_machine_id
from podidentity.emulator.azure.state import AzureState, UserIdentity
from podidentity.emulator.serving import serve
from podidentity.emulator.tls import Certificate, CertificateAuthority

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
VM = virtual_machine_id(SUBSCRIPTION, "rg-nodes", "vm-0")
SCALE_SET = scale_set_id(SUBSCRIPTION, "rg-nodes", "pool")
ONE, TWO, THREE = (user_identity_id(SUBSCRIPTION, "rg-ids", name) for name in ("one", "Two", "three"))
QUICK = (0.02, 0.02)


@dataclass(frozen=True)
class Tenant:
    """The stand-ins, and where they are served."""

    state: AzureState
    arm: Arm
    entra: Entra
    imds: Imds
    cloud: Cloud
    imds_url: str

    @property
    def identities(self) -> list[UserIdentity]:
        return [found for it in (ONE, TWO, THREE) if (found := self.state.identity(it))]

    @property
    def vm(self) -> Machine:
        return self.machine(VM)

    @property
    def scale_set(self) -> Machine:
        return self.machine(SCALE_SET)

    def machine(self, resource_id: str) -> Machine:
        machine = self.state.machines.get(resource_id)
        assert machine is not None
        return machine

    def calls(self, method: str) -> list[Any]:
        return [request for request in self.arm.log if request.method == method]


@pytest.fixture(scope="session")
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Trust:
    ca: Path
    certificate: Certificate


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return make_authority(tmp_path_factory.mktemp("other-tls"))


def make_authority(folder: Path) -> Trust:
    authority = CertificateAuthority()
    (folder / "ca.pem").write_bytes(authority.pem)
    return Trust(folder / "ca.pem", authority.issue(folder, "127.0.0.1"))


@pytest.fixture
def trusting(authority: Trust, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))


@pytest.fixture
async def tenant(authority: Trust, signing_key: rsa.RSAPrivateKey, trusting: None) -> AsyncIterator[Tenant]:
    state = AzureState(rng=random.Random(7), signing_key=signing_key)
    state.machines.settings = OperationSettings(vm_seconds=QUICK, scale_set_seconds=QUICK)
    for identity in (ONE, TWO, THREE):
        state.add_identity(identity)
    state.add_virtual_machine(VM)
    state.add_scale_set(SCALE_SET)
    arm, entra, imds = Arm(state, ArmSettings()), Entra(state), Imds(state, lambda _address: VM)
    async with AsyncExitStack() as stack:

        async def served(app: ASGIApp, tls: Certificate | None) -> str:
            listener = socket.create_server(("127.0.0.1", 0))
            await stack.enter_async_context(serve(app, sockets=[listener], tls=tls))
            return f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"

        cloud = Cloud(
            name="stand-in",
            resource_manager=await served(arm, authority.certificate),
            active_directory=await served(entra, authority.certificate),
            audience="https://management.azure.com/",
        )
        yield Tenant(state, arm, entra, imds, cloud, await served(imds, None))
