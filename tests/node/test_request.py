import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.node.refusal import Refusal
from podidentity.node.request import Selector, SelectorKind, TokenRequest, check_headers, parse_token_request

VAULT = "https://vault.azure.net"
RESOURCE_ID = "/subscriptions/S/resourcegroups/RG/providers/Microsoft.ManagedIdentity/userAssignedIdentities/One"


def refused(query):
    with pytest.raises(Refusal) as caught:
        parse_token_request(query)
    assert (caught.value.status, caught.value.error, caught.value.retry_after) == (400, "invalid_request", None)
    return caught.value.description


@pytest.mark.parametrize(
    ("query", "selector"),
    [
        # As eleven client stacks send it: order, escaping and names differ.
        (b"api-version=2018-02-01&resource=https://vault.azure.net", None),
        (b"api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net", None),
        (b"resource=https%3A%2F%2Fvault.azure.net&api-version=2018-02-01", None),
        (b"resource=https://vault.azure.net", None),
        (
            b"client_id=ABC-def&api-version=2018-02-01&resource=https://vault.azure.net",
            (SelectorKind.CLIENT_ID, "abc-def"),
        ),
        (b"resource=https://vault.azure.net&object_id=ABC", (SelectorKind.OBJECT_ID, "abc")),
        (b"resource=https://vault.azure.net&principal_id=ABC", (SelectorKind.OBJECT_ID, "abc")),
        (
            b"resource=https://vault.azure.net&msi_res_id=" + RESOURCE_ID.encode(),
            (SelectorKind.RESOURCE_ID, RESOURCE_ID.lower()),
        ),
        (
            b"mi_res_id=" + RESOURCE_ID.replace("/", "%2F").encode() + b"&resource=https://vault.azure.net",
            (SelectorKind.RESOURCE_ID, RESOURCE_ID.lower()),
        ),
        (
            b"resource=https://vault.azure.net&msi-res-id=" + RESOURCE_ID.encode() + b"/",
            (SelectorKind.RESOURCE_ID, RESOURCE_ID.lower()),
        ),
        (b"resource=https://vault.azure.net&bypass_cache=true&authority=x&claims={}", None),
        (b"resource=https://vault.azure.net&client_id=", None),
        (b"resource=https://vault.azure.net&client_id=%20", None),
        (b"resource=https://vault.azure.net&mi_res_id=/A/B&msi_res_id=/a/b", (SelectorKind.RESOURCE_ID, "/a/b")),
    ],
)
def test_real_queries_are_understood(query, selector):
    assert parse_token_request(query) == TokenRequest(VAULT, Selector(*selector) if selector else None)


@pytest.mark.parametrize(
    "audience", [VAULT + "/", "https://management.core.windows.net//", "api://x", "2ff814a6-bare-guid"]
)
def test_the_audience_stays_as_written(audience):
    assert parse_token_request(b"resource=" + audience.encode()).resource == audience


@pytest.mark.parametrize("query", [b"", b"api-version=2018-02-01", b"resource=", b"resource", b"Resource=x"])
def test_a_missing_resource_is_refused_in_the_words_of_imds(query):
    assert refused(query) == "Required query variable 'resource' is missing"


@pytest.mark.parametrize(
    "name",
    [
        *("clientid", "clientID", "ClientId", "CLIENT_ID", "client-id", "objectId", "principalId", "resource_id"),
        *("resourceId", "msiresid", "MSI_RES_ID", "mi-res-id", "identity", "identity_id", "identityID"),
    ],
)
def test_a_near_miss_of_a_selector_is_refused_by_name(name):
    assert name in refused(f"resource=x&{name}=y".encode())


@pytest.mark.parametrize(
    "query",
    [
        b"resource=x&resource=y",
        b"resource=x&resource=x",
        b"resource=x&client_id=a&client_id=a",
        b"resource=x&client_id=a&client_id=",
        b"resource=x&api-version=1&api-version=1",
        b"resource=x&%72esource=y",
    ],
)
def test_a_variable_given_twice_is_refused(query):
    assert "more than once" in refused(query)


@pytest.mark.parametrize(
    "query",
    [
        b"resource=x&client_id=a&object_id=b",
        b"resource=x&client_id=a&msi_res_id=/b",
        b"resource=x&msi_res_id=/a&mi_res_id=/b",
    ],
)
def test_two_selectors_are_refused(query):
    assert "exclude each other" in refused(query)


@pytest.mark.parametrize(
    "query", [b"resource=%ff", b"resource=%ed%a0%80", b"resource=\xff", b"&".join([b"a=b"] * 101)]
)
def test_what_cannot_be_read_is_refused(query):
    assert refused(query) == "The query cannot be read"


def test_a_query_longer_than_any_clients_is_refused():
    assert refused(b"resource=" + b"x" * 9000) == "The query is too long"


def test_the_words_about_a_selector_are_short_however_long_it_is():
    assert len(str(Selector(SelectorKind.CLIENT_ID, "x" * 8000))) < 250


NAMES = st.sampled_from(
    ["resource", "client_id", "object_id", "msi_res_id", "mi_res_id", "clientId", "api-version", "%00"]
)
PAIRS = st.lists(st.tuples(NAMES, st.text(max_size=20)), max_size=6)


@given(st.one_of(st.binary(max_size=200), PAIRS.map(lambda them: "&".join(map("=".join, them)).encode())))
def test_any_bytes_make_a_request_or_a_refusal(query):
    try:
        outcome: TokenRequest | Refusal = parse_token_request(query)
    except Refusal as refusal:
        outcome = refusal
    if isinstance(outcome, TokenRequest):
        assert outcome.resource
        assert outcome.selector is None or outcome.selector.value == outcome.selector.value.lower()
    else:
        assert outcome.status == 400


TRUE = (b"metadata", b"true")


@pytest.mark.parametrize("headers", [[TRUE], [(b"metadata", b" true ")], [(b"host", b"x"), TRUE], [TRUE, TRUE]])
def test_the_metadata_header_opens_the_door(headers):
    check_headers(headers, required=True)


@pytest.mark.parametrize(
    "headers",
    [
        *(
            [],
            [(b"metadata", b"")],
            [(b"metadata", b"True")],
            [(b"metadata", b"false")],
            [(b"metadata", b"true, true")],
        ),
        *([(b"x-metadata", b"true")], [TRUE, (b"metadata", b"false")], [(b"metadata", b"false"), TRUE]),
    ],
)
def test_without_exactly_that_header_it_is_a_probe(headers):
    with pytest.raises(Refusal, match="Required metadata header not specified") as caught:
        check_headers(headers, required=True)
    assert caught.value.status == 400


def test_the_header_may_be_waived_by_the_operator():
    check_headers([], required=False)


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("value", [b"10.0.0.1", b""])
def test_a_forwarded_request_is_refused_whatever_else_it_has(required, value):
    with pytest.raises(Refusal, match="X-Forwarded-For"):
        check_headers([TRUE, (b"x-forwarded-for", value)], required=required)
