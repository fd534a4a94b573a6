"""Who we are at the API server: the ways of kubeconfig files and of pods."""

import asyncio
import base64
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.emulator.serving import serve
from podidentity.emulator.tls import CertificateAuthority
from podidentity.kube import errors
from podidentity.kube import transport as transport_module
from podidentity.kube._kubernetes_asyncio import config
from podidentity.kube.transport import connect
from tests.kube.cluster import kubeconfig
from tests.kube.recording import MutualTls, Recorder, client_certificate


@pytest.fixture
def authority():
    return CertificateAuthority()


@pytest.fixture
def certificate(authority, tmp_path):
    return authority.issue(tmp_path / "server", "127.0.0.1", "apiserver.test")


@pytest.fixture
def certificate_authority(authority, tmp_path):
    path = tmp_path / "ca.crt"
    path.write_bytes(authority.pem)
    return path


@pytest.fixture
async def recorder(listener):
    recorder = Recorder()
    async with serve(recorder, sockets=[listener]):
        yield recorder


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


async def ask(path: str, times: int = 1) -> None:
    transport = await connect(path)
    try:
        for _ in range(times):
            await transport.request("GET", "/version")
    finally:
        await transport.close()


@pytest.mark.parametrize("embedded", [False, True])
async def test_a_kubeconfig_with_a_client_certificate(
    *, listener, url, tmp_path, certificate, certificate_authority, embedded
):
    client = client_certificate(tmp_path)
    files = {"client-certificate": client.certificate, "client-key": client.key}
    user = (
        {f"{n}-data": base64_of(p) for n, p in files.items()} if embedded else {n: p.name for n, p in files.items()}
    )
    cluster = (
        {"certificate-authority-data": base64_of(certificate_authority)}
        if embedded
        else {"certificate-authority": str(certificate_authority)}
    )
    tls = MutualTls(certificate=certificate.certificate, key=certificate.key, client=client.certificate)
    recorder = Recorder()
    server = url.replace("http:", "https:")
    async with serve(recorder, sockets=[listener], tls=tls):
        await ask(kubeconfig(tmp_path, server, user=user, **cluster))
        with pytest.raises(errors.Unreachable):
            await ask(kubeconfig(tmp_path, server, user={"token": "t"}, **cluster))
    assert recorder.authorizations == [None]


async def test_a_key_inside_a_kubeconfig_is_not_left_on_disk(
    *, url, tmp_path, certificate_authority, monkeypatch: pytest.MonkeyPatch
):
    client = client_certificate(tmp_path)
    files = {"client-certificate": client.certificate, "client-key": client.key}
    user = {f"{name}-data": base64_of(path) for name, path in files.items()}
    written = tmp_path / "written"
    written.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(written))
    path = kubeconfig(
        tmp_path,
        url.replace("http:", "https:"),
        user=user,
        **{"certificate-authority-data": base64_of(certificate_authority)},
    )
    for _ in range(2):  # the library remembers what it wrote
        await (await connect(path)).close()
        assert list(written.iterdir()) == []


@pytest.mark.parametrize(
    ("cluster", "works"),
    [
        ({}, False),
        ({"certificate-authority": "ca.crt"}, True),
        ({"insecure-skip-tls-verify": True}, True),
        ({"certificate-authority": "ca.crt", "tls-server-name": "apiserver.test"}, True),
        ({"certificate-authority": "ca.crt", "tls-server-name": "another.test"}, False),
    ],
)
async def test_the_server_must_prove_who_it_is(
    *, listener, url, tmp_path, certificate, certificate_authority, cluster, works
):
    path = kubeconfig(tmp_path, url.replace("http:", "https:"), user={"token": "t"}, **cluster)
    async with serve(Recorder(), sockets=[listener], tls=certificate):
        if works:
            await ask(path)
        else:
            with pytest.raises(errors.Unreachable, match="certificate"):
                await ask(path)


async def test_a_kubeconfig_with_a_token(recorder, url, tmp_path):
    await ask(kubeconfig(tmp_path, url, user={"token": "secret"}))
    assert recorder.authorizations == ["Bearer secret"]


async def test_a_kubeconfig_with_a_user_and_a_password(recorder, url, tmp_path):
    await ask(kubeconfig(tmp_path, url, user={"username": "u", "password": "p"}))
    assert recorder.authorizations == ["Basic dTpw"]


