import time

import aiohttp
import pytest
from starlette.responses import Response

from podidentity.azure.clouds import Cloud
from podidentity.azure.config import AzureConfig
from podidentity.azure.credentials import (
    ManagedIdentityCredential,
    ServicePrincipalCredential,
    authority,
    scope,
)
from podidentity.azure.errors import CredentialError
from podidentity.azure.imds import ImdsClient
from podidentity.emulator.azure.identity_block import IdentityBlock

SECRET = "s3cr3t-of-the-test"
SCOPE = scope("https://management.azure.com/")


@pytest.fixture
def application(tenant):
    return tenant.state.add_service_principal("controller", secret=SECRET)


@pytest.fixture
async def credential_of(tenant):
    made = []

    def make(**changes):
        settings = {"tenant_id": tenant.state.tenant_id, "client_id": "controller", "client_secret": SECRET}
        credential = ServicePrincipalCredential(
            AzureConfig(**{"cloud": tenant.cloud, **settings, **changes}), clock=time.time
        )
        made.append(credential)
        return credential

    yield make
    for credential in made:
        await credential.close()


async def test_a_service_principal_gets_a_token_for_the_audience_of_arm(tenant, application, credential_of):
    token = await credential_of().get_token(SCOPE)
    claims = tenant.state.tokens.verify(token.token)
    assert claims["aud"] == "https://management.azure.com/"
    assert claims["appid"] == "controller"
    assert token.expires_on == pytest.approx(claims["exp"], abs=2)


async def test_a_second_token_comes_from_the_cache(tenant, application, credential_of):
    credential = credential_of()
    first, second = [await credential.get_token(SCOPE) for _ in range(2)]
    assert first.token == second.token
    assert len([request for request in tenant.entra.log if request.method == "POST"]) == 1


async def test_a_wrong_secret_is_refused_in_the_words_of_entra_without_the_secret(application, credential_of):
    with pytest.raises(CredentialError, match=r"service principal controller: AADSTS7000215") as raised:
        await credential_of(client_secret="wr0ng").get_token(SCOPE)
    assert "wr0ng" not in str(raised.value)


async def test_an_unknown_tenant_is_refused_in_words(application, credential_of):
    with pytest.raises(CredentialError, match="no token"):
        await credential_of(tenant_id="99999999-2222-4333-8444-555555555555").get_token(SCOPE)


async def test_a_host_that_is_not_there_is_named(tenant, credential_of):
    nowhere = Cloud(
        name="x", resource_manager="https://x", active_directory="https://127.0.0.1:1", audience="https://x/"
    )
    with pytest.raises(CredentialError, match=r"Entra at https://127\.0\.0\.1:1 gives no token"):
        await credential_of(cloud=nowhere).get_token(SCOPE)


async def test_a_failure_is_forgotten_when_entra_is_back(tenant, application, credential_of):
    tenant.entra.faults.add(Response("<html>oops", status_code=503), times=1)
    credential = credential_of()
    with pytest.raises(CredentialError):
        await credential.get_token(SCOPE)
    assert (await credential.get_token(SCOPE)).token


async def test_the_managed_identity_of_the_node_gets_a_token_through_imds(tenant):
    identity = tenant.identities[0]
    tenant.state.machines.set_identity(tenant.vm, IdentityBlock.of([identity.resource_id]))
    async with aiohttp.ClientSession(trust_env=False) as session:
        credential = ManagedIdentityCredential(ImdsClient(session, tenant.imds_url), identity.client_id)
        token = await credential.get_token(SCOPE)
    claims = tenant.state.tokens.verify(token.token)
    assert (claims["aud"], claims["appid"]) == ("https://management.azure.com/", identity.client_id)
    assert token.expires_on == claims["exp"]


async def test_a_refusal_of_imds_is_told_in_words(tenant):
    async with aiohttp.ClientSession(trust_env=False) as session:
        credential = ManagedIdentityCredential(ImdsClient(session, tenant.imds_url), "nobody")
        with pytest.raises(CredentialError, match=r"IMDS gives the controller no token: 400 .*Identity not found"):
            await credential.get_token(SCOPE)


def test_adfs_has_no_tenant_in_its_authority():
    def cloud(host):
        return Cloud(name="x", resource_manager="https://x", active_directory=host, audience="https://x/")

    assert authority(AzureConfig(cloud=cloud("https://adfs.local/adfs"), tenant_id="t")) == "https://adfs.local/adfs"
    assert authority(AzureConfig(cloud=cloud("https://login.local"), tenant_id="t")) == "https://login.local/t"
