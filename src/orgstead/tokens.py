"""Access tokens (JWT, RFC 9068) and refresh tokens: how they are made, and what is refused.

A token is a claim to check, never a permission: who may do what is read from the store on every request.

The verifier never parses a header. The service is the only issuer of its tokens, so a header must be, byte for byte,
one of those it writes itself: ``alg``, ``kid`` and ``typ`` of a key that it has. That binds one algorithm to each key
(RFC 8725 section 3.1) and refuses ``none``, ``jku``, ``jwk``, ``x5c``, ``crit``, ``zip``, foreign types and
duplicate members before any of them could mean something.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.jws import JWSRegistry

from orgstead.base64url import from_base64url, to_base64url
from orgstead.errors import ConfigurationError, InvalidToken
from orgstead.keys import Algorithm, Keys
from orgstead.kit import Clock, now, unique_members
from orgstead.model import Role, Session
from orgstead.recent import Recent

TOKEN_TYPE = "at+jwt"  # noqa: S105  the media type of RFC 9068, no secret
MAX_TOKEN_LENGTH = 4096
MAX_TTL_SECONDS = 900
MAX_LEEWAY_SECONDS = 60
CLAIMS = frozenset({"iss", "aud", "sub", "sid", "org_id", "org_role", "org_epoch", "iat", "nbf", "exp", "jti"})

_ULID = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_USER_ID = re.compile(f"usr_{_ULID}")
_SESSION_ID = re.compile(f"ses_{_ULID}")
_ORGANIZATION_ID = re.compile(f"org_{_ULID}")
_TOKEN_ID = re.compile("[A-Za-z0-9_-]{16}")
_REFRESH = re.compile(f"rt_({_ULID})_([1-9][0-9]{{0,8}})_([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A new access token and the seconds until it expires."""

    token: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says. Times are seconds since 1970 (UTC)."""

    user_id: str
    session_id: str
    org_id: str
    role: Role
    org_epoch: int
    token_id: str
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class RefreshClaim:
    """What a well-formed refresh token says, before anything about it was verified."""

    session_id: str
    generation: int
    mac: str


class Tokens:
    """Mints and verifies the tokens of one service.

    ``ttl_seconds`` is the life of an access token (1 to 900, R17), ``leeway_seconds`` (0 to 60, R22) forgives the
    clocks of several servers. ``cached`` bounds the verified tokens that are remembered, in two generations of that
    size each. Raises ``ConfigurationError`` for values out of range or an algorithm without a private key.
    """

    def __init__(
        self,
        keys: Keys,
        issuer: str,
        audience: str,
        *,
        ttl_seconds: int = 900,
        algorithm: Algorithm = "HS256",
        leeway_seconds: int = 30,
        cached: int = 4096,
        clock: Clock = now,
    ) -> None:
        if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
            raise ConfigurationError(f"Access tokens must live between 1 and {MAX_TTL_SECONDS} seconds.")
        if not 0 <= leeway_seconds <= MAX_LEEWAY_SECONDS:
            raise ConfigurationError(f"The leeway of tokens must be between 0 and {MAX_LEEWAY_SECONDS} seconds.")
        self._issuer = issuer
        self._audience = audience
        self._ttl = ttl_seconds
        self._leeway = leeway_seconds
        self._seconds: Callable[[], float] = time if clock is now else lambda: clock().timestamp()
        self._jws = JWSRegistry.algorithms[algorithm]
        signer = keys.signer(algorithm)
        self._signing_key = signer.key
        self._header = _header(algorithm, signer.kid)
        self._verifiers: dict[str, OctKey | ECKey | OKPKey] = {
            _header(algorithm, key.kid): key.key for key in keys.verifiers(algorithm)
        }
        self._refresh_key = keys.derived("refresh")
        self._cache: Recent[str, _Verified] = Recent(cached)

    # --- access tokens ------------------------------------------------------------------------------------------------

    def mint_access(self, *, user_id: str, session_id: str, org_id: str, role: Role, org_epoch: int) -> AccessToken:
        """A signed token for one session of one person in one organization."""
        issued_at = int(self._seconds())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "sid": session_id,
            "org_id": org_id,
            "org_role": role.value,
            "org_epoch": org_epoch,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + self._ttl,
            "jti": secrets.token_urlsafe(12),
        }
        signed = f"{self._header}.{to_base64url(json.dumps(claims, separators=(',', ':')).encode())}"
        signature = self._jws.sign(signed.encode(), self._signing_key)
        return AccessToken(f"{signed}.{to_base64url(signature)}", self._ttl)

    def verify_access(self, token: str) -> Claims:
        """The claims of a token that this service signed and that is valid now.

        Raises ``InvalidToken`` with the same detail whatever is wrong. A token that was verified before is only
        compared with the clock.
        """
        known = self._cache.get(token)
        verified = known or self._verify(token)
        if not self._is_valid(verified):
            raise InvalidToken
        if known is None:
            self._cache.put(token, verified)
        return verified.claims

    def has_form(self, token: str) -> bool:
        """Does it begin as the access tokens of this service do? Neither its signature nor its time is looked at."""
        header, _, rest = token.partition(".")
        return header in self._verifiers and rest.count(".") == 1

    def known(self, token: str) -> Claims | None:
        """The claims of a token that was verified lately and is valid now; None of any other, whatever it is."""
        verified = self._cache.get(token)
        return verified.claims if verified and self._is_valid(verified) else None

    def _is_valid(self, verified: _Verified) -> bool:
        return verified.valid_from <= self._seconds() < verified.valid_until

    def _verify(self, token: str) -> _Verified:
        """Everything about a token but the clock."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken
        header, _, rest = token.partition(".")
        payload, _, signature = rest.partition(".")
        key = self._verifiers.get(header)
        if key is None:
            raise InvalidToken
        try:
            if not self._jws.verify(f"{header}.{payload}".encode(), from_base64url(signature), key):
                raise InvalidToken
            claims = json.loads(
                from_base64url(payload).decode(), object_pairs_hook=unique_members, parse_constant=_refuse
            )
        except (ValueError, RecursionError):
            raise InvalidToken from None
        return self._checked(claims)

    def _checked(self, claims: Any) -> _Verified:
        """The claims in our types, if all of them are there, have the right shape and are meant for this service."""
        if not (
            isinstance(claims, dict)
            and claims.keys() == CLAIMS
            and claims["iss"] == self._issuer
            and claims["aud"] == self._audience
            and _is_text(claims["sub"], _USER_ID)
            and _is_text(claims["sid"], _SESSION_ID)
            and _is_text(claims["org_id"], _ORGANIZATION_ID)
            and _is_text(claims["jti"], _TOKEN_ID)
            and claims["org_role"] in list(Role)
            and _is_count(claims["org_epoch"])
            and all(_is_count(claims[name]) for name in ("iat", "nbf", "exp"))
            and 0 < claims["exp"] - claims["iat"] <= MAX_TTL_SECONDS
            and claims["iat"] <= claims["nbf"] < claims["exp"]
        ):
            raise InvalidToken
        return _Verified(
            claims=Claims(
                user_id=claims["sub"],
                session_id=claims["sid"],
                org_id=claims["org_id"],
                role=Role(claims["org_role"]),
                org_epoch=claims["org_epoch"],
                token_id=claims["jti"],
                issued_at=claims["iat"],
                expires_at=claims["exp"],
            ),
            valid_from=claims["nbf"] - self._leeway,
            valid_until=claims["exp"] + self._leeway,
        )

    # --- refresh tokens -----------------------------------------------------------------------------------------------

    def refresh_token(self, session: Session) -> str:
        """The refresh token of the session's present generation: ``rt_<session>_<generation>_<MAC>``.

        It is a function of the session, its secret seed and the generation, so that a client whose answer was lost can
        be given the same token again, and so that the database alone is not enough to make one.
        """
        return f"rt_{session.id.removeprefix('ses_')}_{session.generation}_{self._mac(session, session.generation)}"

    def parse_refresh(self, token: str) -> RefreshClaim:
        """Which session and generation a refresh token is of, unverified. Raises ``InvalidToken``."""
        match = _REFRESH.fullmatch(token)
        if match is None:
            raise InvalidToken
        return RefreshClaim(session_id=f"ses_{match[1]}", generation=int(match[2]), mac=match[3])

    def verify_refresh(self, claim: RefreshClaim, session: Session) -> None:
        """Raise ``InvalidToken`` unless this service made the token for this session, of whatever generation."""
        if claim.session_id != session.id or not hmac.compare_digest(claim.mac, self._mac(session, claim.generation)):
            raise InvalidToken

    def _mac(self, session: Session, generation: int) -> str:
        message = json.dumps([session.id, session.seed, generation]).encode()
        return hmac.new(self._refresh_key, message, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class _Verified:
    claims: Claims
    valid_from: int
    valid_until: int


def _header(algorithm: Algorithm, kid: str) -> str:
    header = {"alg": algorithm, "kid": kid, "typ": TOKEN_TYPE}
    return to_base64url(json.dumps(header, separators=(",", ":")).encode())


def _is_text(value: object, shape: re.Pattern[str]) -> bool:
    return isinstance(value, str) and shape.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    """A positive integer of at most 40 bits; JSON's true and 1.0 are none."""
    return type(value) is int and 0 < value < 2**40


def _refuse(constant: str) -> Any:
    raise ValueError("not JSON")
