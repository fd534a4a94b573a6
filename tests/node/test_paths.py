"""Only exact, known spellings mean anything: CVE-2022-23551 was one more spelling."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podidentity.node.paths import Endpoint, endpoint_of

TOKEN_SPELLINGS = re.compile(rb"/+(?i:metadata)/identity/oauth2/token/?")
HOST_SPELLINGS = re.compile(rb"/+host/token/?")


@pytest.mark.parametrize(
    "path",
    [
        b"/metadata/identity/oauth2/token",
        b"/metadata/identity/oauth2/token/",
        b"//metadata/identity/oauth2/token",  # msal4j with AZURE_POD_IDENTITY_AUTHORITY_HOST
        b"////metadata/identity/oauth2/token",
        b"/Metadata/identity/oauth2/token",
        b"/METADATA/identity/oauth2/token",
    ],
)
def test_a_spelling_of_real_clients_is_the_token_endpoint(path):
    assert endpoint_of(path) is Endpoint.TOKEN


@pytest.mark.parametrize("path", [b"/host/token", b"/host/token/", b"//host/token/"])
def test_a_spelling_of_the_csi_driver_is_the_host_endpoint(path):
    assert endpoint_of(path) is Endpoint.HOST_TOKEN


@pytest.mark.parametrize(
    "path",
    [
        b"/metadata/identity\\oauth2\\token/",  # CVE-2022-23551 as it was reported
        b"/metadata/identity\\oauth2/token",
        b"/metadata\\identity/oauth2/token",
        b"\\metadata\\identity\\oauth2\\token",
        b"/metadata/identity/oauth2//token",
        b"/metadata//identity/oauth2/token",
        b"/metadata/identity//oauth2/token",
        b"/metadata/identity/oauth2/token//",
        b"/metadata/identity/oauth2/./token",
        b"/metadata/identity/../identity/oauth2/token",
        b"/metadata/instance/../identity/oauth2/token",
        b"/./metadata/identity/oauth2/token",
        b"/../metadata/identity/oauth2/token",
        b"/metadata/identity/oauth2/token/.",
        b"/metadata/identity/oauth2/token/..",
        b"/metadata/identity%2foauth2%2ftoken",
        b"/metadata/identity%5coauth2%5ctoken",
        b"/metadata/%69dentity/oauth2/token",
        b"/metadata/identity/oauth2/token%00",
        b"/metadata/identity/oauth2/token%20",
        b"/metadata/identity/oauth2/token;x=1",
        b"/metadata/identity/oauth2/token\x00",
        b"/metadata/identity/oauth2/token ",
        b" /metadata/identity/oauth2/token",
        b"/metadata/identity/oauth2/token\xc3\xa9",
        b"/metadata/identity/oauth2/t\xefken",
        b"metadata/identity/oauth2/token",
        b"*",
        b"",
    ],
)
def test_a_spelling_that_no_client_uses_is_odd(path):
    assert endpoint_of(path) is Endpoint.ODD


@pytest.mark.parametrize(
    "path",
    [
        b"/metadata/identity",
        b"/metadata/identity/",
        b"/metadata/identity/info",
        b"/metadata/identity/getplatformmetadata",
        b"/Metadata/Identity/issuecredential",
        b"/metadata/identity/oauth2",
        b"/metadata/identity/oauth2/token/xyz",
        b"/metadata/identity/oauth2/Token",
        b"/metadata/identity/OAuth2/token",
        b"/metadata/Identity/oauth2/token",
    ],
)
def test_everything_else_of_identities_is_one_endpoint(path):
    assert endpoint_of(path) is Endpoint.IDENTITY


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"//",
        b"/metadata",
        b"/metadata/instance",
        b"/Host/token",
        b"/host/token/x",
        b"/latest/meta-data",
        b"/x~y",
    ],
)
def test_other_services_are_other(path):
    assert endpoint_of(path) is Endpoint.OTHER


def spellings(canonical: bytes):
    """The canonical path with a few bytes put in, taken out or replaced: what an attacker tries."""
    piece = st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b"/", b"\\", b"..", b"%2f", b"%5c", b"%00", b";", b"//", b"/./", b"?", b"#", b" ", b"\t"]),
    )
    edit = st.tuples(st.integers(0, len(canonical)), st.integers(0, 3), piece)

    def apply(edits):
        path = canonical
        for at, cut, inserted in edits:
            path = path[:at] + inserted + path[at + cut :]
        return path

    return st.lists(edit, max_size=3).map(apply)


@given(st.one_of(st.binary(), spellings(b"/metadata/identity/oauth2/token"), spellings(b"/host/token")))
@example(b"/metadata/identity/oauth2/token\n")
def test_no_other_bytes_mean_a_token(path):
    endpoint = endpoint_of(path)
    assert (endpoint is Endpoint.TOKEN) == bool(TOKEN_SPELLINGS.fullmatch(path))
    assert (endpoint is Endpoint.HOST_TOKEN) == bool(HOST_SPELLINGS.fullmatch(path))
