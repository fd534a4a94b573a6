import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest
import requests

from podidentity.api.errors import ConfigurationError
from podidentity.azure.compute import shared_transport
from podidentity.azure.trust import requests_session, tls_context
from podidentity.emulator.serving import serve

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in (*VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
async def url(authority):
    listener = socket.create_server(("127.0.0.1", 0))
    async with serve(hello, sockets=[listener], tls=authority.certificate):
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"


async def by_requests(url):
    with requests_session(timeout=5) as session:
        answer = await asyncio.to_thread(session.get, url)
    return answer.text


async def by_aiohttp(url):
    connector = aiohttp.TCPConnector(ssl=tls_context())
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return await answer.text()


async def by_azure_transport(url):
    transport = shared_transport()
    async with transport, transport.session.get(url) as answer:
        return await answer.text()


CLIENTS = pytest.mark.parametrize("client", [by_requests, by_aiohttp, by_azure_transport])


@CLIENTS
@pytest.mark.parametrize("variable", VARIABLES)
async def test_a_ca_that_one_variable_names_is_trusted_by_every_client(client, variable, url, authority, monkeypatch):
    monkeypatch.setenv(variable, str(authority.ca))
    assert await client(url) == "hello"


@CLIENTS
async def test_several_variables_add_up(client, url, authority, other_authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(other_authority.ca))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.ca))
    assert await client(url) == "hello"


@CLIENTS
async def test_a_ca_that_nothing_names_is_not_trusted(client, url, other_authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(other_authority.ca))
    with pytest.raises((aiohttp.ClientError, requests.ConnectionError)):
        await client(url)


@CLIENTS
async def test_a_folder_of_cas_is_taken_as_well(client, url, authority, monkeypatch, tmp_path):
    # OpenSSL finds a CA in a folder by the hash of its subject, as `openssl rehash` makes it.
    (certificate,) = cas(lambda context: context.load_verify_locations(authority.ca))
    for name in subject_hashes(certificate):
        (tmp_path / f"{name}.0").write_bytes(authority.ca.read_bytes())
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path))
    assert await client(url) == "hello"


def subject_hashes(der):
    output = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-subject_hash"], input=der, capture_output=True, check=True
    )
    return [output.stdout.decode().strip()]


def cas(fill):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    fill(context)
    return context.get_ca_certs(binary_form=True)


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_cas_of_the_system_are_never_lost(variable, authority, monkeypatch, tmp_path):
    system = {*cas(lambda context: context.set_default_verify_paths())}
    built_in = ssl.get_default_verify_paths()
    if not system and not Path(built_in.openssl_capath).is_dir():
        pytest.skip("this machine has no CAs of its own")
    monkeypatch.setenv(variable, str(authority.ca))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert system < {*tls_context().get_ca_certs(binary_form=True)}


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_variable_that_names_no_ca_is_said_at_once(content, monkeypatch, tmp_path):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with pytest.raises(ConfigurationError, match=f"REQUESTS_CA_BUNDLE={path}"):
        tls_context()


async def test_a_silent_server_ends_by_the_timeout_that_requests_itself_does_not_have():
    with socket.create_server(("127.0.0.1", 0)) as listener, requests_session(timeout=0.05) as session:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(requests.Timeout):
            await asyncio.to_thread(session.get, url)
