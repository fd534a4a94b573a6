"""One tenant with a VM, a scale set and two identities, served on loopback sockets."""

import random
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity.emulator.azure.arm import Arm, ArmSettings
from podidentity.emulator.azure.entra import Entra
from podidentity.emulator.azure.imds import Imds
from podidentity.emulator.azure.machines import OperationSettings
from podidentity.emulator.azure.resource_ids import scale_set_id, user_identity_id, virtual_machine_id
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.serving import serve
from podidentity.emulator.tls import CertificateAuthority

_SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"


@dataclass(frozen=True)
class Names:
    """What is where in the tenant."""

    subscription: str = _SUBSCRIPTION
    group: str = "rg-nodes"
    vm: str = virtual_machine_id(_SUBSCRIPTION, "rg-nodes", "vm-0")
    scale_set: str = scale_set_id(_SUBSCRIPTION, "rg-nodes", "pool")
    one: str = user_identity_id(_SUBSCRIPTION, "rg-ids", "one")
    two: str = user_identity_id(_SUBSCRIPTION, "rg-ids", "two")
    management: str = "https://management.azure.com"


class SettableClock:
    """Wall-clock time that runs on, and can be put forward."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@dataclass
class Served:
    """Base URLs of the services, and the file with the CA that the TLS ones need."""

    arm: str
    entra: str
    imds: str
    ca: str


@pytest.fixture(scope="session")
def signing_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = CertificateAuthority()
    (folder / "ca.pem").write_bytes(authority.pem)
    return authority, folder / "ca.pem", authority.issue(folder, "127.0.0.1")


@pytest.fixture(scope="session")
def names():
    return Names()


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def state(clock, signing_key, names):
    state = AzureState(clock=clock, rng=random.Random(7), signing_key=signing_key)
    state.machines.settings = OperationSettings(vm_seconds=(0.02, 0.02), scale_set_seconds=(0.02, 0.02))
    state.add_identity(names.one)
    state.add_identity(names.two)
    state.add_virtual_machine(names.vm)
    state.add_scale_set(names.scale_set)
    return state


@pytest.fixture
def call():
    """Call an application as a simulation does: no socket, no raw path, no peer, the body in two pieces."""

    async def call(app, method, url, *, body=b"", headers=()):
        path, _, query = url.partition("?")
        pieces = iter([(body[:1], True), (body[1:], False)])
        sent = []
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"metadata", b"true"), *headers],
        }

        async def receive():
            piece, more = next(pieces)
            return {"type": "http.request", "body": piece, "more_body": more}

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    return call


@pytest.fixture
def arm(state):
    return Arm(state, ArmSettings(retry_after=0))


@pytest.fixture
def entra(state):
    return Entra(state)


@pytest.fixture
def imds(state, names):
    return Imds(state, lambda address: names.vm if address == "127.0.0.1" else None)


@pytest.fixture
async def served(arm, entra, imds, authority):
    _, ca_file, certificate = authority
    urls: list[str] = []
    async with AsyncExitStack() as stack:
        for app, tls in ((arm, certificate), (entra, certificate), (imds, None)):
            listener = socket.create_server(("127.0.0.1", 0))
            urls.append(f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}")
            await stack.enter_async_context(serve(app, sockets=[listener], tls=tls))
        arm_url, entra_url, imds_url = urls
        yield Served(arm=arm_url, entra=entra_url, imds=imds_url, ca=str(ca_file))
