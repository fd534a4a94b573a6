"""Identities of VMs and scale sets, through azure-mgmt-compute: read the set, change it, follow the operation.

Only the `identity` block is ever sent (a PATCH): upstream's full updates lost other settings of the machines.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import aiohttp
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError as SdkError
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import policies
from azure.core.pipeline.transport import AioHttpTransport
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from podidentity import __version__
from podidentity.api.ids import Target, TargetKind
from podidentity.azure.clouds import Cloud
from podidentity.azure.credentials import scope
from podidentity.azure.errors import ArmError, ArmUnreachable, AzureError, TargetGone
from podidentity.azure.operations import PromptPolling, retry_after
from podidentity.azure.trust import tls_context

_READ_SECONDS = 30.0
"""For one GET; ARM answers in a fraction of a second."""
_OPERATION_SECONDS = 20 * 60.0
"""For a whole update: a minute as a rule; users saw 16. After this the target is read afresh and tried again."""
_CONNECTIONS = 32
"""At once to ARM, for all targets together."""
_DELETING, _SETTLED = "deleting", "succeeded"
_GONE = {"ResourceNotFound", "ResourceGroupNotFound"}
"""Codes of a 404 that are about the machine. Others mean that we ask wrongly, or may not see the subscription."""


@dataclass(frozen=True, slots=True)
class IdentitySet:
    """The identity block of a VM or scale set."""

    kind: str
    """ARM's `type`: None, SystemAssigned, UserAssigned, or both joined by a comma."""
    client_ids: Mapping[str, str]
    """Client ID by resource ID of each user-assigned identity, in lower case. Empty client ID: Azure has lost it."""
    deleting: bool = False
    """The machine is on its way out: leave it alone."""
    settled: bool = True
    """Its last change succeeded. While one runs, and after one failed, ARM shows what is not in effect."""

    @property
    def user_assigned(self) -> frozenset[str]:
        """The resource IDs."""
        return frozenset(self.client_ids)

    def without(self, identities: Collection[str]) -> "IdentitySet":
        """Return the set less some identities."""
        left = {it: client for it, client in self.client_ids.items() if it not in identities}
        return replace(self, client_ids=left)

    def changed(self, *, add: Iterable[str], remove: Collection[str]) -> "IdentitySet":
        """Return the set after a change that succeeded; client IDs of additions are not known."""
        left = self.without(remove).client_ids
        return replace(self, client_ids=dict.fromkeys(add, "") | dict(left), settled=True)


class Compute:
    """ARM for VMs and scale sets, of all subscriptions that nodes live in. Raises AzureError only."""

    def __init__(self, cloud: Cloud, credential: AsyncTokenCredential, transport: Any) -> None:
        self._cloud = cloud
        self._credential = credential
        self._transport = transport
        self._clients: dict[str, ComputeManagementClient] = {}

    async def log_in(self) -> None:
        """Get the first token now: the first pod then need not wait for it, and what is wrong is said at the start.

        Raises CredentialError.
        """
        await self._credential.get_token(scope(self._cloud.audience))

    async def read(self, target: Target) -> IdentitySet:
        """Return what is on the target now."""
        operations = self._operations(target)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                machine = await operations.get(target.resource_group, target.name, params=self._version)
        except (SdkError, TimeoutError, OSError) as error:
            raise _translated(error, target) from error
        return _identity_set(machine)

    async def update(
        self, target: Target, now: IdentitySet, *, add: Collection[str], remove: Collection[str]
    ) -> None:
        """Change the identity block and wait until Azure has done it."""
        body = {"identity": identity_block(now, add=add, remove=remove)}
        try:
            async with asyncio.timeout(_OPERATION_SECONDS):
                poller = await self._operations(target).begin_update(
                    target.resource_group,
                    target.name,
                    body,
                    params=self._version,
                    polling=PromptPolling(self._cloud.resource_manager),
                    cls=lambda *_: None,
                )
                await poller.result()
        except (SdkError, TimeoutError, OSError) as error:
            raise _translated(error, target) from error

    async def close(self) -> None:
        """Close the connections of all clients."""
        await self._transport.close()

    def _operations(self, target: Target) -> Any:
        client = self._clients.get(target.subscription)
        if client is None:
            client = self._clients[target.subscription] = self._client(target.subscription)
        if target.kind is TargetKind.VM:
            return client.virtual_machines
        return client.virtual_machine_scale_sets

    @property
    def _version(self) -> dict[str, str]:
        """The query parameter, for each call: what the SDK's client is given as `api_version` it does not use."""
        return {"api-version": self._cloud.compute_api}

    def _client(self, subscription: str) -> ComputeManagementClient:
        audience = scope(self._cloud.audience)
        return ComputeManagementClient(
            self._credential,
            subscription,
            base_url=self._cloud.resource_manager,
            credential_scopes=[audience],
            transport=self._transport,
            # The SDK's own list would retry a 429 in silence and register resource providers for minutes: here the
            # worker of the target decides, and nobody gives the controller the right to register anything.
            policies=[
                policies.RequestIdPolicy(),
                policies.UserAgentPolicy(base_user_agent=f"podidentity/{__version__}"),
                policies.ContentDecodePolicy(),
                AsyncARMChallengeAuthenticationPolicy(self._credential, audience),
            ],
        )


def shared_transport() -> AioHttpTransport:
    """Return one pool of connections for all clients, with the environment's proxies and CAs."""
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=tls_context())
    session = aiohttp.ClientSession(connector=connector, trust_env=True, auto_decompress=False)
    return AioHttpTransport(session=session, session_owner=True)


def identity_block(now: IdentitySet, *, add: Iterable[str], remove: Iterable[str]) -> dict[str, Any]:
    """Build the block of a PATCH: additions as `{}`, removals as null, the type by what will be there.

    Add wins over remove, and SystemAssigned is never lost.
    """
    added = {identity.lower() for identity in add}
    removed = {identity.lower() for identity in remove} - added
    system = "systemassigned" in now.kind.lower()
    if (now.user_assigned | added) - removed:
        changes: Mapping[str, Any] = {**dict.fromkeys(sorted(removed)), **{it: {} for it in sorted(added)}}
        return {
            "type": "SystemAssigned, UserAssigned" if system else "UserAssigned",
            "userAssignedIdentities": changes,
        }
    return {"type": "SystemAssigned" if system else "None"}


def _identity_set(machine: Any) -> IdentitySet:
    identity = machine.identity
    state = str(machine.properties.provisioning_state or "") if machine.properties else ""
    users = (identity.user_assigned_identities or {}) if identity else {}
    return IdentitySet(
        kind=_text(identity.type) if identity else "None",
        client_ids={name.lower(): (value.client_id or "").lower() if value else "" for name, value in users.items()},
        deleting=state.lower() == _DELETING,
        settled=state.lower() in {"", _SETTLED},
    )


def _text(value: Any) -> str:
    return str(getattr(value, "value", value) or "None")


def _translated(error: Exception, target: Target) -> AzureError:
    """Turn an error of the SDK, or of the credential under it, into ours."""
    if isinstance(error, TimeoutError):
        return ArmUnreachable(f"{target}: no answer in time")
    if not isinstance(error, HttpResponseError):
        return ArmUnreachable(f"{target}: {error}")
    code = error.error.code if error.error and error.error.code else ""
    message = error.error.message if error.error and error.error.message else error.message
    answered = error.status_code or 0
    status = answered if answered >= HTTPStatus.BAD_REQUEST else 0
    cls = TargetGone if status == HTTPStatus.NOT_FOUND and code in _GONE else ArmError
    return cls(status, str(code), f"{target}: {message}", retry_after(error.response))
