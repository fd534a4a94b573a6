"""What is answered without being stored: ServiceAccount tokens and access reviews."""

from podidentity.emulator.kubernetes.errors import FieldError, Object, invalid
from podidentity.emulator.kubernetes.resources import ACCESS_REVIEWS, Target
from podidentity.emulator.kubernetes.state import ClusterState
from podidentity.emulator.kubernetes.writes import read

AUDIENCE = "https://kubernetes.default.svc"
_DEFAULT_SECONDS = 3600
_LEAST_SECONDS = 600
_TOKEN_BITS = 256


def request_token(state: ClusterState, target: Target, request: Object) -> Object:
    """Answer a TokenRequest with an opaque token.

    Raises:
        ApiError: 404 without the ServiceAccount, 422 for less than ten minutes.

    """
    account = read(state, target)["metadata"]
    spec = request.get("spec") or {}
    seconds = spec.get("expirationSeconds") or _DEFAULT_SECONDS
    if seconds < _LEAST_SECONDS:
        text = "may not specify a duration less than 10 minutes"
        error = FieldError.invalid("spec.expirationSeconds", str(seconds), text)
        raise invalid("authentication.k8s.io", "TokenRequest", "", [error])
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": account["name"],
            "namespace": account["namespace"],
            "uid": account["uid"],
            "creationTimestamp": state.timestamp(),
        },
        "spec": {
            "audiences": spec.get("audiences") or [AUDIENCE],
            "expirationSeconds": seconds,
            "boundObjectRef": None,
        },
        "status": {
            "token": f"emulated-{state.rng.getrandbits(_TOKEN_BITS):064x}",
            "expirationTimestamp": state.timestamp(after=seconds),
        },
    }


def review_access(request: Object) -> Object:
    """Allow everything: this server has no RBAC."""
    review = {"kind": ACCESS_REVIEWS.kind, "apiVersion": ACCESS_REVIEWS.api_version, "metadata": {}}
    return review | {"spec": request.get("spec", {}), "status": {"allowed": True}}
