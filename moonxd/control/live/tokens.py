"""Who shows a token, and what it says. A token is never logged, nor anything that was in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from jwt.algorithms import OKPAlgorithm

from ...domain.errors import ConfigError
from ...domain.live import Identity, TokenRefused

#: A later expiry is as good as none, and still a float.
_END_OF_TIME = 2**53


class Tokens:
    """Checks JSON web tokens. Each key is used with its own algorithm only, whatever a token says of itself."""

    def __init__(
        self,
        *,
        hs256_secret: str | None = None,
        eddsa_public_key: str | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        user_claim: str = "sub",
        role_claim: str = "roles",
        system_role: str = "system",
        leeway_s: float = 10.0,
    ) -> None:
        """`eddsa_public_key`: PEM. Raises ConfigError when it is none of Ed25519 or Ed448."""
        self._keys: dict[str, Any] = {}
        if hs256_secret:
            self._keys["HS256"] = hs256_secret
        if eddsa_public_key:
            self._keys["EdDSA"] = _public_key(eddsa_public_key)
        self._issuer = issuer
        self._audience = audience
        self._user_claim = user_claim
        self._role_claim = role_claim
        self._system_role = system_role
        self._leeway_s = leeway_s

    def check(self, token: str) -> Identity:
        """Raises TokenRefused."""
        claims = self._claims(token)
        user = claims[self._user_claim]
        if isinstance(user, bool) or not isinstance(user, str | int) or user == "":
            raise TokenRefused("token_invalid", f"the claim {self._user_claim!r} of the token is no user id")
        return Identity(
            user_id=str(user),
            may_see_system=self._system_role in _words(claims.get(self._role_claim)),
            expires_at=min(int(claims["exp"]), _END_OF_TIME) + self._leeway_s,
        )

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            key = self._keys.get(algorithm) if isinstance(algorithm, str) else None
            if key is None:
                accepted = " or ".join(self._keys) or "nothing"
                raise TokenRefused("token_invalid", f"tokens must be signed by {accepted}")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                # A subject may be a number here: the ids of some user tables are.
                options={"require": ["exp", self._user_claim], "verify_sub": False},
            )
        except jwt.ExpiredSignatureError:
            raise TokenRefused("token_expired", "the token has expired: get a new one") from None
        except jwt.ImmatureSignatureError:
            raise TokenRefused("token_invalid", "the token is not valid yet: compare the clocks") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenRefused("token_invalid", f"the token has no claim {error.claim!r}") from None
        except jwt.InvalidAudienceError:
            raise TokenRefused("token_invalid", "the token is meant for another audience") from None
        except jwt.InvalidIssuerError:
            raise TokenRefused("token_invalid", "the token is from another issuer") from None
        # Beside its own errors the library lets some of its parts' through, for tokens that are garbage.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise TokenRefused("token_invalid", "the token is malformed, or its signature is not by our key") from None
        return claims


def _public_key(pem: str) -> Any:
    try:
        key = OKPAlgorithm().prepare_key(pem)
        if not hasattr(key, "verify"):
            raise jwt.InvalidKeyError("a private key")
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ConfigError(
            "live.eddsa_public_key is no Ed25519 public key in PEM form: openssl pkey -in private.pem -pubout"
        ) from error
    return key


def _words(claim: Any) -> frozenset[str]:
    """Roles given as a list, or as words in one text (as OAuth's 'scope')."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(role for role in claim if isinstance(role, str)) if isinstance(claim, list) else frozenset()
