import errno
import os
import subprocess
import sys

import pytest

from podidentity.emulator.lab.preflight import Part, explain, explain_missing

SWITCHES = (
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "user.max_user_namespaces",
)


@pytest.mark.netns
def test_where_a_lab_works_nothing_is_missing():
    assert explain_missing() == []


@pytest.mark.parametrize(
    ("name", "forbidding", "advice"),
    [
        (SWITCHES[0], "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (SWITCHES[1], "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        (SWITCHES[2], "0", "sysctl -w user.max_user_namespaces=10000"),
    ],
)
def test_an_ordinary_user_is_told_the_switch_that_forbids_it(name, forbidding, advice):
    sysctls = dict(zip(SWITCHES, ("1", "0", "90000"), strict=True)) | {name: forbidding}
    told = explain(Part.NAMESPACES, errno.EPERM, root=False, sysctls=sysctls)
    assert told[0] == "this machine cannot make namespaces: Operation not permitted"
    assert [line for line in told if "sysctl" in line] == [f"this kernel forbids it to ordinary users: {advice}"]
    assert "run it as root" in told[-1]


def test_switches_that_a_kernel_does_not_have_are_not_named():
    told = explain(Part.MOUNTS, errno.EPERM, root=False, sysctls=dict.fromkeys(SWITCHES, ""))
    assert not any("sysctl" in line for line in told)


def test_root_in_a_container_is_told_the_capabilities():
    told = explain(Part.NAMESPACES, errno.EPERM, root=True, sysctls={})
    assert "SYS_ADMIN and NET_ADMIN" in told[1]


@pytest.mark.parametrize("part", [Part.VETH, Part.BRIDGE, Part.NFTABLES])
def test_what_is_not_permitted_lacks_the_capability_and_not_the_module(part):
    told = explain(part, errno.EPERM, root=True, sysctls={})
    assert "module" not in "".join(told)
    assert "NET_ADMIN" in told[1]


@pytest.mark.parametrize("part", [Part.VETH, Part.BRIDGE, Part.NFTABLES])
def test_a_missing_module_is_named_to_everybody(part):
    for root in (True, False):
        told = explain(part, errno.EOPNOTSUPP, root=root, sysctls={})
        assert told[1].startswith("load the kernel module")


@pytest.mark.netns
@pytest.mark.parametrize(
    ("capability", "part"), [("sys_admin", "make namespaces"), ("net_admin", "make a veth pair")]
)
def test_root_without_a_capability_learns_it_by_trying(capability, part):
    if os.geteuid() != 0:
        pytest.skip("only root can give a capability up")
    program = "from podidentity.emulator.lab.preflight import explain_missing; print(*explain_missing(), sep='\\n')"
    command = ["setpriv", f"--bounding-set=-{capability}", sys.executable, "-c", program]
    told = subprocess.check_output(command, text=True, stderr=subprocess.STDOUT)
    assert told.splitlines() == [
        f"this machine cannot {part}: Operation not permitted",
        "in a container: add the capabilities SYS_ADMIN and NET_ADMIN, or run it with --privileged",
    ]
