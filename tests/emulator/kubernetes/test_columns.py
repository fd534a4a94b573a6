from datetime import UTC, datetime

import pytest

from podidentity.emulator.kubernetes.columns import BUILT_IN, age, human_duration, json_path

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "<invalid>"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600 + 60, "9h"),
        (49 * 3600, "2d1h"),
        (30 * 86400, "30d"),
        (800 * 86400, "2y"),
    ],
)
def test_ages_read_as_kubectl_writes_them(seconds, text):
    assert human_duration(seconds) == text


def test_the_age_of_nothing_is_unknown():
    assert age(None, NOW) == "<unknown>"
    assert age("2026-01-01T00:00:00Z", NOW) == "24h"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".a.b", 1),
        (".a.none.c", None),
        (r".a.x\.y/z", 2),
        (".a['x.y/z']", 2),
        (".l[1]", "q"),
        (".l[9]", None),
        ('.c[?(@.type=="Ready")].status', "True"),
        ('.c[?(@.type=="Other")].status', None),
    ],
)
def test_json_paths_find_their_way(path, value):
    obj = {"a": {"b": 1, "x.y/z": 2}, "l": ["p", "q"], "c": [{"type": "Ready", "status": "True"}]}
    assert json_path(path)(obj) == value


META = {"name": "x", "creationTimestamp": "2026-01-01T23:59:00Z"}


@pytest.mark.parametrize(
    ("plural", "obj", "cells"),
    [
        (
            "pods",
            {
                "spec": {"containers": [{}, {}], "nodeName": "n"},
                "status": {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "containerStatuses": [{"ready": True, "restartCount": 3}, {"ready": False, "restartCount": 1}],
                },
            },
            ["x", "1/2", "Running", "4", "60s", "10.0.0.1", "n"],
        ),
        (
            "nodes",
            {
                "metadata": META | {"labels": {"node-role.kubernetes.io/worker": ""}},
                "spec": {"unschedulable": True},
                "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}},
            },
            ["x", "Ready,SchedulingDisabled", "worker", "60s", "v1", "<none>"],
        ),
        (
            "events",
            {
                "type": "Normal",
                "reason": "R",
                "involvedObject": {"kind": "Pod", "name": "p"},
                "message": "m",
                "lastTimestamp": "2026-01-01T23:59:55Z",
            },
            ["5s", "Normal", "R", "pod/p", "m", "x"],
        ),
        ("deployments", {"spec": {"replicas": 2}, "status": {"readyReplicas": 1}}, ["x", "1/2", 0, 0, "60s"]),
        ("configmaps", {"data": {"a": "1"}}, ["x", 1, "60s"]),
        ("leases", {"spec": {"holderIdentity": "me"}}, ["x", "me", "60s"]),
    ],
)
def test_built_in_kinds_show_what_kubectl_shows(plural, obj, cells):
    assert [column.cell({"metadata": META} | obj, NOW) for column in BUILT_IN[plural]] == cells


def test_a_pod_that_goes_is_terminating():
    obj = {"metadata": META | {"deletionTimestamp": META["creationTimestamp"]}, "spec": {}}
    assert BUILT_IN["pods"][2].cell(obj, NOW) == "Terminating"
