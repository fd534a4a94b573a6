import base64
from pathlib import Path

import pytest
import yaml

from podidentity.api.errors import ConfigurationError
from podidentity.emulator.demo.kubeconfigs import given, stand_in


def write(folder: Path, *, server: str = "https://10.0.0.1:6443", user: dict[str, object] | None = None) -> Path:
    (folder / "ca.pem").write_text("the CA")
    (folder / "token").write_text("from a file\n")
    config = {
        "current-context": "b",
        "contexts": [{"name": "a", "context": {}}, {"name": "b", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_given_kubeconfig_reaches_the_server_elsewhere_and_still_checks_its_name(tmp_path):
    moved = yaml.safe_load(given(write(tmp_path)).at("10.240.0.1", 1234))
    cluster = moved["clusters"][0]["cluster"]
    assert (cluster["server"], cluster["tls-server-name"]) == ("https://10.240.0.1:1234", "10.0.0.1")


def test_files_are_read_into_the_text(tmp_path):
    moved = yaml.safe_load(given(write(tmp_path, user={"tokenFile": "token"})).at("10.240.0.1", 1))
    assert base64.b64decode(moved["clusters"][0]["cluster"]["certificate-authority-data"]) == b"the CA"
    assert moved["users"][0]["user"] == {"token": "from a file"}


@pytest.mark.parametrize(("server", "port"), [("https://h", 443), ("http://h", 80), ("https://h:1", 1)])
def test_the_port_follows_from_the_scheme(tmp_path, server, port):
    assert given(write(tmp_path, server=server)).port == port


def test_a_login_program_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigurationError, match="logs in with a program"):
        given(write(tmp_path, user={"exec": {"command": "kubelogin"}}))


_CONTEXT = "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
_CLUSTER = "clusters: [{name: c, cluster: {server: '%s'}}]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it has no current-context"),
        ("[]", "it has no current-context"),
        ("current-context: ''", "it has no current-context"),
        ("{", "it is no YAML"),
        ("\x00", "it is no YAML"),
        ("current-context: x", "it has no context 'x'"),
        ("current-context: x\ncontexts: 5", "it has no context 'x'"),
        ("current-context: x\ncontexts: [x, {}]", "it has no context 'x'"),
        ("current-context: x\ncontexts: [{name: x, context: 5}]", "it has no context 'x'"),
        (_CONTEXT, "it has no cluster 'c'"),
        (_CONTEXT + _CLUSTER % "https://h", "it has no user 'u'"),
        (_CONTEXT + _CLUSTER % "" + "users: [{name: u}]", "it names no server: ''"),
        (_CONTEXT + _CLUSTER % "ftp://h" + "users: [{name: u}]", "it names no server: 'ftp://h'"),
        (_CONTEXT + _CLUSTER % "https://h:port" + "users: [{name: u}]", "its server 'https://h:port' is no URL"),
        (_CONTEXT + _CLUSTER % "https://[h" + "users: [{name: u}]", "its server 'https://[h' is no URL"),
        (_CONTEXT + "clusters: [{name: c, cluster: {server: 5}}]\nusers: [{name: u}]", "its server 5 is no URL"),
        (_CONTEXT + "clusters: [{name: c, cluster: {certificate-authority: none.pem}}]", "/none.pem: No such file"),
    ],
)
def test_a_broken_file_is_one_line_in_words(tmp_path, text, problem):
    path = tmp_path / "config"
    path.write_text(text)
    assert problem in complaint(path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "config"
    path.write_bytes(b"\xff\xfe")
    assert complaint(path).endswith("it is no text")


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert complaint(tmp_path / "none").endswith("No such file or directory")


def complaint(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        given(path)
    words = str(caught.value)
    assert words.startswith(f"the kubeconfig {path} cannot be used: ")
    assert "\n" not in words
    assert "Error" not in words
    return words


def test_the_stand_ins_kubeconfig_holds_its_ca_and_token():
    config = yaml.safe_load(stand_in("https://h:1", b"pem", "t"))
    assert config["users"][0]["user"] == {"token": "t"}
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == b"pem"
