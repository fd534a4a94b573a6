import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from podidentity.emulator.lab import enter, netns

pytestmark = pytest.mark.netns

NETWORK = "import os; print(os.readlink('/proc/self/ns/net'))"


async def output(process):
    text, _ = await process.communicate()
    return process.returncode, text.decode().strip()


def network():
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_a_command_runs_inside_the_namespace_and_the_caller_stays_outside(isolated):
    async def scenario():
        netns.create("pod")
        before = network()
        process = await enter.spawn("pod", sys.executable, "-c", NETWORK, stdout=subprocess.PIPE)
        assert await output(process) == (0, netns.run_in("pod", network))
        assert network() == before
        process = await enter.spawn(None, sys.executable, "-c", NETWORK, stdout=subprocess.PIPE)
        assert await output(process) == (0, before)

    isolated(scenario)


def test_arguments_environment_and_exit_code_are_the_command_s(isolated):
    async def scenario():
        netns.create("pod")
        command = 'echo "$1" $WORD; exit 9'
        environment = {**os.environ, "WORD": "by environment"}
        process = await enter.spawn(
            "pod", "sh", "-c", command, "sh", "by -- argument", env=environment, stdout=subprocess.PIPE
        )
        assert await output(process) == (9, "by -- argument by environment")

    isolated(scenario)


def test_a_signal_reaches_the_command_itself(isolated):
    async def scenario():
        netns.create("pod")
        process = await enter.spawn("pod", "sh", "-c", "echo ready; exec sleep 1000", stdout=subprocess.PIPE)
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    isolated(scenario)


@pytest.mark.parametrize(("name", "program"), [("no-such-pod", "true"), ("pod", "no-such-program")])
def test_what_cannot_be_run_says_so_and_exits_as_shells_do(isolated, name, program):
    async def scenario():
        netns.create("pod")
        process = await enter.spawn(name, program, stderr=subprocess.PIPE)
        _, error = await process.communicate()
        assert process.returncode == 127
        assert error.decode().startswith(f"cannot run {program} in {name}: ")

    isolated(scenario)


@pytest.mark.parametrize("arguments", [[], ["pod"], ["pod", "--"], ["pod", "sh", "-c", "true"]])
def test_wrong_arguments_are_answered_with_the_usage(capsys, arguments):
    assert enter.main(arguments) == os.EX_USAGE
    assert "usage:" in capsys.readouterr().err


def test_a_socket_stays_in_the_namespace_where_it_was_made(isolated):
    def scenario():
        netns.create("pod")
        with netns.socket_in("pod", socket.AF_INET, "0.0.0.0", 0) as inside:
            port = inside.getsockname()[1]
            with netns.socket_in(None, socket.AF_INET, "0.0.0.0", port) as outside:  # the same port is free here
                assert outside.getsockname() == inside.getsockname()

    isolated(scenario)


def test_an_exception_inside_comes_out(isolated):
    def scenario():
        netns.create("pod")
        with pytest.raises(ZeroDivisionError):
            netns.run_in("pod", lambda: 1 / 0)

    isolated(scenario)
