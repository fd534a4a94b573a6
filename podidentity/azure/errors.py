"""What can go wrong between us and Azure.

    AzureError
    ├── ArmError            Azure Resource Manager refused; `status`, `code`, `retry_after`
    │   └── TargetGone      404: the VM or scale set is no more
    ├── ArmUnreachable      no answer, or none in time
    ├── CredentialError     the controller's own credential was refused by Entra or IMDS
    ├── TokenRefused        IMDS refused a token; `status`, `error`, `retry_after` as it sent them
    └── ImdsUnreachable     IMDS did not answer, or not as IMDS does

Messages are Azure's words, cut; they never hold a token or a secret.
"""

from podidentity.api.errors import PodIdentityError

_LONGEST_MESSAGE = 1000


class AzureError(PodIdentityError):
    """A call to Azure failed."""

    retry_after: float | None = None


class ArmError(AzureError):
    """ARM refused, by its answer or inside the result of a long-running operation (then `status` is 0).

    `message` is whole, for whoever looks for names in it.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code or status}: {message}"[:_LONGEST_MESSAGE])
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


class TargetGone(ArmError):
    """The VM or scale set does not exist (any more)."""


class ArmUnreachable(AzureError):
    """No answer, or none in time."""


class CredentialError(AzureError):
    """Nobody gives the controller a token for ARM."""


class TokenRefused(AzureError):
    """IMDS answered with an error."""

    def __init__(self, status: int, error: str, description: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {error}: {description}"[:_LONGEST_MESSAGE])
        self.status = status
        self.error = error
        self.description = description[:_LONGEST_MESSAGE]
        self.retry_after = retry_after


class ImdsUnreachable(AzureError):
    """IMDS did not answer, or not as IMDS does."""
