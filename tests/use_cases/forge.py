"""What tests of tokens share: keys, and the means to make tokens that are wrong in one thing only."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime
from typing import Any

from joserfc.jwk import ECKey, OKPKey

from orgstead.base64url import from_base64url, to_base64url
from orgstead.keys import Algorithm, Keys, SigningKey, parse_signing_keys
from orgstead.kit import new_id
from orgstead.model import Role

SECRET = secrets.token_urlsafe(48)
ISSUER = "https://orgstead.example"
AUDIENCE = "orgstead"
START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
WHO: dict[str, Any] = {
    "user_id": new_id("usr"),
    "session_id": new_id("ses"),
    "org_id": new_id("org"),
    "role": Role.ADMIN,
    "org_epoch": 3,
}
ALGORITHMS: tuple[Algorithm, ...] = ("HS256", "EdDSA", "ES256")


def ed25519(kid: str | None = None) -> SigningKey:
    return from_jwk(OKPKey.generate_key("Ed25519").as_dict(private=True), kid)


def p256(kid: str | None = None) -> SigningKey:
    return from_jwk(ECKey.generate_key("P-256").as_dict(private=True), kid)


def from_jwk(member: Any, kid: str | None) -> SigningKey:
    (key,) = parse_signing_keys(json.dumps({**member, **({"kid": kid} if kid else {})}))
    return key


KEYS = Keys(SECRET, signing=[ed25519("ed-1"), p256("ec-1")])


def b64(value: Any) -> str:
    return to_base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def parts(token: str) -> tuple[str, str, str]:
    header, payload, signature = token.split(".")
    return header, payload, signature


def hs256(header: str, payload: str, key: bytes | None = None) -> str:
    """A token of these two segments, rightly signed with the service's own key unless another is given."""
    key = KEYS.derived("jwt") if key is None else key
    return f"{header}.{payload}.{to_base64url(hmac.new(key, f'{header}.{payload}'.encode(), hashlib.sha256).digest())}"


def resigned(token: str, *, header: Any = None, payload: Any = None, key: bytes | None = None) -> str:
    """The token with another header or payload (a value, or the segment as text), rightly signed."""
    old_header, old_payload, _ = parts(token)
    new_header = old_header if header is None else header if isinstance(header, str) else b64(header)
    new_payload = old_payload if payload is None else payload if isinstance(payload, str) else b64(payload)
    return hs256(new_header, new_payload, key)


def header_of(token: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(from_base64url(parts(token)[0]))
    return header


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(from_base64url(parts(token)[1]))
    return claims
