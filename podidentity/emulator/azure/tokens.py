"""Access tokens of the emulated tenant: minted and checked in one place, for Entra, IMDS and ARM alike.

Real RS256 JWTs in the v1.0 form that managed identities get. A signing key of 2048 bits takes about 0.1 s to make, so
it is made at first use, and can be given: equal keys, clocks and random sources give equal tokens.
"""

import base64
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_ID = "podidentity-emulator"


class InvalidTokenError(Exception):
    """The text is no token of this tenant's key."""


class ExpiredTokenError(InvalidTokenError):
    """The token was good once; `expired_at` in seconds since the epoch."""

    def __init__(self, expired_at: int) -> None:
        super().__init__(f"expired at {expired_at}")
        self.expired_at = expired_at


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whom a token speaks for. `resource_id` is set for a managed identity: it becomes the claim `xms_mirid`."""

    client_id: str
    object_id: str
    resource_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class AccessToken:
    """A minted token. Times in seconds since the epoch; `resource` is the audience as it was asked for."""

    value: str
    resource: str
    not_before: int
    expires_on: int


def verify(token: str, key: rsa.RSAPublicKey, *, now: float, audience: str | None = None) -> Mapping[str, Any]:
    """Return the claims of a token that `key` signed, for `audience` (None: any) and valid at `now` (epoch seconds).

    Raises ExpiredTokenError or InvalidTokenError.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["RS256", "PS256"],
            audience=audience,
            # PyJWT reads the real clock, which a simulation does not run on: the expiry is checked here.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": audience is not None,
                "require": ["exp", "sub"],
            },
        )
    except jwt.InvalidTokenError as error:
        raise InvalidTokenError(str(error)) from error
    if claims["exp"] <= now:
        raise ExpiredTokenError(claims["exp"])
    return claims


class TokenIssuer:
    """Signs and checks the tokens of one tenant."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        signing_key: rsa.RSAPrivateKey | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._given_key = signing_key

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:
        return self._given_key or rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def mint(self, principal: Principal, resource: str, *, tenant: str, lifetime: float) -> AccessToken:
        """Return a token for `resource` that lives `lifetime` seconds from now."""
        now = int(self._clock())
        expires = now + int(lifetime)
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{tenant}/",
            "iat": now,
            "nbf": now,
            "exp": expires,
            "appid": principal.client_id,
            "appidacr": "2" if principal.resource_id else "1",
            "idtyp": "app",
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": tenant,
            "uti": self._unique_id(),
            "ver": "1.0",
        }
        if principal.resource_id:
            claims["xms_mirid"] = principal.resource_id
        value = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": KEY_ID, "x5t": KEY_ID})
        return AccessToken(value=value, resource=resource, not_before=now, expires_on=expires)

    def verify(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token that this issuer signed and that is valid now.

        Raises ExpiredTokenError or InvalidTokenError. The audience is the caller's to check.
        """
        return verify(token, self._key.public_key(), now=self._clock())

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [public | {"kid": KEY_ID, "x5t": KEY_ID, "use": "sig", "alg": "RS256"}]}

    def _unique_id(self) -> str:
        # Real tokens of the same second differ by this claim.
        return base64.urlsafe_b64encode(self._rng.randbytes(16)).decode().rstrip("=")
