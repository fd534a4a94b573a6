import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import jwt
import msal
import pytest
from azure.identity.aio import ClientSecretCredential
from azure.mgmt.compute.aio import ComputeManagementClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from podidentity.emulator.azure.entra import throttled
from podidentity.emulator.tls import trust_bundle, trust_environment

SCOPE = "https://management.azure.com/.default"


@pytest.fixture
def application(state):
    return state.add_service_principal(secret="s3cret")


@pytest.fixture
def connect(served, state, tmp_path, monkeypatch):
    """Build msal's client, which is synchronous and asks the network at once: tests call it in a thread."""
    # Where REQUESTS_CA_BUNDLE is set, it wins over msal's own `verify=`.
    bundle = trust_bundle(Path(served.ca).read_bytes(), tmp_path / "bundle.pem")
    for name, value in trust_environment(bundle).items():
        monkeypatch.setenv(name, value)

    def connect(client_id, credential, *, tenant=None, **kwargs):
        return msal.ConfidentialClientApplication(
            client_id,
            client_credential=credential,
            authority=f"{served.entra}/{tenant or state.tenant_id}",
            **{"instance_discovery": False, **kwargs},
        )

    return connect


@pytest.fixture
async def raw(served):
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=served.ca))
    async with aiohttp.ClientSession(served.entra, connector=connector) as session:
        yield session


def acquire(connect, client_id, credential, scope=SCOPE, **kwargs):
    return asyncio.to_thread(lambda: connect(client_id, credential, **kwargs).acquire_token_for_client([scope]))


async def test_msal_gets_a_token_for_a_secret(connect, application, state):
    result = await acquire(connect, application.client_id, "s3cret")
    claims = state.tokens.verify(result["access_token"])
    assert result["expires_in"] == 3599
    assert claims["aud"] == "https://management.azure.com"
    assert claims["appid"] == application.client_id
    assert claims["oid"] == claims["sub"] == application.object_id
    assert claims["tid"] == state.tenant_id
    assert claims["ver"] == "1.0"
    assert "xms_mirid" not in claims


async def test_a_doubled_slash_in_the_scope_keeps_the_slash_of_the_audience(connect, application, state):
    scope = "https://management.core.windows.net//.default"
    result = await acquire(connect, application.client_id, "s3cret", scope)
    assert state.tokens.verify(result["access_token"])["aud"] == "https://management.core.windows.net/"


async def test_the_published_keys_check_a_token(connect, application, raw, state):
    result = await acquire(connect, application.client_id, "s3cret")
    async with raw.get(f"/{state.tenant_id}/discovery/v2.0/keys") as response:
        keys = jwt.PyJWKSet.from_dict(await response.json())
    kid = jwt.get_unverified_header(result["access_token"])["kid"]
    assert jwt.decode(
        result["access_token"], keys[kid], algorithms=["RS256"], audience="https://management.azure.com"
    )


async def test_a_token_from_entra_opens_arm_through_the_real_clients(served, application, state, names):
    host = served.entra.removeprefix("https://")
    verify = {"connection_verify": served.ca}
    async with (
        ClientSecretCredential(
            state.tenant_id,
            application.client_id,
            "s3cret",
            authority=host,
            disable_instance_discovery=True,
            **verify,
        ) as credential,
        ComputeManagementClient(
            credential,
            names.subscription,
            base_url=served.arm,
            credential_scopes=[SCOPE],
            **verify,
        ) as compute,
    ):
        assert (await compute.virtual_machines.get("rg-nodes", "vm-0")).id == names.vm


@pytest.mark.parametrize(
    ("client", "secret", "scope", "error", "code"),
    [
        (None, "wrong", SCOPE, "invalid_client", 7000215),
        ("0" * 8, "s3cret", SCOPE, "unauthorized_client", 700016),
        (None, "s3cret", "nonsense/.default", "invalid_resource", 500011),
        (None, "s3cret", "https://unregistered.test/.default", "invalid_resource", 500011),
    ],
)
async def test_a_refusal_carries_its_aadsts_code(connect, application, state, *, client, secret, scope, error, code):
    state.unregistered_resources.add("https://unregistered.test")
    result = await acquire(connect, client or application.client_id, secret, scope)
    assert (result["error"], result["error_codes"]) == (error, [code])
    assert result["error_description"].startswith(f"AADSTS{code}: ")


