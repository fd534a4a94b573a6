import json

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.azure.clouds import ENVIRONMENT_FILE, find_cloud

STACK_FILE = {
    "name": "AzureStackCloud",
    "managementPortalURL": "https://portal.local.azurestack.external/",
    "resourceManagerEndpoint": "https://management.local.azurestack.external/",
    "activeDirectoryEndpoint": "https://adfs.local.azurestack.external/adfs/",
    "serviceManagementEndpoint": "https://management.azurestack.example/4de1",
    "galleryEndpoint": None,
    "resourceIdentifiers": {"graph": "https://graph/"},
}


@pytest.fixture
def stack_file(tmp_path):
    def write(**changes):
        path = tmp_path / "stack.json"
        path.write_text(json.dumps(STACK_FILE | changes))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("", "management.azure.com"),
        ("AzurePublicCloud", "management.azure.com"),
        ("AzureCloud", "management.azure.com"),
        ("AzureUSGovernmentCloud", "management.usgovcloudapi.net"),
        ("AzureUSGovernment", "management.usgovcloudapi.net"),
        ("AzureChinaCloud", "management.chinacloudapi.cn"),
        ("AzureGermanCloud", "management.microsoftazure.de"),
    ],
)
@pytest.mark.parametrize("spelling", [str, str.upper, str.lower])
def test_every_cloud_is_found_in_any_spelling(name, host, spelling):
    cloud = find_cloud(spelling(name), "")
    assert cloud.resource_manager == f"https://{host}"
    assert cloud.audience == f"https://{host}/"
    assert cloud.active_directory.startswith("https://login.")


def test_an_unknown_cloud_is_refused_with_the_names_that_are_known():
    with pytest.raises(ConfigurationError, match=r"'AzureMoonCloud'.*AzurePublicCloud.*AzureStackCloud"):
        find_cloud("AzureMoonCloud", "")


def test_azure_stack_is_read_from_its_file_without_slashes_at_the_end(stack_file):
    cloud = find_cloud("AZURESTACKCLOUD", stack_file())
    assert cloud.resource_manager == "https://management.local.azurestack.external"
    assert cloud.active_directory == "https://adfs.local.azurestack.external/adfs"
    assert cloud.audience == "https://management.azurestack.example/4de1"
    assert cloud.compute_api < "2021"


def test_the_token_audience_of_the_file_counts_before_the_service_management_endpoint(stack_file):
    assert find_cloud("AzureStackCloud", stack_file(tokenAudience="https://aud/x/")).audience == "https://aud/x/"


def test_a_null_in_the_file_counts_as_absent(stack_file):
    assert find_cloud("AzureStackCloud", stack_file(tokenAudience=None)).audience.endswith("/4de1")


@pytest.mark.parametrize("field", ["resourceManagerEndpoint", "activeDirectoryEndpoint"])
@pytest.mark.parametrize("url", ["http://arm.local", "", "arm.local", "https://"])
def test_an_endpoint_that_is_not_https_is_refused(stack_file, field, url):
    with pytest.raises(ConfigurationError, match=f"{field} is .*https://"):
        find_cloud("AzureStackCloud", stack_file(**{field: url}))


def test_azure_stack_without_a_file_names_the_variable():
    with pytest.raises(ConfigurationError, match=ENVIRONMENT_FILE):
        find_cloud("AzureStackCloud", "")


def test_a_missing_file_is_named():
    with pytest.raises(ConfigurationError, match=r"/not/there cannot be read: No such file"):
        find_cloud("AzureStackCloud", "/not/there")


@pytest.mark.parametrize("content", [b"no json", b"[]", b'{"name": 3}', b'{"name": "\xff"}', b""])
def test_a_file_that_is_no_environment_file_is_refused(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no environment file"):
        find_cloud("AzureStackCloud", str(path))
