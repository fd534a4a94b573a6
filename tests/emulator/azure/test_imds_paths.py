import pytest

from podidentity.emulator.azure.imds_paths import canonical


@pytest.mark.parametrize(
    "raw",
    [
        "/metadata/identity/oauth2/token",
        "/Metadata/identity/oauth2/token/",
        "//metadata//identity/oauth2/token",
        "/metadata/identity%2foauth2%2Ftoken",
        "/metadata/identity%5coauth2/token",
        "/metadata/identity\\oauth2\\token",
        "/metadata/%2569dentity/oauth2/token",
        "/x/../metadata/./identity/oauth2/token",
        "metadata/identity/oauth2/token",
    ],
)
def test_every_spelling_of_the_token_path_is_the_token_path(raw):
    assert canonical(raw) == "/metadata/identity/oauth2/token"


@pytest.mark.parametrize("raw", ["/metadata/Identity/oauth2/token", "/metadata/identity/oauth2/tokens", "/"])
def test_another_path_stays_another(raw):
    assert canonical(raw) != "/metadata/identity/oauth2/token"
