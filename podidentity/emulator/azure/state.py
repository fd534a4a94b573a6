"""The emulated Azure: one tenant with its principals, identities and machines, in memory.

Everything that a service answers comes from here; the services (ARM, Entra, IMDS) add wire formats, latencies and
faults. Wall-clock time and randomness are injected, delays run on the event loop: a simulation owns all three.
"""

import random
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity.emulator.azure.identity_block import IdentityBlock
from podidentity.emulator.azure.machines import Kind, Machine, Machines
from podidentity.emulator.azure.resource_ids import group_of, key, owner_of
from podidentity.emulator.azure.tokens import Principal, TokenIssuer

_RESOURCE = re.compile(r"[a-z][a-z0-9+.-]*:.+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""What Entra takes for the name of a resource: an URI or an application's GUID."""


@dataclass(kw_only=True)
class UserIdentity:
    """A user-assigned managed identity."""

    resource_id: str
    client_id: str
    principal_id: str
    tenant_id: str
    location: str
    assignable: bool = True
    """False: whoever assigns it lacks the role on it (`LinkedAuthorizationFailed`). Tests may change it."""

    @property
    def name(self) -> str:
        """Last segment of the resource ID."""
        return self.resource_id.rsplit("/", 1)[-1]

    @property
    def principal(self) -> Principal:
        """Whom its tokens speak for."""
        return Principal(client_id=self.client_id, object_id=self.principal_id, resource_id=self.resource_id)


@dataclass(kw_only=True)
class ServicePrincipal:
    """An application that logs in with a secret or a certificate. Tests may rotate either."""

    client_id: str
    object_id: str
    tenants: frozenset[str]
    """Tenants in which it exists: more than one for a multi-tenant application."""
    secret: str | None = None
    certificates: tuple[bytes, ...] = ()
    """PEM certificates whose keys may sign a client assertion."""

    @property
    def principal(self) -> Principal:
        """Whom its tokens speak for."""
        return Principal(client_id=self.client_id, object_id=self.object_id)


class AzureState:
    """One tenant and what is in it. Lookups ignore case, as Azure's do."""

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        signing_key: rsa.RSAPrivateKey | None = None,
    ) -> None:
        self.clock = clock
        self.rng = rng or random.Random()
        self.tenant_id = tenant_id or self.new_id()
        self.tokens = TokenIssuer(clock=clock, rng=self.rng, signing_key=signing_key)
        self.machines = Machines(clock=clock, rng=self.rng, new_id=self.new_id)
        self.unregistered_resources: set[str] = set()
        """Resources (audiences) that the tenant does not know, spelt as they are asked for."""
        self._identities: dict[str, UserIdentity] = {}
        self._service_principals: dict[str, ServicePrincipal] = {}
        self._groups: set[str] = set()

    def new_id(self) -> str:
        """Return a fresh GUID from the injected random source."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def add_identity(
        self,
        resource_id: str,
        *,
        client_id: str | None = None,
        principal_id: str | None = None,
        location: str = "westeurope",
        assignable: bool = True,
    ) -> UserIdentity:
        """Create a user-assigned identity; IDs that are not given are made up."""
        identity = UserIdentity(
            resource_id=resource_id,
            client_id=client_id or self.new_id(),
            principal_id=principal_id or self.new_id(),
            tenant_id=self.tenant_id,
            location=location,
            assignable=assignable,
        )
        self._identities[key(resource_id)] = identity
        self._groups.add(group_of(resource_id))
        return identity

    def add_service_principal(
        self,
        client_id: str | None = None,
        *,
        secret: str | None = None,
        certificates: Iterable[bytes] = (),
        tenants: Iterable[str] = (),
    ) -> ServicePrincipal:
        """Create an application in this tenant and in the further `tenants`."""
        application = ServicePrincipal(
            client_id=client_id or self.new_id(),
            object_id=self.new_id(),
            tenants=frozenset({self.tenant_id, *tenants}),
            secret=secret,
            certificates=tuple(certificates),
        )
        self._service_principals[application.client_id.lower()] = application
        return application

    def add_virtual_machine(
        self, resource_id: str, *, users: Iterable[str] = (), system: bool = False, location: str = "westeurope"
    ) -> Machine:
        """Create a VM that has the user-assigned identities `users` (resource IDs) already."""
        return self._add_machine(resource_id, "virtualMachines", location, IdentityBlock.of(users, system=system))

    def add_scale_set(
        self, resource_id: str, *, users: Iterable[str] = (), system: bool = False, location: str = "westeurope"
    ) -> Machine:
        """Create a scale set that has the user-assigned identities `users` (resource IDs) already."""
        block = IdentityBlock.of(users, system=system)
        return self._add_machine(resource_id, "virtualMachineScaleSets", location, block)

    def remove_identity(self, resource_id: str) -> None:
        """Delete a user-assigned identity; machines keep showing it. Raises KeyError where there is none."""
        del self._identities[key(resource_id)]

    def identity(self, resource_id: str) -> UserIdentity | None:
        """Return the user-assigned identity with this resource ID."""
        return self._identities.get(key(resource_id))

    def service_principal(self, client_id: str) -> ServicePrincipal | None:
        """Return the application with this client ID."""
        return self._service_principals.get(client_id.lower())

    def tenants(self) -> frozenset[str]:
        """Return every tenant that exists: our own and those that an application was added to."""
        return frozenset({self.tenant_id}).union(*(app.tenants for app in self._service_principals.values()))

    def has_group(self, resource_id: str) -> bool:
        """Whether the resource group of a resource ID exists: one exists once something was created in it."""
        return group_of(resource_id) in self._groups

    def identity_owner(self, machine_id: str) -> Machine | None:
        """Return the machine whose identities `machine_id` has: for an instance, its scale set."""
        return self.machines.get(owner_of(machine_id))

    def principals_of(self, machine: Machine) -> list[Principal]:
        """Return the user-assigned identities that a machine may use now; deleted ones are skipped."""
        found = (self._identities.get(identity) for identity in machine.effective.users)
        return [identity.principal for identity in found if identity]

    def knows_resource(self, resource: str) -> bool:
        """Whether tokens for `resource` can be had: it looks like one and is not in `unregistered_resources`."""
        return bool(_RESOURCE.fullmatch(resource)) and resource not in self.unregistered_resources

    def _add_machine(self, resource_id: str, kind: Kind, location: str, identity: IdentityBlock) -> Machine:
        self._groups.add(group_of(resource_id))
        return self.machines.add(resource_id, kind=kind, location=location, identity=identity)
