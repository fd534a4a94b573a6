import asyncio
import socket

import aiohttp
import pytest
from starlette.responses import Response

from podidentity.azure import imds as module
from podidentity.azure.errors import ImdsUnreachable, TokenRefused
from podidentity.azure.imds import ImdsClient
from podidentity.emulator.azure.identity_block import IdentityBlock
from podidentity.emulator.azure.service import Hang

VAULT = "https://vault.azure.net"


@pytest.fixture
async def imds(tenant):
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield ImdsClient(session, tenant.imds_url)


@pytest.fixture
async def identities(tenant):
    found = tenant.identities
    tenant.state.machines.set_identity(tenant.vm, IdentityBlock.of(it.resource_id for it in found))
    return found


@pytest.mark.parametrize("by", ["client_id", "resource_id"])
async def test_a_token_is_of_the_identity_that_was_named(by, tenant, imds, identities):
    for identity in identities:
        token = await imds.token(VAULT, **{by: getattr(identity, by)})
        claims = tenant.state.tokens.verify(token.access_token)
        assert (claims["appid"], claims["aud"]) == (identity.client_id, VAULT)
        assert (token.client_id, token.resource) == (identity.client_id, VAULT)
        assert (token.expires_on, token.not_before) == (claims["exp"], claims["nbf"])


async def test_without_a_name_the_machine_s_own_identity_answers(tenant, imds):
    tenant.state.machines.set_identity(tenant.vm, IdentityBlock.of(system=True))
    token = await imds.token(VAULT)
    assert token.client_id == tenant.vm.system_principal.client_id


async def test_a_resource_with_odd_letters_arrives_as_it_is(tenant, imds, identities):
    resource = "https://x/?a=b&c=d e+f%20ä#g"
    token = await imds.token(resource, client_id=identities[0].client_id)
    assert tenant.state.tokens.verify(token.access_token)["aud"] == resource


async def test_a_refusal_keeps_the_status_and_the_words(imds):
    with pytest.raises(TokenRefused) as raised:
        await imds.token(VAULT, client_id="nobody")
    refusal = raised.value
    assert (refusal.status, refusal.error, refusal.description) == (400, "invalid_request", "Identity not found")
    assert refusal.retry_after is None


async def test_a_429_brings_its_retry_after(tenant, imds):
    tenant.imds.faults.add(Response('{"error": "x"}', status_code=429, headers={"Retry-After": "7"}))
    with pytest.raises(TokenRefused) as raised:
        await imds.token(VAULT)
    assert (raised.value.status, raised.value.retry_after) == (429, 7.0)


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"error": {"code": 1}}', b'{"error": "\xff"}', b"[]"])
async def test_a_refusal_in_any_shape_keeps_its_status(body, tenant, imds):
    tenant.imds.faults.add(Response(body, status_code=500))
    with pytest.raises(TokenRefused, match="500 unknown_error") as raised:
        await imds.token(VAULT)
    assert raised.value.status == 500


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"{}",
        b'{"access_token": "", "resource": "r", "expires_on": "9"}',
        b'{"access_token": "t", "resource": "r", "expires_on": "soon"}',
        b'{"access_token": "\xff", "resource": "r", "expires_on": "9"}',
    ],
)
async def test_a_200_that_is_no_token_is_no_answer_of_imds(body, tenant, imds):
    tenant.imds.faults.add(Response(body))
    with pytest.raises(ImdsUnreachable, match="no token"):
        await imds.token(VAULT)


async def test_a_redirect_is_not_followed(tenant, imds):
    tenant.imds.faults.add(Response(status_code=302, headers={"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(TokenRefused) as raised:
        await imds.token(VAULT)
    assert raised.value.status == 302


async def test_numbers_may_be_numbers(tenant, imds):
    tenant.imds.faults.add(Response(b'{"access_token": "t", "resource": "r", "expires_on": 9, "not_before": 3}'))
    token = await imds.token(VAULT)
    assert (token.expires_on, token.not_before) == (9, 3)


async def test_nobody_there_is_said_so():
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ImdsUnreachable, match="does not answer"):
            await ImdsClient(session, "http://127.0.0.1:1").token(VAULT)


async def test_silence_ends_by_a_timeout(tenant, imds, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", aiohttp.ClientTimeout(total=0.05))
    tenant.imds.faults.add(Hang())
    with pytest.raises(ImdsUnreachable, match="TimeoutError"):
        await imds.token(VAULT)


async def test_an_answer_that_breaks_off_is_no_answer():
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"access_')
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    async with await asyncio.start_server(cut, sock=listener), aiohttp.ClientSession() as session:
        with pytest.raises(ImdsUnreachable):
            await ImdsClient(session, f"http://127.0.0.1:{listener.getsockname()[1]}").token(VAULT)
