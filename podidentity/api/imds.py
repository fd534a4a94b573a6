"""The shapes of IMDS's identity endpoint on the wire. Source: Azure IMDS documentation; what clients need of it is in
docs/answers.md. Every value of a token answer is a string that is never empty where clients parse a number.
"""

import base64

import msgspec

TOKEN_PATH = "/metadata/identity/oauth2/token"
API_VERSION = "2018-02-01"
"""What nearly every client sends; the oldest that knows user-assigned identities."""


class _Claims(msgspec.Struct, frozen=True):
    xms_mirid: str = ""


class Token(msgspec.Struct, frozen=True, gc=False):
    """An access token and what its answer says of it. Times are seconds since the epoch."""

    access_token: str
    expires_on: int
    not_before: int
    resource: str
    client_id: str = ""
    token_type: str = "Bearer"

    @property
    def speaks_for(self) -> str:
        """The ARM ID of the identity, in lower case, as the token itself claims; empty when it does not say.

        Nothing is verified: the token came from IMDS, and only Azure can be fooled by what it says.
        """
        _, _, rest = self.access_token.partition(".")
        payload = rest.partition(".")[0]
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=_Claims).xms_mirid.lower()
        except (ValueError, msgspec.DecodeError):
            return ""

    def answer(self, *, now: float, resource: str) -> dict[str, str]:
        """Return the JSON body for a caller who asked for `resource`: msal looks at `expires_in` only, so that
        one is counted from now.
        """
        left = str(max(0, self.expires_on - int(now)))
        body = {
            "access_token": self.access_token,
            "refresh_token": "",
            "expires_in": left,
            "expires_on": str(self.expires_on),
            "ext_expires_in": left,
            "not_before": str(self.not_before),
            "resource": resource,
            "token_type": self.token_type,
        }
        return body | {"client_id": self.client_id} if self.client_id else body


def error_body(error: str, description: str) -> dict[str, str]:
    """Return the JSON body of every refusal."""
    return {"error": error, "error_description": description}
