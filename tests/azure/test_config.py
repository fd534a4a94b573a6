import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.api.errors import ConfigurationError
from podidentity.azure import config

SECRET = "s3cr3t-of-the-test"
AZURE_JSON = {
    "cloud": "AzureChinaCloud",
    "tenantId": "tenant",
    "aadClientId": "client",
    "aadClientSecret": SECRET,
    "subscriptionId": "sub",
    "resourceGroup": "rg",
    "vmType": "vmss",
    "useManagedIdentityExtension": False,
    "userAssignedIdentityID": "KUBELET",
    # Of every type, as the cloud provider has them.
    "cloudProviderBackoff": True,
    "cloudProviderRateLimitQPS": 6.0,
    "loadBalancerSku": None,
    "extendedLocation": {"type": ["EdgeZone"]},
}


@pytest.fixture
def load(tmp_path):
    def load(content, environment=None):
        path = tmp_path / "azure.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return config.load(str(path), environment or {})

    return load


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_azure_json_is_read_however_it_is_indented(load, indent):
    loaded = load(json.dumps(AZURE_JSON, indent=indent))
    assert loaded.cloud.name == "AzureChinaCloud"
    assert (loaded.tenant_id, loaded.client_id, loaded.client_secret) == ("tenant", "client", SECRET)
    assert (loaded.use_managed_identity, loaded.user_assigned_client_id) == (False, "KUBELET")


def test_the_same_may_be_written_as_yaml(load):
    loaded = load(
        f"cloud: AzureChinaCloud\ntenantId: tenant\naadClientId: client\naadClientSecret: {SECRET}\n1: on\n"
    )
    assert (loaded.cloud.name, loaded.client_secret) == ("AzureChinaCloud", SECRET)


@pytest.mark.parametrize("written", ["true", '"true"', '"True"', "1"])
def test_a_managed_identity_needs_no_other_credential(load, written):
    loaded = load(f'{{"useManagedIdentityExtension": {written}, "aadClientId": "msi", "aadClientSecret": "msi"}}')
    assert loaded.use_managed_identity
    assert loaded.cloud.name == "AzurePublicCloud"


def test_the_placeholder_of_aks_is_no_client_id(load):
    content = json.dumps(AZURE_JSON | {"aadClientId": "msi"})
    with pytest.raises(ConfigurationError, match=r"aadClientId \(CLIENT_ID\) missing.*USE_MSI"):
        load(content)


def test_everything_that_is_missing_is_named_at_once(load):
    with pytest.raises(ConfigurationError, match=r"tenantId.*aadClientId.*aadClientSecret"):
        load("{}")


def test_without_a_file_the_environment_counts():
    environment = {
        "CLOUD": "azureusgovernmentcloud",
        "TENANT_ID": "tenant",
        "CLIENT_ID": "client",
        "CLIENT_SECRET": SECRET,
        "USER_ASSIGNED_MSI_CLIENT_ID": "kubelet",
    }
    loaded = config.load("", environment)
    assert loaded.cloud.name == "AzureUSGovernmentCloud"
    assert (loaded.client_secret, loaded.user_assigned_client_id) == (SECRET, "kubelet")


@pytest.mark.parametrize(("written", "expected"), [("true", True), ("T", True), ("1", True), ("TRUE", True)])
def test_the_environment_may_ask_for_the_managed_identity(written, expected):
    assert config.load("", {"USE_MSI": written}).use_managed_identity is expected


def test_an_environment_without_a_credential_is_refused():
    with pytest.raises(ConfigurationError, match="no credential for Azure in environment"):
        config.load("", {"USE_MSI": "false"})


def test_a_file_that_cannot_be_read_is_named():
    with pytest.raises(ConfigurationError, match=r"--cloudconfig /not/there cannot be read"):
        config.load("/not/there", {})


@pytest.mark.parametrize(
    "content",
    [
        f'{{"aadClientSecret": "{SECRET}", "cloud"',
        f"aadClientSecret: {SECRET}: : [",
        f"aadClientSecret: !!python/object {SECRET}",
        f'["{SECRET}"]',
        f'"{SECRET}"',
        "",
        f'{{"aadClientSecret": ["{SECRET}"]}}',
        f'{{"aadClientSecret": "{SECRET}", "tenantId": 5}}',
        "tenantId: 2026-99-99",
        b'{"aadClientSecret": "\xff' + SECRET.encode() + b'"}',
    ],
)
def test_a_broken_file_is_one_line_without_the_secret(load, content):
    with pytest.raises(ConfigurationError) as raised:
        load(content)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_secret_arrives_as_it_was_written(tmp_path_factory, secret):
    path = tmp_path_factory.mktemp("azure") / "azure.json"
    path.write_text(json.dumps(AZURE_JSON | {"aadClientSecret": secret}))
    loaded = config.load(str(path), {})
    assert loaded.client_secret == secret


def test_a_configuration_does_not_show_its_secret(load):
    assert SECRET not in repr(load(json.dumps(AZURE_JSON)))
