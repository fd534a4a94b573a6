"""The demo as its user runs it: a process, its output, its exit code, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

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


def alive_with(folder: Path) -> list[str]:
    """Command lines of processes that name the folder of the run."""
    commands = (path.read_bytes().replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return [command for command in commands if str(folder) in command]


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["become ready", "AzureAssignedIdentity is Created", "azure-identity"])
def test_a_signal_takes_everything_back_at_any_step(start, tmp_path, number, moment):
    demo = start()
    await_line(demo, moment)
    demo.send_signal(number)
    assert demo.wait(20) == 130
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