async def test_the_kubeconfig_of_the_environment(recorder, url, tmp_path, environment):
    environment.setenv("KUBECONFIG", kubeconfig(tmp_path, url, user={"token": "t"}) + ":/nonexistent")
    await ask("")
    assert recorder.authorizations == ["Bearer t"]


async def test_a_token_file_is_read_again_when_the_server_says_401(recorder, url, tmp_path):
    token = tmp_path / "token"
    token.write_text("first\n")
    transport = await connect(kubeconfig(tmp_path, url, user={"tokenFile": "token"}))
    await transport.request("GET", "/a")
    token.write_text("second\n")
    recorder.tokens = {"Bearer second"}
    await transport.request("GET", "/b")
    await transport.request("GET", "/c")
    await transport.close()
    assert recorder.authorizations == ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]


async def test_a_server_that_goes_on_saying_401_is_asked_twice(recorder, url, tmp_path):
    recorder.tokens = set()
    with pytest.raises(errors.ApiError) as raised:
        await ask(kubeconfig(tmp_path, url, user={"token": "t"}))
    assert raised.value.code == 401
    assert len(recorder.asked) == 2


async def test_a_watch_reads_its_token_again_as_well(recorder, url, tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    transport = await connect(kubeconfig(tmp_path, url, user={"tokenFile": "token"}))
    token.write_text("second")
    recorder.tokens = {"Bearer second"}
    async with transport.stream("/w", query={}) as pieces:
        assert [piece async for piece in pieces] == [b"{}"]
    await transport.close()


def login_program(folder: Path, *, counter: Path, output: str | None = None, code: int = 0) -> dict[str, Any]:
    """An exec plugin that gives the number of its run as the token."""
    script = folder / "login.py"
    status = "json.dumps({'token': f'run-{n}'})" if output is None else repr(output)
    script.write_text(
        "import json, pathlib, sys\n"
        f"counter = pathlib.Path({str(counter)!r})\n"
        "n = int(counter.read_text() or 0) + 1 if counter.exists() else 1\n"
        "counter.write_text(str(n))\n"
        f"status = json.loads({status})\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
        " 'status': status}))\n"
        f"print('cannot log in', file=sys.stderr) or sys.exit({code})\n"
    )
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script)]}
    return {"exec": plugin}


async def test_a_login_program_gives_the_token(recorder, url, tmp_path):
    await ask(kubeconfig(tmp_path, url, user=login_program(tmp_path, counter=tmp_path / "n")), times=2)
    assert recorder.authorizations == ["Bearer run-1"] * 2


async def test_a_login_program_runs_once_for_all_whose_token_has_expired(recorder, url, tmp_path):
    counter = tmp_path / "n"
    transport = await connect(kubeconfig(tmp_path, url, user=login_program(tmp_path, counter=counter)))
    recorder.tokens = {"Bearer run-2"}
    await asyncio.gather(*(transport.request("GET", f"/{number}") for number in range(5)))
    await transport.close()
    assert counter.read_text() == "2"


async def test_a_login_program_that_fails_says_why(url, tmp_path):
    user = login_program(tmp_path, counter=tmp_path / "n", code=3)
    with pytest.raises(ConfigurationError, match=r"kubeconfig cannot be used: .*cannot log in"):
        await connect(kubeconfig(tmp_path, url, user=user))


async def test_a_login_program_that_fails_later_is_no_end(recorder, url, tmp_path):
    counter = tmp_path / "n"
    transport = await connect(kubeconfig(tmp_path, url, user=login_program(tmp_path, counter=counter)))
    login_program(tmp_path, counter=counter, code=3)
    recorder.tokens = {"Bearer run-3"}
    with pytest.raises(errors.Unreachable, match="cannot log in"):
        await transport.request("GET", "/a")
    login_program(tmp_path, counter=counter)
    await transport.request("GET", "/b")
    await transport.close()


async def test_a_login_program_that_never_ends_is_given_up(url, tmp_path, monkeypatch):
    monkeypatch.setattr(transport_module, "_LOGIN_SECONDS", 0.05)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["0.2"]}
    with pytest.raises(ConfigurationError, match="TimeoutError"):
        await connect(kubeconfig(tmp_path, url, user={"exec": plugin}))
    await asyncio.sleep(0.4)  # the library cannot end it


