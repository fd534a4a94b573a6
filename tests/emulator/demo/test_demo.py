"""The demo as its user runs it: a process, its output, its exit code, and what it leaves behind."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from podidentity.emulator.demo.kubeconfigs import stand_in

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]
COMMAND = [sys.executable, "-m", "podidentity", "demo", "--operation-seconds", "0.5"]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a demo whose files go to `tmp_path`; whatever the test does, it is over afterwards."""
    with ExitStack() as stack:

        def start_one(*options: str, path: str | None = None) -> "subprocess.Popen[str]":
            environment = {**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"}
            demo = subprocess.Popen(
                [*COMMAND, *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment if path is None else environment | {"PATH": path},
            )
            stack.enter_context(demo)
            stack.callback(demo.kill)
            return demo

        yield start_one


def await_line(demo: "subprocess.Popen[str]", words: str) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if words in line:
            return
    pytest.fail(f"the demo ended before it said: {words}")


def processes_with(words: str) -> dict[int, str]:
    """Command lines that contain these words, by process ID."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode()
    return {number: command for number, command in found.items() if words in command}


def alive_with(folder: Path) -> list[str]:
    """Command lines of processes that name the folder of the run."""
    return list(processes_with(str(folder)).values())


def test_the_demo_goes_through_all_steps_and_leaves_nothing(start, tmp_path):
    demo = start()
    printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, printed
    assert "✗" not in printed
    for step in ("curl in the bound pod", "azure-identity", "/host/token/", "is refused", "leaves the scale set"):
        assert any("✓" in line and step in line for line in printed.splitlines()), step
    assert '"appid": "11111111-1111-1111-1111-111111111111"' in printed
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_no_program_but_python(start, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    demo = start(path=str(empty))
    printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, printed


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "Kubernetes API"),
        (signal.SIGINT, "AzureAssignedIdentity is Created"),
        (signal.SIGINT, "azure-identity"),
        (signal.SIGTERM, "AzureAssignedIdentity is Created"),
        (signal.SIGHUP, "become ready"),
    ],
)
def test_a_signal_takes_everything_back_at_any_step(start, tmp_path, number, moment):
    demo = start()
    await_line(demo, moment)
    demo.send_signal(number)
    printed, _ = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "interrupted: everything has been taken back" in printed
    for noise in ("Traceback", "never retrieved", "CancelledError"):
        assert noise not in printed
    assert alive_with(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_interrupted_says_so(start):
    demo = start()
    await_line(demo, "AzureAssignedIdentity is Created")  # the next one waits for Azure
    demo.send_signal(signal.SIGINT)
    printed, _ = demo.communicate(timeout=20)
    assert [line.strip() for line in printed.splitlines()][1] == "interrupted"


def test_a_terminal_that_closes_takes_everything_back(tmp_path):
    child, terminal = pty.fork()
    if not child:
        os.execve(COMMAND[0], [*COMMAND, "--keep"], {**os.environ, "TMPDIR": str(tmp_path)})
    with open(terminal, "rb", buffering=0) as screen:  # noqa: PTH123 - a descriptor, not a path
        seen = b""
        while b"until Ctrl-C" not in seen:
            seen += screen.read(4096)
    os.waitpid(child, 0)
    assert alive_with(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_goes_on_running_after_kill_9(start, tmp_path):
    demo = start("--keep")
    await_line(demo, "until Ctrl-C")
    demo.kill()
    demo.wait(5)
    deadline = time.monotonic() + 5
    while alive_with(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive_with(tmp_path) == []


def test_keep_ends_well_with_ctrl_c_and_its_kubeconfig_works_from_outside(start, tmp_path):
    demo = start("--keep")
    await_line(demo, "until Ctrl-C")
    [kubeconfig] = tmp_path.glob("*/kubeconfig")
    script = (
        "import asyncio, sys\n"
        "from podidentity.kube.client import KubeClient\n"
        "from podidentity.kube.resources import ASSIGNED_IDENTITIES\n"
        "from podidentity.kube.transport import connect\n"
        "async def main():\n"
        "    transport = await connect(sys.argv[1])\n"
        "    found = await KubeClient(transport).list(ASSIGNED_IDENTITIES)\n"
        "    print(sorted(item['status']['status'] for item in found['items']))\n"
        "    await transport.close()\n"
        "asyncio.run(main())\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(kubeconfig)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "['Assigned', 'Assigned']"
    demo.send_signal(signal.SIGINT)
    printed, _ = demo.communicate(timeout=20)
    assert demo.returncode == 0, printed
    assert "Summary" in printed


def test_keep_runs_pods_that_are_created_again_and_says_when_a_program_has_ended(start, tmp_path):
    demo = start("--keep")
    await_line(demo, "until Ctrl-C")
    [kubeconfig] = tmp_path.glob("*/kubeconfig")
    script = (
        "import asyncio, sys\n"
        "from podidentity.api.meta import Key\n"
        "from podidentity.emulator.demo.cluster import DemoCluster, objects\n"
        "from podidentity.kube.client import KubeClient\n"
        "from podidentity.kube.resources import PODS\n"
        "from podidentity.kube.transport import connect\n"
        "async def main():\n"
        "    transport = await connect(sys.argv[1])\n"
        "    cluster, client = DemoCluster(transport), KubeClient(transport)\n"
        "    await client.delete(PODS, Key('demo', 'second'))\n"
        "    await cluster.wait_for_state('second', None, seconds=10)\n"
        "    [pod] = [it for it in objects() if it['metadata']['name'] == 'second']\n"
        "    await client.create(PODS, 'demo', pod)\n"
        "    await cluster.wait_for_state('second', 'Assigned', seconds=10)\n"
        "    print((await client.get(PODS, Key('demo', 'second')))['status']['podIP'])\n"
        "    await transport.close()\n"
        "asyncio.run(main())\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(kubeconfig)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "10.244.0.11"
    [controller] = processes_with(f"podidentity controller --kubeconfig={tmp_path}")
    os.kill(controller, signal.SIGKILL)
    await_line(demo, "podidentity controller has ended with -9")
    demo.send_signal(signal.SIGINT)
    printed, _ = demo.communicate(timeout=20)
    assert demo.returncode == 1
    assert "controller ended with -9" in printed


def test_an_api_server_that_does_not_answer_fails_its_step_under_its_own_name(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        server = f"https://127.0.0.1:{closed.getsockname()[1]}"
    config = tmp_path / "config"
    config.write_text(stand_in(server, b"", "t"))
    demo = start("--kubeconfig", str(config))
    printed, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert any("✗" in line and f"{server} answers" in line for line in printed.splitlines())
    assert f"the API server {server} does not answer" in printed
    assert "10.240.0.1" not in printed
    assert "Summary" in printed


def test_a_step_that_fails_is_named_and_the_exit_code_says_so(start, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "curl").write_text('#!/bin/sh\necho \'{"error": "broken"}\'\n')
    (broken / "curl").chmod(0o755)
    demo = start(path=f"{broken}:{os.environ['PATH']}")
    printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert any("✗" in line for line in printed.splitlines())
    assert "was refused" in printed
    assert alive_with(tmp_path) == []
