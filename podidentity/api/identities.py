"""The four CRD kinds of AAD Pod Identity (group aadpodidentity.k8s.io/v1) as records.

Upstream's CRDs had no schema, its fields were capitalised before v1.6.0 (`ClientID`), and Go's decoder never minded
the case. So each `spec` is read by hand, without regard to case, and whatever cannot be used becomes `problem`, a
reason in words: one bad object never stops a loop.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any

import msgspec

from podidentity.api import ids
from podidentity.api.decoding import decode
from podidentity.api.errors import InvalidValue
from podidentity.api.fields import integer, mapping, strings, text
from podidentity.api.meta import Key, Meta, Raw

GROUP, VERSION = "aadpodidentity.k8s.io", "v1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = "azureassignedidentity.finalizers.aadpodidentity.k8s.io"
BEHAVIOR_ANNOTATION = "aadpodidentity.k8s.io/Behavior"
NODE_LABEL = "nodename"
"""Label of an AzureAssignedIdentity: each node agent watches only its own node's."""


class IdentityType(IntEnum):
    """`AzureIdentity.spec.type`."""

    USER_ASSIGNED = 0
    SERVICE_PRINCIPAL = 1
    SERVICE_PRINCIPAL_CERTIFICATE = 2


class AssignedState(StrEnum):
    """`AzureAssignedIdentity.status.status`. Very old MICs wrote none, which counts as usable."""

    CREATED = "Created"
    ASSIGNED = "Assigned"
    UNASSIGNED = "Unassigned"
    NONE = ""


class SecretRef(msgspec.Struct, frozen=True, gc=False):
    """`clientPassword`: where the secret or certificate of a service principal lies."""

    name: str = ""
    namespace: str = ""


class AzureIdentity(msgspec.Struct, frozen=True):
    """An identity in Azure that pods may be bound to. IDs are normalised; `problem` is empty when it is usable."""

    metadata: Meta
    type: IdentityType = IdentityType.USER_ASSIGNED
    resource_id: str = ""
    client_id: str = ""
    tenant_id: str = ""
    auxiliary_tenant_ids: tuple[str, ...] = ()
    ad_resource_id: str = ""
    ad_endpoint: str = ""
    client_password: SecretRef = SecretRef()
    problem: str = ""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.key

    @property
    def namespaced(self) -> bool:
        """Whether this identity serves only pods of its own namespace, by its own annotation."""
        return self.metadata.annotation(BEHAVIOR_ANNOTATION) == "namespaced"


class AzureIdentityBinding(msgspec.Struct, frozen=True):
    """Binds the pods whose label equals `selector` to the identity of that name in the same namespace."""

    metadata: Meta
    azure_identity: str = ""
    selector: str = ""
    weight: int = 0
    problem: str = ""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.key

    @property
    def identity_key(self) -> Key:
        """The AzureIdentity that this binding names."""
        return Key(self.metadata.namespace, self.azure_identity)


class AzureAssignedIdentity(msgspec.Struct, frozen=True):
    """What the controller writes and the node agent obeys: this pod, on this node, may use this identity.

    `identity` and `binding` are the whole objects embedded at the time of writing.
    """

    metadata: Meta
    identity: AzureIdentity
    binding: AzureIdentityBinding
    pod: Key
    node: str = ""
    state: AssignedState = AssignedState.NONE
    problem: str = ""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.key

    @property
    def usable(self) -> bool:
        """Whether a token may be issued on it now."""
        ready = self.state in (AssignedState.ASSIGNED, AssignedState.NONE)
        return ready and not self.problem and not self.metadata.terminating


class AzurePodIdentityException(msgspec.Struct, frozen=True):
    """Pods of this namespace with these labels reach the node's own identities."""

    metadata: Meta
    pod_labels: Mapping[str, str] = {}
    problem: str = ""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.key


_RAW = msgspec.json.Decoder(Raw)


def read_identity(data: bytes | msgspec.Raw) -> AzureIdentity:
    """Decode an AzureIdentity as the API server sends it."""
    raw = decode(_RAW, data)
    return _identity(raw.metadata, raw.spec)


def read_binding(data: bytes | msgspec.Raw) -> AzureIdentityBinding:
    """Decode an AzureIdentityBinding as the API server sends it."""
    raw = decode(_RAW, data)
    return _binding(raw.metadata, raw.spec)


