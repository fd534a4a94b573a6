import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from podidentity.emulator.lab import netns
from podidentity.emulator.lab.isolation import run_isolated

pytestmark = pytest.mark.netns

SOON = 5.0  # seconds within which a killed tree has gone: it takes milliseconds on an idle machine


def namespace(kind):
    return Path(f"/proc/self/ns/{kind}").readlink()


def snapshot():
    """What of the host a lab could leave behind."""
    with IPRoute() as ip:
        links = sorted(link.get("ifname") for link in ip.get_links())
    run = sorted(path.name for path in Path("/run").iterdir())
    return links, run, Path("/proc/self/mountinfo").read_text(), namespace("net")


def processes_with(marker):
    """PIDs of the processes that carry a marker in their environment."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:  # it has ended meanwhile, or is not ours
            continue
    return found


def wait_until(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_exit_code_is_the_function_s():
    assert run_isolated(lambda _: 7) == 7
    assert run_isolated(lambda _: None) == 0


def test_a_coroutine_function_is_run_in_a_loop():
    async def main(_outside):
        await asyncio.sleep(0)
        return 3

    assert run_isolated(main) == 3


def test_an_exception_inside_is_printed_and_gives_one(capfd):
    def main(_outside):
        raise ValueError("what went wrong")

    assert run_isolated(main) == 1
    assert "ValueError: what went wrong" in capfd.readouterr().err


def test_sys_exit_inside_ends_only_the_inside():
    assert run_isolated(lambda _: sys.exit(4)) == 4


def test_a_signal_that_ends_the_function_shows_as_in_a_shell():
    assert run_isolated(lambda _: os.kill(os.getpid(), signal.SIGKILL)) == 128 + signal.SIGKILL


def test_inside_it_is_root_in_namespaces_of_its_own():
    outside = {kind: namespace(kind) for kind in ("net", "mnt", "pid")}

    def main(_outside):
        assert os.geteuid() == 0
        assert all(namespace(kind) != there for kind, there in outside.items())
        assert os.getpid() < 10
        assert list(Path("/run").iterdir()) == []
        with IPRoute() as ip:
            assert [link.get("ifname") for link in ip.get_links()] == ["lo"]

    assert run_isolated(main) == 0


def test_process_one_reaps_the_orphans():
    def main(_outside):
        child = os.fork()
        if not child:
            if not os.fork():
                time.sleep(0.05)
            os._exit(0)
        os.waitpid(child, 0)
        wait_until(lambda: {int(path.name) for path in Path("/proc").glob("[0-9]*")} <= {1, os.getpid()})

    assert run_isolated(main) == 0


def test_nothing_is_left_on_the_host():
    before = snapshot()

    def main(_outside):
        netns.create("left-behind")
        with IPRoute() as ip:
            ip.link("add", ifname="left0", kind="veth", peer="left1")
        subprocess.Popen(["sleep", "1000"], env={"LEFT": "test-nothing-is-left"})
        wait_until(lambda: processes_with("test-nothing-is-left"))

    assert run_isolated(main) == 0
    assert snapshot() == before
    assert not processes_with("test-nothing-is-left")


SLEEPER = """
import asyncio, os, subprocess, sys
from podidentity.emulator.lab.isolation import run_isolated

def main(outside):
    process = subprocess.Popen(["sleep", "1000"])
    print("inside", flush=True)
    try:
        process.wait()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        try:
            process.wait(0.3)
        except subprocess.TimeoutExpired:
            return 5
        except KeyboardInterrupt:
            return 6

sys.exit(run_isolated(main))
"""


@pytest.fixture(params=["this user", "an ordinary user"])
def sleeper(request, tmp_path):
    """A program that waits isolated; yields it with a marker that all of its processes carry."""
    marker = f"PODIDENTITY_TEST={tmp_path}"
    prefix = [] if request.param == "this user" else request.getfixturevalue("ordinary_user")
    program = subprocess.Popen(
        [*prefix, sys.executable, "-c", SLEEPER],
        stdout=subprocess.PIPE,
        env={**os.environ, **dict([marker.split("=", 1)])},
    )
    with program:
        assert program.stdout
        assert program.stdout.readline() == b"inside\n"
        yield program, marker
        program.kill()


def test_an_interrupt_is_passed_on_exactly_once(sleeper):
    program, marker = sleeper
    program.send_signal(signal.SIGINT)
    assert program.wait(SOON) == 5
    assert not processes_with(marker)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_program_is_passed_on(sleeper, number):
    program, marker = sleeper
    program.send_signal(number)
    assert program.wait(SOON) == 128 + number
    assert not processes_with(marker)


def test_what_is_started_with_nohup_outlives_its_terminal():
    program = ["nohup", sys.executable, "-c", SLEEPER]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as started:
        assert started.stdout
        assert started.stdout.readline() == b"inside\n"
        started.send_signal(signal.SIGHUP)
        started.send_signal(signal.SIGINT)
        assert started.wait(SOON) == 5


def test_killing_the_caller_ends_everything_inside(sleeper):
    program, marker = sleeper
    before = snapshot()
    assert len(processes_with(marker)) == 5  # caller, outer, init, the function, sleep
    program.kill()
    program.wait(SOON)
    wait_until(lambda: not processes_with(marker))
    assert snapshot() == before


@pytest.mark.parametrize("which", [1, 2, 3], ids=["outer", "init", "the function"])
def test_killing_any_process_of_the_tree_ends_the_others(sleeper, which):
    program, marker = sleeper
    victim = sorted(processes_with(marker))[which]
    os.kill(victim, signal.SIGKILL)
    assert program.wait(SOON) == 128 + signal.SIGKILL
    wait_until(lambda: not processes_with(marker))


def test_a_listening_socket_from_before_serves_the_host_s_network():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = listener.getsockname()

        def main(_outside):
            with pytest.raises(OSError, match=r"unreachable|refused"):
                socket.create_connection(address, timeout=1)
            with listener.accept()[0] as accepted:
                accepted.sendall(b"from inside")

        client = socket.socket()
        client.settimeout(SOON)
        with client:
            client.connect(address)  # the kernel completes it: the backlog needs nobody to accept
            assert run_isolated(main) == 0
            assert client.recv(100) == b"from inside"