@pytest.fixture
def account(tmp_path, environment, monkeypatch, listener, certificate_authority):
    """The files and the environment of a pod's service account; returns the token's file."""
    token = tmp_path / "token"
    token.write_text("first")
    environment.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    environment.setenv("KUBERNETES_SERVICE_PORT", str(listener.getsockname()[1]))
    loader = partial(
        config.load_incluster_config,
        token_filename=str(token),
        cert_filename=str(certificate_authority),
    )
    monkeypatch.setattr(config, "load_incluster_config", loader)
    return token


async def test_in_a_pod_its_own_account_is_used(listener, certificate, account):
    recorder = Recorder()
    async with serve(recorder, sockets=[listener], tls=certificate):
        await ask("")
    assert recorder.authorizations == ["Bearer first"]


async def test_the_token_of_a_pod_is_read_again_each_minute(listener, certificate, account, monkeypatch):
    monkeypatch.setattr(transport_module, "_ROTATION_SECONDS", 0.0)
    recorder = Recorder()
    async with serve(recorder, sockets=[listener], tls=certificate):
        transport = await connect("")
        await transport.request("GET", "/a")
        account.write_text("second")
        await transport.request("GET", "/b")
        await transport.close()
    assert recorder.authorizations == ["Bearer first", "Bearer second"]


async def test_the_token_of_a_pod_is_read_again_at_once_when_the_server_says_401(listener, certificate, account):
    recorder = Recorder(tokens={"Bearer second"})
    async with serve(recorder, sockets=[listener], tls=certificate):
        transport = await connect("")
        account.write_text("second")
        await transport.request("GET", "/a")
        await transport.close()
    assert recorder.authorizations == ["Bearer first", "Bearer second"]


async def test_a_token_that_is_gone_for_a_moment_is_no_end(listener, certificate, account, monkeypatch):
    monkeypatch.setattr(transport_module, "_ROTATION_SECONDS", 0.0)
    async with serve(Recorder(), sockets=[listener], tls=certificate):
        transport = await connect("")
        account.unlink()
        with pytest.raises(errors.Unreachable, match="service account"):
            await transport.request("GET", "/a")
        account.write_text("second")
        await transport.request("GET", "/b")
        await transport.close()


async def test_nowhere_to_connect_says_what_to_give():
    with pytest.raises(ConfigurationError, match="--kubeconfig or KUBECONFIG, or run in a pod"):
        await connect("")


async def test_a_missing_kubeconfig_is_named():
    with pytest.raises(ConfigurationError, match=r"the kubeconfig /nonexistent/config does not exist"):
        await connect("/nonexistent/config")


def broken_kubeconfigs() -> dict[str, str]:
    good = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    return {
        "empty": "",
        "no YAML": "a: [\nb: {",
        "a list": "[]",
        "a text": "x",
        "no context": json.dumps(good | {"current-context": "other"}),
        "no cluster": json.dumps(good | {"clusters": []}),
        "a missing CA": json.dumps(
            good | {"clusters": [{"name": "c", "cluster": {"server": "https://h", "certificate-authority": "/none"}}]}
        ),
        "a CA that is none": json.dumps(
            good
            | {"clusters": [{"name": "c", "cluster": {"server": "https://h", "certificate-authority-data": "eA=="}}]}
        ),
        "a missing token file": json.dumps(good | {"users": [{"name": "u", "user": {"tokenFile": "/none"}}]}),
        "an unknown program": json.dumps(
            good | {"users": [{"name": "u", "user": {"exec": {"apiVersion": "v1", "command": "/none"}}}]}
        ),
        "a program without version": json.dumps(
            good | {"users": [{"name": "u", "user": {"exec": {"command": "true"}}}]}
        ),
    }


@pytest.mark.parametrize("content", broken_kubeconfigs().values(), ids=broken_kubeconfigs().keys())
async def test_a_broken_kubeconfig_is_one_clear_line(tmp_path, content):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigurationError) as raised:
        await connect(str(path))
    assert str(raised.value).startswith(f"the kubeconfig {path} cannot be used: ")
    assert "\n" not in str(raised.value)


async def test_an_account_without_a_token_is_a_clear_line(account):
    account.unlink()
    with pytest.raises(ConfigurationError, match=r"the pod's service account cannot be used: .*token"):
        await connect("")
