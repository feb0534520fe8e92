"""Keys: no guessable secret starts the service, and nothing made for one purpose serves another."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from orgstead.base64url import from_base64url, to_base64url
from orgstead.errors import ConfigurationError
from orgstead.keys import PURPOSES, Keys, load_or_create_key_file, load_signing_keys, parse_signing_keys

SECRET = secrets.token_urlsafe(48)

# --- the secret -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        None,
        "",
        b"",
        " " * 64,
        "short",
        secrets.token_urlsafe(23)[:31],
        b"\x8a" * 64,
        "a" * 64,
        "0123456789abcdef" * 4,
        "q7Zp-x9Wk3" * 4,
        "abacbdcadbbacdabcadbcabdacbdabcadcbadbcacbda",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "changeme-changeme-please-1234567890-qwertz",
        "CHANGE_ME_to_something_long_and_random_1",
        "your-256-bit-secret-goes-here-0123456789",
        "Example" + secrets.token_urlsafe(32),
        "replace this by the output of openssl rand",
    ],
    ids=itertools.count(),
)
def test_a_missing_short_or_guessable_secret_is_refused_with_the_next_step(secret: str | bytes | None) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Keys(secret)
    assert "openssl rand" in (refused.value.next or "")
    if secret and len(secret) > 5:
        assert str(secret) not in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_urlsafe(48),
        lambda: secrets.token_hex(32),
        lambda: secrets.token_hex(16),
        lambda: secrets.token_bytes(64),
        lambda: secrets.token_urlsafe(24),
    ],
)
def test_a_random_secret_is_accepted(make: object) -> None:
    assert callable(make)
    for _ in range(300):
        Keys(make())


@pytest.mark.parametrize("secret", [None, "", b"", "\n"])
def test_a_missing_secret_is_called_missing(secret: str | bytes | None) -> None:
    with pytest.raises(ConfigurationError, match="There is no secret key"):
        Keys(secret)


def test_every_purpose_has_a_key_of_its_own() -> None:
    keys, same, other = Keys(SECRET), Keys(SECRET + "\n"), Keys(secrets.token_urlsafe(48))
    derived = [keys.derived(purpose) for purpose in PURPOSES]
    assert len(set(derived)) == len(PURPOSES)
    assert all(len(key) == 32 for key in derived)
    assert derived == [same.derived(purpose) for purpose in PURPOSES]
    assert not set(derived) & {other.derived(purpose) for purpose in PURPOSES}


def test_nothing_secret_is_shown() -> None:
    keys = Keys(SECRET, signing=parse_signing_keys(pem(ed25519.Ed25519PrivateKey.generate())))
    shown = repr(keys) + repr(keys.signer("HS256")) + repr(keys.signer("EdDSA")) + json.dumps(keys.jwks())
    assert SECRET not in shown
    for purpose in PURPOSES:
        assert to_base64url(keys.derived(purpose)) not in shown
        assert keys.derived(purpose).hex() not in shown


# --- stored secrets ---------------------------------------------------------------------------------------------------


def test_what_is_sealed_is_unreadable_and_opens_only_where_it_belongs() -> None:
    keys = Keys(SECRET)
    sealed = keys.encrypt('{"access_token": "héllo"}', "row 1")
    assert keys.decrypt(sealed, "row 1") == '{"access_token": "héllo"}'
    data = from_base64url(sealed)
    assert b"access_token" not in data
    opened = AESGCM(keys.derived("idempotency")).decrypt(data[:12], data[12:], b"row 1")
    assert opened.decode() == '{"access_token": "héllo"}'
    assert sealed != keys.encrypt('{"access_token": "héllo"}', "row 1")
    assert keys.decrypt(sealed, "row 2") is None
    assert Keys(secrets.token_urlsafe(48)).decrypt(sealed, "row 1") is None


def test_what_was_altered_does_not_open() -> None:
    keys = Keys(SECRET)
    sealed = from_base64url(keys.encrypt("text", "row"))
    for place in range(len(sealed)):
        altered = bytes([*sealed[:place], sealed[place] ^ 1, *sealed[place + 1 :]])
        assert keys.decrypt(to_base64url(altered), "row") is None
    for wrong in (
        "",
        "x",
        "é",
        "====",
        to_base64url(sealed[:11]),
        to_base64url(sealed[:-1]),
        to_base64url(sealed) + "=",
    ):
        assert keys.decrypt(wrong, "row") is None


# --- the key file of dev mode -----------------------------------------------------------------------------------------


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret.key"
    secret = load_or_create_key_file(path)
    Keys(secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key_file(path) == secret
    assert [child.name for child in path.parent.iterdir()] == ["secret.key"]


def test_the_umask_cannot_open_the_key_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create_key_file(tmp_path / "secret.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret.key"
    load_or_create_key_file(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        load_or_create_key_file(path)
    assert refused.value.next == f"chmod 600 {path}"


@pytest.mark.parametrize("content", ["", "short\n", "a" * 64])
def test_a_key_file_is_held_to_the_rules_of_secrets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        load_or_create_key_file(path)
    assert path.read_text() == content


def test_a_folder_in_the_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_or_create_key_file(tmp_path)


def test_a_full_disk_is_no_reason_for_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left") as caught:
        load_or_create_key_file(tmp_path / "secret.key")
    assert caught.value.next == "make room on the disk"


def test_processes_that_race_for_the_key_file_get_the_same_key(tmp_path: Path) -> None:
    """Each waits for the others at a line on its input, so that they really start together."""
    script = (
        "import sys; from pathlib import Path; from orgstead.keys import load_or_create_key_file\n"
        "print(flush=True); sys.stdin.readline()\n"
        "for n in range(50): print(load_or_create_key_file(Path(sys.argv[1]) / str(n)))"
    )
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in racing:
        assert process.stdout
        process.stdout.readline()
    for process in racing:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=30)[0] for process in racing]
    assert len(set(printed)) == 1
    assert len(set(printed[0].split())) == 50


# --- signing keys -----------------------------------------------------------------------------------------------------


def pem(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed448.Ed448PrivateKey,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_private_signing_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.pem"
    path.write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        load_signing_keys(path)
    assert refused.value.next == f"chmod 600 {path}"
    path.chmod(0o600)
    assert [key.private for key in load_signing_keys(path)] == [True]


def test_a_public_key_is_for_everyone(tmp_path: Path) -> None:
    path = tmp_path / "retired.pem"
    path.write_bytes(public_pem(ed25519.Ed25519PrivateKey.generate()))
    path.chmod(0o644)
    assert [key.private for key in load_signing_keys(path)] == [False]


def test_a_signing_key_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "missing.pem"
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        load_signing_keys(path)


def test_the_kind_of_key_decides_its_algorithm() -> None:
    for key, algorithm in (
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
    ):
        (private,) = parse_signing_keys(pem(key))
        (public,) = parse_signing_keys(public_pem(key).decode())
        assert (private.algorithm, private.private) == (algorithm, True)
        assert (public.algorithm, public.private) == (algorithm, False)
        assert private.kid == public.kid, "the thumbprint is the public key's"


def test_a_jwk_and_a_set_of_them() -> None:
    (made,) = parse_signing_keys(pem(ed25519.Ed25519PrivateKey.generate()))
    member = made.key.as_dict(private=True)
    (alone,) = parse_signing_keys(json.dumps(member))
    assert (alone.kid, alone.private) == (made.kid, True)
    named = [{**member, "kid": "a"}, {**made.key.as_dict(private=False), "kid": "b"}]
    a, b = parse_signing_keys(json.dumps({"keys": named}))
    assert (a.kid, a.private, b.kid, b.private) == ("a", True, "b", False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{}",
        "[]",
        "null",
        '{"keys": 1}',
        '{"keys": [1]}',
        '{"kty": "oct", "k": "AAAA"}',
        '{"kty": "RSA"}',
        '{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}',
        '{"kty": "OKP", "crv": "X25519", "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}',
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ed448.Ed448PrivateKey.generate()),
        "[" * 5000,
    ],
)
def test_any_other_key_is_refused_without_showing_it(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_signing_keys(text)
    assert refused.value.next
    assert len(text) < 10 or str(text) not in str(refused.value)


@pytest.mark.parametrize("kid", ["", "k" * 65, 1, ["a"], {"$ne": 1}])
def test_an_unsuitable_kid_is_refused(kid: object) -> None:
    (made,) = parse_signing_keys(pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(ConfigurationError):
        parse_signing_keys(json.dumps({**made.key.as_dict(private=True), "kid": kid}))


def test_two_keys_of_one_kid_are_refused() -> None:
    (key,) = parse_signing_keys(pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(ConfigurationError):
        Keys(SECRET, signing=[key, key])


def test_without_a_private_key_nothing_is_signed() -> None:
    with pytest.raises(ConfigurationError):
        Keys(SECRET).signer("EdDSA")
    (public,) = parse_signing_keys(public_pem(ed25519.Ed25519PrivateKey.generate()))
    keys = Keys(SECRET, signing=[public])
    with pytest.raises(ConfigurationError):
        keys.signer("EdDSA")
    assert keys.verifiers("EdDSA") == (public,)


def test_the_published_set_holds_the_public_keys_and_nothing_else() -> None:
    (ed,) = parse_signing_keys(pem(ed25519.Ed25519PrivateKey.generate()))
    (p256,) = parse_signing_keys(pem(ec.generate_private_key(ec.SECP256R1())))
    published = Keys(SECRET, signing=[ed, p256]).jwks()["keys"]
    assert [(key["kid"], key["alg"], key["use"]) for key in published] == [
        (ed.kid, "EdDSA", "sig"),
        (p256.kid, "ES256", "sig"),
    ]
    assert published[0].keys() == {"kty", "crv", "x", "kid", "alg", "use"}
    assert published[1].keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert Keys(SECRET).jwks() == {"keys": []}


# --- the encoding -----------------------------------------------------------------------------------------------------


@given(st.binary())
def test_base64url_round_trips(data: bytes) -> None:
    assert from_base64url(to_base64url(data)) == data


@pytest.mark.parametrize("text", ["A", "AB", "AAA=", "AA==", "A+A", "A/A", "AA\n", " AA", "A A", "éé", "A.A", "AAAAA"])
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_base64url(text)
