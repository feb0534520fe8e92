"""The secret key of the service, what is derived from it, and the key pairs that sign tokens for other verifiers.

One secret is configured; every use has a key of its own, derived with HKDF (RFC 5869), so that nothing made for one
purpose is ever accepted for another. Keys are parsed once, when the service starts.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey

from orgstead.base64url import from_base64url, to_base64url
from orgstead.errors import ConfigurationError

Purpose = Literal["jwt", "refresh", "cursor", "idempotency"]
Algorithm = Literal["HS256", "EdDSA", "ES256"]

PURPOSES: tuple[Purpose, ...] = ("jwt", "refresh", "cursor", "idempotency")
MIN_SECRET_BYTES = 32
MIN_DISTINCT_BYTES = 8
MAX_KID_LENGTH = 64
PLACEHOLDERS = ("changeme", "example", "placeholder", "replace", "secret", "password", "insecure", "default")
NEXT_KEY = "openssl rand -base64 48   # set the result as ORGSTEAD_SECRET_KEY, or its file as ORGSTEAD_SECRET_KEY_FILE"

_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs (``private``) or only verifies tokens, bound to one algorithm and known by its ``kid``."""

    kid: str
    algorithm: Algorithm
    key: OctKey | ECKey | OKPKey
    private: bool

    def __repr__(self) -> str:
        return f"SigningKey({self.kid}, {self.algorithm})"


class Keys:
    """Everything made from the secret key (text or bytes, at least 32 of them), and the extra ``signing`` keys.

    Raises ``ConfigurationError`` with the next step for a missing, short, guessable or example secret (R10), and for
    two signing keys of the same ``kid``.
    """

    def __init__(self, secret: str | bytes | None, *, signing: Sequence[SigningKey] = ()) -> None:
        material = _checked_secret(secret)
        self._derived = {purpose: _derive(material, purpose) for purpose in PURPOSES}
        self._cipher = AESGCM(self._derived["idempotency"])
        own = SigningKey(
            kid="hs-" + _derive(material, "kid")[:8].hex(),
            algorithm="HS256",
            key=OctKey.import_key(self._derived["jwt"]),
            private=True,
        )
        self._signing = (own, *signing)
        repeated = [kid for kid, count in Counter(key.kid for key in self._signing).items() if count > 1]
        if repeated:
            raise ConfigurationError("Two signing keys have the same key id (kid); give each its own.")

    def __repr__(self) -> str:
        return f"Keys({', '.join(key.kid for key in self._signing)})"

    def derived(self, purpose: Purpose) -> bytes:
        """The 32-byte key of one purpose."""
        return self._derived[purpose]

    def signer(self, algorithm: Algorithm) -> SigningKey:
        """The key that new tokens are signed with: the first private one of the algorithm."""
        for key in self._signing:
            if key.algorithm == algorithm and key.private:
                return key
        raise ConfigurationError(
            f"Tokens are to be signed with {algorithm}, but there is no private key for it.",
            next="openssl genpkey -algorithm ed25519 -out signing.pem   # for EdDSA; for ES256: "
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signing.pem",
        )

    def verifiers(self, algorithm: Algorithm) -> tuple[SigningKey, ...]:
        """Every key whose tokens of this algorithm are accepted: the signer and those being rotated out."""
        return tuple(key for key in self._signing if key.algorithm == algorithm)

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """The public keys as a JWK set (RFC 7517), for ``/.well-known/jwks.json``. Never a secret or private one."""
        return {
            "keys": [
                {**key.key.as_dict(private=False), "kid": key.kid, "alg": key.algorithm, "use": "sig"}
                for key in self._signing
                if not isinstance(key.key, OctKey)
            ]
        }

    def encrypt(self, text: str, context: str) -> str:
        """Encrypt and authenticate (AES-256-GCM) what must be stored but not readable in the database.

        ``context`` says what it belongs to (for example the row's id); the same is needed to decrypt it, so that a
        value moved to another row is refused.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return to_base64url(nonce + self._cipher.encrypt(nonce, text.encode(), context.encode()))

    def decrypt(self, sealed: str, context: str) -> str | None:
        """What was encrypted, or None if it was not made with this secret key for this context, or was altered."""
        try:
            data = from_base64url(sealed)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError):
            return None


def load_or_create_key_file(path: Path) -> str:
    """The secret key of development mode: read from ``path``, made there (mode 0600) the first time.

    Safe to race from several processes: the file appears with its whole content or not at all, and all get the same
    key. Raises ``ConfigurationError`` if others may read it, or if it cannot be read or made.
    """
    try:
        if not path.exists():
            _create_key_file(path)
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4096)
    except OSError as error:
        raise ConfigurationError(
            f"The key file {path} cannot be read or made: {error.strerror}.",
            next="make room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else NEXT_KEY,
        ) from error
    _refuse_shared(path, mode)
    return _checked_secret(content).decode("utf-8", "replace")


def load_signing_keys(path: Path) -> tuple[SigningKey, ...]:
    """The signing keys in a file, as ``parse_signing_keys`` reads them.

    Raises ``ConfigurationError`` if others may read a private key (public ones are for everyone), or if it cannot be
    read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            found = parse_signing_keys(file.read())
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be read: {error.strerror}.") from error
    if any(key.private for key in found):
        _refuse_shared(path, mode)
    return found