@pytest.mark.parametrize(("secret", "status"), [("wrong", 401), (None, 401)])
async def test_a_wrong_or_missing_secret_is_a_401(raw, application, state, secret, status):
    form = {"grant_type": "client_credentials", "client_id": application.client_id, "scope": SCOPE}
    form |= {"client_secret": secret} if secret else {}
    async with raw.post(f"/{state.tenant_id}/oauth2/v2.0/token", data=form) as response:
        assert response.status == status


async def test_an_unknown_tenant_is_refused(connect, application, raw):
    with pytest.raises(ValueError, match="check your tenant name"):
        await acquire(connect, application.client_id, "s3cret", tenant="00000000-0000-4000-8000-000000000000")
    async with raw.post("/nowhere/oauth2/v2.0/token") as response:
        assert response.status == 400
        assert (await response.json())["error_codes"] == [90002]


async def test_another_grant_is_refused(raw, state):
    async with raw.post(f"/{state.tenant_id}/oauth2/v2.0/token", data={"grant_type": "password"}) as response:
        assert (await response.json())["error"] == "unsupported_grant_type"


async def test_the_v1_endpoint_answers_strings(raw, application, state):
    form = {
        "grant_type": "client_credentials",
        "client_id": application.client_id,
        "client_secret": "s3cret",
        "resource": "https://vault.azure.net",
    }
    async with raw.post(f"/{state.tenant_id}/oauth2/token", data=form) as response:
        body = await response.json()
    assert all(isinstance(value, str) for value in body.values())
    assert int(body["expires_on"]) - int(body["not_before"]) == int(body["expires_in"])
    assert body["resource"] == state.tokens.verify(body["access_token"])["aud"] == "https://vault.azure.net"


async def test_a_multi_tenant_application_gets_tokens_in_each_of_its_tenants(connect, state):
    other = "99999999-0000-4000-8000-000000000000"
    application = state.add_service_principal(secret="s3cret", tenants=[other])
    result = await acquire(connect, application.client_id, "s3cret", tenant=other)
    assert state.tokens.verify(result["access_token"])["tid"] == other


async def test_an_application_is_unknown_in_a_tenant_it_was_not_added_to(connect, application, state):
    other = "99999999-0000-4000-8000-000000000000"
    state.add_service_principal(tenants=[other])
    result = await acquire(connect, application.client_id, "s3cret", tenant=other)
    assert result["error_codes"] == [700016]


async def test_adfs_has_its_own_discovery_path_and_no_tenant(connect, application, state):
    result = await acquire(connect, application.client_id, "s3cret", tenant="adfs")
    assert state.tokens.verify(result["access_token"])["tid"] == state.tenant_id


async def test_instance_discovery_vouches_for_this_host_only(served, raw, state):
    parameters = {"authorization_endpoint": f"{served.entra}/{state.tenant_id}/oauth2/v2.0/authorize"}
    async with raw.get("/common/discovery/instance", params=parameters) as response:
        endpoint = (await response.json())["tenant_discovery_endpoint"]
    async with raw.get(endpoint) as document:
        assert (await document.json())["token_endpoint"].endswith("/oauth2/v2.0/token")
    parameters = {"authorization_endpoint": "https://other.test/tenant/oauth2/v2.0/authorize"}
    async with raw.get("/common/discovery/instance", params=parameters) as response:
        assert (await response.json())["error"] == "invalid_instance"


async def test_other_paths_and_verbs_are_a_404(raw, state):
    for method, path in (("GET", "/"), ("GET", f"/{state.tenant_id}/oauth2/v2.0/token")):
        async with raw.request(method, path) as response:
            assert response.status == 404


def _client_certificate():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


async def test_msal_gets_a_token_for_a_registered_certificate_only(connect, application, state):
    public, private = _client_certificate()
    credential = {"private_key": private.decode(), "public_certificate": public.decode()}

    refused = await acquire(connect, application.client_id, credential)
    application.certificates = (public,)
    result = await acquire(connect, application.client_id, credential)

    assert refused["error_codes"] == [700027]
    assert state.tokens.verify(result["access_token"])["appid"] == application.client_id


async def test_a_fault_of_the_token_endpoint_reaches_msal(connect, application, entra):
    entra.faults.add(throttled(3), method="POST", times=1)
    result = await acquire(connect, application.client_id, "s3cret")
    assert result["error"] == "temporarily_unavailable"
    assert (await acquire(connect, application.client_id, "s3cret"))["access_token"]
