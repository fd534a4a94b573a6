import pytest

from podidentity.kube.resources import ASSIGNED_IDENTITIES, NODES, PODS

CUSTOM = "/apis/aadpodidentity.k8s.io/v1"


@pytest.mark.parametrize(
    ("resource", "place", "expected"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("ns",), "/api/v1/namespaces/ns/pods"),
        (PODS, ("ns", "a"), "/api/v1/namespaces/ns/pods/a"),
        (NODES, ("", "n"), "/api/v1/nodes/n"),
        (NODES, ("ignored", "n"), "/api/v1/nodes/n"),
        (ASSIGNED_IDENTITIES, ("ns", "a"), f"{CUSTOM}/namespaces/ns/azureassignedidentities/a"),
    ],
)
def test_paths_are_those_of_the_api(resource, place, expected):
    assert resource.path(*place) == expected