def _refuse_shared(path: Path, mode: int) -> None:
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"Others may read the key file {path}.", next=f"chmod 600 {path}")


def parse_signing_keys(text: str | bytes) -> tuple[SigningKey, ...]:
    """The signing keys in a PEM block, a JWK or a JWK set: Ed25519 (EdDSA) and P-256 (ES256), private or public.

    A key without ``kid`` gets its RFC 7638 thumbprint. Raises ``ConfigurationError``, which never shows the content.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return (_signing_key(_pem_key(data), None),)
        document = json.loads(data)
        members = document.get("keys", [document])
        return tuple(_signing_key(_jwk_key(member), member.get("kid")) for member in members)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, JoseError) as error:
        raise ConfigurationError(
            "A signing key could not be read: it must be an Ed25519 or P-256 key, as unencrypted PEM or JWK.",
            next="openssl genpkey -algorithm ed25519 -out signing.pem",
        ) from error


def _create_key_file(path: Path) -> None:
    """Write the key beside ``path`` and link it there: the first of several processes wins, all others keep its key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)


def _checked_secret(secret: str | bytes | None) -> bytes:
    material = (secret.encode() if isinstance(secret, str) else secret or b"").strip()
    if not material:
        raise ConfigurationError("There is no secret key.", next=NEXT_KEY)
    if len(material) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"The secret key is shorter than {MIN_SECRET_BYTES} bytes.", next=NEXT_KEY)
    letters = bytes(byte for byte in material.lower() if chr(byte).isalnum()).decode("latin-1")
    if any(word in letters for word in PLACEHOLDERS):
        raise ConfigurationError("The secret key looks like an example or a placeholder.", next=NEXT_KEY)
    if _guessable(material):
        raise ConfigurationError("The secret key is not random enough.", next=NEXT_KEY)
    return material


def _guessable(material: bytes) -> bool:
    """Few different bytes, a repeated block, or a run such as ``abcdef`` or ``000000`` over most of its length."""
    if len(set(material)) < MIN_DISTINCT_BYTES:
        return True
    if any(
        material == (material[:period] * len(material))[: len(material)] for period in range(1, len(material) // 2 + 1)
    ):
        return True
    steps = Counter(after - before for before, after in pairwise(material))
    return steps.most_common(1)[0][1] > len(material) // 2


def _derive(material: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"orgstead/" + purpose.encode()).derive(material)


def _pem_key(data: bytes) -> ECKey | OKPKey:
    key = load_pem_public_key(data) if b"PUBLIC KEY-----" in data else load_pem_private_key(data, password=None)
    if isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        return OKPKey.import_key(key)
    if isinstance(key, EllipticCurvePrivateKey | EllipticCurvePublicKey):
        return ECKey.import_key(key)
    raise ValueError("unsupported kind of key")


def _jwk_key(member: Mapping[str, Any]) -> ECKey | OKPKey:
    material = {name: member[name] for name in ("kty", "crv", "x", "y", "d") if name in member}
    return ECKey.import_key(material) if member["kty"] == "EC" else OKPKey.import_key(material)


def _signing_key(key: ECKey | OKPKey, kid: object) -> SigningKey:
    public = key.public_key
    if isinstance(public, Ed25519PublicKey):
        algorithm: Algorithm = "EdDSA"
    elif isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        algorithm = "ES256"
    else:
        raise ValueError("unsupported curve")
    if kid is None:
        kid = key.thumbprint()
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID_LENGTH:
        raise ValueError("unsuitable kid")
    return SigningKey(kid=kid, algorithm=algorithm, key=key, private=key.is_private)