def read_exception(data: bytes | msgspec.Raw) -> AzurePodIdentityException:
    """Decode an AzurePodIdentityException as the API server sends it."""
    raw = decode(_RAW, data)
    try:
        labels = mapping(raw.spec, "podLabels")
        if not all(isinstance(value, str) for value in labels.values()):
            raise InvalidValue("spec.podLabels must map label names to texts")
    except InvalidValue as error:
        return AzurePodIdentityException(raw.metadata, problem=str(error))
    return AzurePodIdentityException(raw.metadata, pod_labels=labels)


def read_assigned_identity(data: bytes | msgspec.Raw) -> AzureAssignedIdentity:
    """Decode an AzureAssignedIdentity as MIC or our controller wrote it."""
    raw = decode(_RAW, data)
    identity, binding = AzureIdentity(Meta()), AzureIdentityBinding(Meta())
    pod, node, problem = Key("", ""), "", ""
    try:
        identity = _identity(*_embedded(raw.spec, "azureIdentityRef"))
        binding = _binding(*_embedded(raw.spec, "azureBindingRef"))
        pod = Key(text(raw.spec, "podNamespace"), text(raw.spec, "pod"))
        node = text(raw.spec, "nodename")
        state = _state(raw.status)
    except InvalidValue as error:
        problem, state = str(error), AssignedState.UNASSIGNED
    return AzureAssignedIdentity(
        metadata=raw.metadata,
        identity=identity,
        binding=binding,
        pod=pod,
        node=node,
        state=state,
        problem=problem or identity.problem,
    )


def _identity(metadata: Meta, spec: Any) -> AzureIdentity:
    try:
        return _checked_identity(metadata, spec)
    except InvalidValue as error:
        return AzureIdentity(metadata, problem=str(error))


def _checked_identity(metadata: Meta, spec: Any) -> AzureIdentity:
    number = integer(spec, "type")
    try:
        kind = IdentityType(number)
    except ValueError:
        raise InvalidValue(
            f"spec.type is {number}: 0 is a user-assigned identity, 1 a service principal with a secret, "
            "2 one with a certificate"
        ) from None
    secret = mapping(spec, "clientPassword")
    resource_id = text(spec, "resourceID")
    if kind is IdentityType.USER_ASSIGNED:
        if not resource_id:
            raise InvalidValue("spec.resourceID is missing")
        resource_id = ids.identity_resource_id(resource_id)
    client = ids.client_id(text(spec, "clientID"))
    if kind is not IdentityType.USER_ASSIGNED and not client:
        raise InvalidValue("spec.clientID is missing")
    return AzureIdentity(
        metadata,
        type=kind,
        resource_id=resource_id,
        client_id=client,
        tenant_id=text(spec, "tenantID"),
        auxiliary_tenant_ids=strings(spec, "auxiliaryTenantIDs"),
        ad_resource_id=text(spec, "adResourceID"),
        ad_endpoint=text(spec, "adEndpoint"),
        client_password=SecretRef(text(secret, "name"), text(secret, "namespace")),
    )


def _binding(metadata: Meta, spec: Any) -> AzureIdentityBinding:
    try:
        identity, selector = text(spec, "azureIdentity"), text(spec, "selector")
        weight = integer(spec, "weight")
        if not identity:
            raise InvalidValue("spec.azureIdentity is missing: name an AzureIdentity of this namespace")
        if not selector:
            raise InvalidValue("spec.selector is missing: it must equal the pods' label aadpodidbinding")
    except InvalidValue as error:
        return AzureIdentityBinding(metadata, problem=str(error))
    return AzureIdentityBinding(metadata, azure_identity=identity, selector=selector, weight=weight)


def _embedded(spec: Any, name: str) -> tuple[Meta, Any]:
    """Metadata and spec of an object that is embedded in another one's spec."""
    inner = mapping(spec, name)
    try:
        metadata = msgspec.convert(inner.get("metadata") or {}, Meta)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"spec.{name}.metadata cannot be read: {error}") from None
    return metadata, inner.get("spec")


def _state(status: Any) -> AssignedState:
    written = text(status, "status", where="status")
    try:
        return AssignedState(written)
    except ValueError:
        raise InvalidValue(f"status.status is {written[:50]!r}, which no version of the project writes") from None
