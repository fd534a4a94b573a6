import subprocess
import sys

import pytest

from podidentity.api.errors import ConfigurationError
from podidentity.flags import CONTROLLER_UNNEEDED, NODE_UNNEEDED, Unneeded, from_pflag, unneeded_words

BOOLEANS = {"--forceNamespaced", "--metadata-header-required"}
UNNEEDED = {"--logtostderr": Unneeded("x", is_switch=True), "--clientQps": Unneeded("y")}


def translated(*arguments: str) -> list[str]:
    return from_pflag(arguments, booleans=BOOLEANS, unneeded=UNNEEDED)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--forceNamespaced", "--forceNamespaced"),
        *[(f"--forceNamespaced={word}", "--forceNamespaced") for word in ("1", "t", "T", "TRUE", "true", "True")],
        *[
            (f"--forceNamespaced={word}", "--no-forceNamespaced")
            for word in ("0", "f", "F", "FALSE", "false", "False")
        ],
    ],
)
def test_booleans_are_read_as_go_reads_them(argument, expected):
    assert translated(argument) == [expected]


@pytest.mark.parametrize("word", ["", "yes", "no", "tRUE", "2"])
def test_a_boolean_that_go_would_not_read_is_refused(word):
    with pytest.raises(ConfigurationError, match=f"--forceNamespaced={word}: the value must be true or false"):
        translated(f"--forceNamespaced={word}")


def test_a_short_flag_may_have_its_value_after_an_equals_sign():
    assert translated("-v=5", "-v5", "-v", "5") == ["-v", "5", "-v5", "-v", "5"]


def test_flags_with_values_stay_as_they_are():
    given = ["--kubeconfig=/a=b", "--node", "n", "--prometheus-port=8888"]
    assert translated(*given) == given


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["--logtostderr", "--node", "n"], ["--node", "n"]),
        (["--logtostderr=true", "n"], ["n"]),
        (["--clientQps=5", "n"], ["n"]),
        (["--clientQps", "5", "n"], ["n"]),
        (["--clientQps"], []),
    ],
)
def test_flags_that_mean_nothing_here_are_taken_out_with_their_values(given, left):
    assert translated(*given) == left


def test_a_flag_whose_name_begins_like_another_is_left_alone():
    assert translated("--logtostderrs", "--clientQps2=1") == ["--logtostderrs", "--clientQps2=1"]


@pytest.mark.parametrize("flags", [CONTROLLER_UNNEEDED, NODE_UNNEEDED])
def test_each_flag_that_means_nothing_is_named_with_its_reason(flags):
    words = unneeded_words(flags)
    for name, flag in flags.items():
        assert f"{name} ({flag.why})" in words
        assert flag.why != "the same"


MIC = """
--cloudconfig=/x --forceNamespaced=true --syncRetryDuration=3600s --leader-election-instance=a
--leader-election-namespace=default --leader-election-name=n --leader-election-duration=15s --http-probe-port=8080
--prometheus-port=8888 --enableProfile=false --enableScaleFeatures=true --createDeleteBatch=20 --clientQps=5
--immutable-user-msis= --config-map-name=c --type-upgrade-status-key=k --enable-type-upgrade=true
--update-user-msi-max-retry=2 --update-user-msi-retry-interval=1s --identity-assignment-reconcile-interval=3m
--kubeconfig= --logtostderr -v=6 --log-format=json --custom-user-agent=x
"""
NMI = """
--nmi-listen-address=127.0.0.1 --nmi-port=2579 --metadata-ip=169.254.169.254 --metadata-port=80 --node=n
--host-ip=10.0.0.1
--ipt-update-interval-sec=60 --forceNamespaced --MICNamespace=default --http-probe-port=8085
--retry-attempts-for-created=16 --retry-attempts-for-assigned=4 --find-identity-retry-interval=5
--enableProfile=false --enableScaleFeatures=true --block-instance-metadata=false --metadata-header-required=true
--prometheus-port=9090 --operation-mode=standard --allow-network-plugin-kubenet=false
--kubelet-config=/etc/default/kubelet
--set-retry-after-header=false --enable-conntrack-deletion=false
--kubeconfig= --logtostderr=true -v=6 --log-format=json
"""


@pytest.mark.parametrize(("mode", "flags"), [("controller", MIC), ("node", NMI)])
def test_every_flag_that_upstream_knows_is_taken(mode, flags):
    command = [sys.executable, "-m", "podidentity", mode, *flags.split(), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["controller", "node"])
def test_a_flag_that_nobody_knows_is_refused(mode):
    command = [sys.executable, "-m", "podidentity", mode, "--nonsense=1", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--nonsense" in done.stderr
