"""The whole of it as an ordinary user: node, pods, rules, a request."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.netns

STORY = """
import os, socket, sys
from ipaddress import IPv4Address
from podidentity.emulator.lab import netns
from podidentity.emulator.lab.isolation import run_isolated
from podidentity.emulator.lab.network import Attach, Lab
from podidentity.emulator.lab.preflight import explain_missing
from podidentity.node import redirect
from podidentity.node.address import node_address

def main(outside):
    with Lab() as lab:
        lab.add_node("node", IPv4Address("10.240.0.4"))
        lab.add_pod("node", "pod-1", IPv4Address("10.244.0.10"))
        lab.add_pod("node", "pod-2", IPv4Address("10.244.0.11"), attach=Attach.BRIDGE)
        address = netns.run_in("node", node_address)
        rules = redirect.Redirect(lab.metadata_address, 80, address, 2579)
        netns.run_in("node", lambda: redirect.preflight(rules))
        netns.run_in("node", lambda: redirect.apply(rules))
        assert netns.run_in("node", lambda: redirect.installed(rules))
        with netns.socket_in("node", socket.AF_INET, "0.0.0.0", 2579) as agent:
            for pod in lab.pods:
                with netns.connection_in(pod, "169.254.169.254", 80), agent.accept()[0] as accepted:
                    print(pod, accepted.getpeername()[0])

assert os.geteuid() != 0
assert explain_missing() == []
sys.exit(run_isolated(main))
"""


def test_an_ordinary_user_has_a_node_with_pods_and_a_redirect(ordinary_user):
    command = [*ordinary_user, sys.executable, "-c", STORY]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["pod-1 10.244.0.10", "pod-2 10.244.0.11"]
    assert ended.returncode == 0
