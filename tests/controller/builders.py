"""Records for tests of decisions, and hypothesis strategies of small worlds in which names collide often."""

from hypothesis import strategies as st

from podidentity.api.identities import (
    BEHAVIOR_ANNOTATION,
    AssignedState,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
    SecretRef,
)
from podidentity.api.matching import Match
from podidentity.api.meta import BINDING_LABEL, Meta
from podidentity.api.workloads import Pod, PodSpec, PodStatus
from podidentity.controller.objects import MANAGED_BY, OURS

SUBSCRIPTION = "/subscriptions/s/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities"


def resource_id(name: str) -> str:
    return f"{SUBSCRIPTION}/{name}"


def identity(
    name: str = "x", namespace: str = "default", *, namespaced: bool = False, **fields: object
) -> AzureIdentity:
    annotations = {BEHAVIOR_ANNOTATION: "namespaced"} if namespaced else None
    meta = Meta(name=name, namespace=namespace, uid=f"uid-{name}", resource_version="1", annotations=annotations)
    defaults: dict[str, object] = {"resource_id": resource_id(name), "client_id": f"client-{name}"}
    return AzureIdentity(meta, **(defaults | fields))  # type: ignore[arg-type]


def binding(
    name: str = "b",
    namespace: str = "default",
    *,
    to: str = "x",
    selector: str = "s",
    weight: int = 0,
    problem: str = "",
) -> AzureIdentityBinding:
    meta = Meta(name=name, namespace=namespace, resource_version="1")
    return AzureIdentityBinding(meta, azure_identity=to, selector=selector, weight=weight, problem=problem)


def pod(
    name: str = "p", namespace: str = "default", *, label: str = "s", node: str = "n", phase: str = "Running"
) -> Pod:
    labels = {BINDING_LABEL: label} if label else None
    return Pod(Meta(name=name, namespace=namespace, labels=labels), PodSpec(node_name=node), PodStatus(phase=phase))


def assigned(
    of: Pod,
    match: Match,
    *,
    name: str = "a",
    state: AssignedState = AssignedState.ASSIGNED,
    deleted: bool = False,
    ours: bool = True,
    problem: str = "",
) -> AzureAssignedIdentity:
    meta = Meta(
        name=name,
        namespace=match.namespace,
        labels={MANAGED_BY: OURS} if ours else None,
        deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None,
    )
    return AzureAssignedIdentity(
        meta,
        identity=match.identity,
        binding=match.binding,
        pod=of.key,
        node=of.spec.node_name,
        state=state,
        problem=problem,
    )


names = st.sampled_from(["a", "b", "a-b", "b-c", "c"])
namespaces = st.sampled_from(["default", "a", "b-c"])
labels = st.sampled_from(["s", "t", ""])
identities = st.builds(
    identity,
    names,
    namespaces,
    namespaced=st.booleans(),
    type=st.sampled_from(IdentityType),
    tenant_id=st.sampled_from(["", "t"]),
    auxiliary_tenant_ids=st.sampled_from([(), ("u", "v")]),
    ad_endpoint=st.sampled_from(["", "https://login"]),
    client_password=st.sampled_from([SecretRef(), SecretRef("s", "ns")]),
    problem=st.sampled_from(["", "", "", "broken"]),
)
bindings = st.builds(
    binding,
    names,
    namespaces,
    to=names,
    selector=st.sampled_from(["s", "t"]),
    weight=st.integers(-1, 2),
    problem=st.sampled_from(["", "", "", "broken"]),
)
pods = st.builds(
    pod,
    names,
    namespaces,
    label=labels,
    node=st.sampled_from(["n", "m", ""]),
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
)
