"""The command line as its user meets it: a process, one clear line, an exit code."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest
import typer

from podidentity.cli import app

SERVICE_PRINCIPAL = {"TENANT_ID": "t", "CLIENT_ID": "c", "CLIENT_SECRET": "very-secret"}


def podidentity(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "AZURE"))}
    return subprocess.run(
        [sys.executable, "-m", "podidentity", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**kept, "COLUMNS": "200", **environment},
    )


def complaint(*words: str, **environment: str) -> str:
    ended = podidentity(*words, **environment)
    assert ended.returncode == 1, ended
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert "very-secret" not in ended.stderr
    return lines[0]


@pytest.mark.parametrize("command", ["controller", "node", "demo"])
def test_every_command_explains_itself(command):
    shown = podidentity(command, "--help")
    assert shown.returncode == 0
    assert "Usage" in shown.stdout


@pytest.mark.parametrize("command", ["controller", "node", "demo"])
@pytest.mark.parametrize("columns", ["80", ""], ids=["a terminal", "a pipe"])
def test_help_shows_every_flag_in_full_and_no_frames(command, columns):
    shown = podidentity(command, "--help", COLUMNS=columns).stdout
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    for flag in (name for parameter in root.commands[command].params for name in parameter.opts):
        assert re.search(rf"(^|[ ,]){flag}\b", shown, re.MULTILINE), flag
    assert all(len(line) <= 80 for line in shown.split("Taken because")[0].splitlines())
    assert shown.isascii()


@pytest.mark.parametrize("seconds", ["inf", "nan", "61", "-1"])
def test_an_operation_that_outlasts_the_waiting_request_is_refused(seconds):
    ended = podidentity("demo", "--operation-seconds", seconds)
    assert ended.returncode == 2
    assert "--operation-seconds" in ended.stderr


def test_ctrl_c_while_something_is_imported_ends_without_a_traceback():
    script = (
        "import signal, sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "from podidentity.cli import main\n"
        "class Impatient(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'podidentity.emulator.demo.run': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "sys.argv[1:] = ['demo']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("words", [["--version"], ["controller", "--version"], ["node", "--version"]])
def test_the_version_is_printed_wherever_upstream_took_the_flag(words):
    shown = podidentity(*words)
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "podidentity")


def test_a_controller_without_credentials_says_which_are_missing():
    assert "tenantId (TENANT_ID), aadClientId (CLIENT_ID)" in complaint("controller")


def test_a_missing_azure_json_is_named(tmp_path):
    assert "azure.json cannot be read: No such file" in complaint(
        "controller", f"--cloudconfig={tmp_path}/azure.json"
    )


def test_a_broken_azure_json_is_one_line_without_its_content(tmp_path):
    broken = tmp_path / "azure.json"
    broken.write_text('{"aadClientSecret": "very-secret",, ')
    assert "neither JSON nor YAML at line 1" in complaint("controller", f"--cloudconfig={broken}")


def test_an_unknown_cloud_lists_the_known_ones():
    assert "AzureChinaCloud" in complaint("controller", **SERVICE_PRINCIPAL, CLOUD="Cumulus")


def test_a_custom_cloud_without_its_file_says_so():
    assert "AZURE_ENVIRONMENT_FILEPATH" in complaint("controller", **SERVICE_PRINCIPAL, CLOUD="AzureStackCloud")


def test_no_api_server_at_all_is_said_at_once():
    assert "give --kubeconfig or KUBECONFIG" in complaint(
        "controller", "--http-probe-port=18080", "--prometheus-port=18888", **SERVICE_PRINCIPAL
    )


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path):
    words = ("controller", f"--kubeconfig={tmp_path}/none", "--http-probe-port=18080", "--prometheus-port=18888")
    assert f"{tmp_path}/none does not exist" in complaint(*words, **SERVICE_PRINCIPAL)


def test_a_taken_port_names_its_flag(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    cluster = {"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}
    config = {"contexts": [context], "clusters": [cluster], "users": [{"name": "x", "user": {}}]}
    kubeconfig.write_text(json.dumps({**config, "current-context": "x"}))
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        line = complaint("controller", f"--kubeconfig={kubeconfig}", f"--http-probe-port={port}", **SERVICE_PRINCIPAL)
    assert f":{port} is taken by another program, or by another flag (flag --http-probe-port)" in line


def test_a_node_without_a_name_says_how_to_give_one():
    assert "--node or NODE_NAME" in complaint("node")


def test_a_mode_that_is_not_there_is_refused_rather_than_ignored():
    assert "--operation-mode managed is not served" in complaint("node", "--node=n", "--operation-mode=managed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["controller", "--unassign=3y"], "'3y' is no duration"),
        (["controller", "--forceNamespaced=maybe"], "must be true or false"),
        (["controller", "--identity-assignment-reconcile-interval=0s"], "is too short"),
        (["node", "--node=n", "--metadata-ip=here"], "--metadata-ip 'here' is no IPv4 address"),
        (["node", "--node=n", "--stale-cache-limit=x"], "--stale-cache-limit: 'x' is no duration"),
    ],
)
def test_a_value_that_cannot_be_read_names_its_flag(words, said):
    assert said in complaint(*words, **SERVICE_PRINCIPAL)


def test_an_unknown_flag_is_refused():
    ended = podidentity("controller", "--forceNamespaces")
    assert ended.returncode == 2
    assert "--forceNamespaces" in ended.stderr


def test_the_flags_of_upstreams_manifests_are_taken():
    mic = [
        "--cloudconfig=/none",
        "--logtostderr",
        "-v=5",
        "--leader-election-namespace=x",
        "--syncRetryDuration",
        "1h",
    ]
    nmi = [
        "--http-probe-port=8085",
        "--enableScaleFeatures=true",
        "--MICNamespace=x",
        "--host-ip=10.0.0.1",
        "-v",
        "1",
    ]
    assert "/none" in complaint("controller", *mic)
    assert "NODE_NAME" in complaint("node", *nmi)


def test_each_mode_imports_only_itself():
    script = (
        "import sys; from podidentity.cli import app\n"
        "heavy = {'fastapi', 'azure.mgmt', 'msal', 'aiohttp', 'pyroute2', 'kubernetes_asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
