"""Tokens: the hostile corpus. Whatever is wrong with a token, the answer is the same refusal."""

from __future__ import annotations

import base64
import inspect
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, OctKey

from orgstead.base64url import from_base64url, to_base64url
from orgstead.errors import ConfigurationError, InvalidToken
from orgstead.keys import Algorithm, Keys, SigningKey
from orgstead.model import Role
from orgstead.settings import JwtSettings
from orgstead.tokens import CLAIMS, Claims, Tokens
from tests.use_cases.forge import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    KEYS,
    SECRET,
    START,
    WHO,
    b64,
    claims_of,
    ed25519,
    header_of,
    hs256,
    p256,
    parts,
    resigned,
)
from tests.use_cases.watch import Watch


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def tokens(watch: Watch) -> Tokens:
    return Tokens(KEYS, ISSUER, AUDIENCE, clock=watch)


@pytest.fixture
def token(tokens: Tokens) -> str:
    return tokens.mint_access(**WHO).token


def refused(tokens: Tokens, token: str) -> None:
    """Refused, with the one detail that every refusal has; and refused again, so it was not remembered."""
    for _ in range(2):
        with pytest.raises(InvalidToken) as error:
            tokens.verify_access(token)
        assert str(error.value) == InvalidToken.title


# --- what is right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_minted_token_says_what_was_put_in(algorithm: Algorithm, watch: Watch) -> None:
    tokens = Tokens(KEYS, ISSUER, AUDIENCE, algorithm=algorithm, clock=watch, ttl_seconds=600)
    minted = tokens.mint_access(**WHO)
    for _ in range(2):
        claims = tokens.verify_access(minted.token)
        assert claims == Claims(
            user_id=WHO["user_id"],
            session_id=WHO["session_id"],
            org_id=WHO["org_id"],
            role=Role.ADMIN,
            org_epoch=3,
            token_id=claims.token_id,
            issued_at=int(START.timestamp()),
            expires_at=int(START.timestamp()) + 600,
        )
    assert minted.expires_in == 600
    assert header_of(minted.token).keys() == {"alg", "kid", "typ"}
    assert header_of(minted.token)["typ"] == "at+jwt"
    assert claims_of(minted.token).keys() == CLAIMS


def test_every_token_has_an_id_of_its_own(tokens: Tokens) -> None:
    assert len({tokens.verify_access(tokens.mint_access(**WHO).token).token_id for _ in range(50)}) == 50


def test_the_helper_that_signs_signs_rightly(tokens: Tokens, token: str) -> None:
    """Or else the corpus below would be refused for its signature, and prove nothing."""
    assert tokens.verify_access(resigned(token, payload=claims_of(token))).org_id == WHO["org_id"]


# --- the header (C2, C7, C8, C14, C16, C20) ---------------------------------------------------------------------------

HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "none": lambda h: {**h, "alg": "none"},
    "None": lambda h: {**h, "alg": "None"},
    "nOnE": lambda h: {**h, "alg": "nOnE"},
    "alg absent": lambda h: {"kid": h["kid"], "typ": h["typ"]},
    "alg null": lambda h: {**h, "alg": None},
    "alg list": lambda h: {**h, "alg": ["HS256"]},
    "HS512": lambda h: {**h, "alg": "HS512"},
    "RS256": lambda h: {**h, "alg": "RS256"},
    "alg of another key": lambda h: {**h, "alg": "EdDSA"},
    "kid of another key": lambda h: {**h, "kid": "ed-1"},
    "alg and kid of another key": lambda h: {**h, "alg": "ES256", "kid": "ec-1"},
    "kid path": lambda h: {**h, "kid": "../../dev/null"},
    "kid sql": lambda h: {**h, "kid": "' UNION SELECT 'k'--"},
    "kid object": lambda h: {**h, "kid": {"$ne": 1}},
    "kid int": lambda h: {**h, "kid": 1},
    "kid absent": lambda h: {"alg": h["alg"], "typ": h["typ"]},
    "kid long": lambda h: {**h, "kid": "k" * 1_000_000},
    "typ JWT": lambda h: {**h, "typ": "JWT"},
    "typ AT+JWT": lambda h: {**h, "typ": "AT+JWT"},
    "typ with its media type": lambda h: {**h, "typ": "application/at+jwt"},
    "typ refresh": lambda h: {**h, "typ": "refresh"},
    "typ id_token": lambda h: {**h, "typ": "id_token"},
    "typ absent": lambda h: {"alg": h["alg"], "kid": h["kid"]},
    "crit": lambda h: {**h, "crit": ["exp"]},
    "crit empty": lambda h: {**h, "crit": []},
    "b64": lambda h: {**h, "b64": False},
    "jku": lambda h: {**h, "jku": "https://attacker.example/jwks.json"},
    "x5u": lambda h: {**h, "x5u": "https://attacker.example/cert"},
    "jwk": lambda h: {**h, "jwk": {"kty": "oct", "k": "AA"}},
    "x5c": lambda h: {**h, "x5c": ["AA"]},
    "zip": lambda h: {**h, "zip": "DEF"},
    "cty": lambda h: {**h, "cty": "JWT"},
    "a list": lambda h: [h],
    "a text": lambda h: b'"HS256"',
    "empty object": lambda h: {},
    "nothing": lambda h: b"",
    "not JSON": lambda h: b"{",
    "not UTF-8": lambda h: b"\xff\xfe",
    "duplicate alg": lambda h: json.dumps(h).replace("{", '{"alg":"none",', 1).encode(),
    "duplicate alg, last": lambda h: (json.dumps(h)[:-1] + ',"alg":"HS256"}').encode(),
    "other order": lambda h: dict(reversed(h.items())),
    "spaces": lambda h: json.dumps(h, indent=1).encode(),
    "deep": lambda h: b"[" * 1000,
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_is_not_exactly_ours_is_refused(tokens: Tokens, token: str, kind: str) -> None:
    forged = resigned(token, header=HEADERS[kind](header_of(token)))
    refused(tokens, forged)
    header, payload, _ = parts(forged)
    refused(tokens, f"{header}.{payload}.")


def test_a_public_key_is_no_hmac_secret() -> None:
    """Algorithm confusion: HS256 over the public key that everybody can fetch."""
    tokens = Tokens(KEYS, ISSUER, AUDIENCE, algorithm="ES256")
    token = tokens.mint_access(**WHO).token
    public = next(key for key in KEYS.jwks()["keys"] if key["kid"] == "ec-1")
    for material in (json.dumps(public).encode(), ECKey.import_key(public).as_pem(private=False)):
        for alg in ("HS256", "ES256"):
            refused(tokens, resigned(token, header={**header_of(token), "alg": alg}, key=material))
        refused(tokens, resigned(token, key=material))


@pytest.mark.parametrize("own", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_one_algorithm_is_in_force(own: Algorithm, other: Algorithm) -> None:
    """A token of another of the service's own keys is refused while that algorithm is not the configured one."""
    tokens = Tokens(KEYS, ISSUER, AUDIENCE, algorithm=own)
    token = Tokens(KEYS, ISSUER, AUDIENCE, algorithm=other).mint_access(**WHO).token
    if own == other:
        tokens.verify_access(token)
    else:
        refused(tokens, token)


# --- the signature (C4, C5, C19) --------------------------------------------------------------------------------------


OTHER_KEYS = {
    "empty": b"",
    "short": b"secret",
    "long": b"k" * 8192,
    "the secret itself": SECRET.encode(),
    "for cursors": KEYS.derived("cursor"),
}


@pytest.mark.parametrize("key", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_another_key_is_refused(tokens: Tokens, token: str, key: bytes) -> None:
    refused(tokens, resigned(token, key=key))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda s: b"",
        lambda s: b"\0" * len(s),
        lambda s: s[:-1],
        lambda s: s[: len(s) // 2],
        lambda s: s + b"\0",
        lambda s: bytes([s[0] ^ 1]) + s[1:],
        lambda s: s[:-1] + bytes([s[-1] ^ 1]),
        lambda s: b"\xff" * len(s),
        lambda s: b"\x30\x44\x02\x20" + s[:32] + b"\x02\x20" + s[32:],
        lambda s: b"A" * 2000,
    ],
    ids=["empty", "zeros", "short", "half", "long", "first bit", "last bit", "ones", "DER", "huge"],
)
def test_a_damaged_signature_is_refused(algorithm: Algorithm, damage: Callable[[bytes], bytes]) -> None:
    tokens = Tokens(KEYS, ISSUER, AUDIENCE, algorithm=algorithm)
    header, payload, signature = parts(tokens.mint_access(**WHO).token)
    refused(tokens, f"{header}.{payload}.{to_base64url(damage(from_base64url(signature)))}")


def test_a_flipped_character_anywhere_is_refused(tokens: Tokens, token: str) -> None:
    for place, character in enumerate(token):
        refused(tokens, token[:place] + ("A" if character != "A" else "B") + token[place + 1 :])


def test_only_one_spelling_of_a_token_is_accepted(tokens: Tokens, token: str) -> None:
    header, payload, signature = parts(token)
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twins = [
        signature[:-1] + other
        for other in alphabet
        if other != last and base64.urlsafe_b64decode(signature[:-1] + other + "=") == from_base64url(signature)
    ]
    assert len(twins) == 3, "a 32-byte signature leaves two unused bits, so its last character has three twins"
    spellings = [f"{header}.{payload}.{twin}" for twin in twins]
    spellings += [token + "=", token + "==", f"{header}=.{payload}.{signature}", f"{header}.{payload}=.{signature}"]
    spellings += [token + ".", "." + token, token + "." + signature, f"{header}..{payload}.{signature}"]
    spellings += [" " + token, token + " ", token + "\n", "\t" + token, token.replace(".", " .", 1), token + "\0"]
    spellings += [f"{header}.{payload}.{signature[:10]}\n{signature[10:]}", f"{header}.{payload}.!{signature}"]
    spellings += ["Bearer " + token, token.upper(), token + "é", token.replace(".", "．")]
    for spelling in spellings:
        refused(tokens, spelling)


def test_a_rightly_signed_payload_has_one_spelling_too(tokens: Tokens, token: str) -> None:
    header, payload, _ = parts(token)
    for spelling in (payload + "=", payload + "==", payload[:8] + "\n" + payload[8:], payload + "*", payload + " "):
        refused(tokens, hs256(header, spelling))


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "a.b.c.d.e", "\ud800", "é.é.é", "null", "x" * 65536]
)
def test_what_is_no_token_is_refused(tokens: Tokens, token: str) -> None:
    refused(tokens, token)


def test_a_long_token_is_refused_unread(tokens: Tokens, token: str) -> None:
    """The limit, seen with a token that is right in everything else."""
    claims = claims_of(token)
    spaces = json.dumps(claims).encode()
    refused(tokens, resigned(token, payload=b64(spaces + b" " * 4000)))
    assert tokens.verify_access(resigned(token, payload=b64(spaces + b" " * 1000)))


def test_an_encrypted_token_is_refused(tokens: Tokens) -> None:
    key = OctKey.import_key(KEYS.derived("jwt"))
    refused(tokens, jwe.encrypt_compact({"alg": "dir", "enc": "A128CBC-HS256"}, b"{}", key))


# --- the claims (C10, C11, C13, C14) ----------------------------------------------------------------------------------

NOW = int(START.timestamp())
OTHERS: list[Any] = [None, True, [], {}, "", "x", 0, -1, 1.5, 1e300, 2**63]
CLAIM_VALUES: dict[str, list[Any]] = {
    "iss": [*OTHERS, ISSUER + "/", ISSUER[:-1], ISSUER.upper(), "orgstead.example", [ISSUER], ISSUER + ISSUER],
    "aud": [*OTHERS, [AUDIENCE], [AUDIENCE, "x"], AUDIENCE.upper(), AUDIENCE[:-1], AUDIENCE + " "],
    "sub": [
        *OTHERS,
        WHO["org_id"],
        WHO["user_id"].upper(),
        WHO["user_id"] + "\n",
        WHO["user_id"][:-1],
        "usr_" + "z" * 26,
    ],
    "sid": [*OTHERS, WHO["user_id"], WHO["session_id"] + "0", "ses_../../etc/passwd00000000"],
    "org_id": [*OTHERS, WHO["user_id"], [WHO["org_id"]], {"$ne": 1}, WHO["org_id"] + "' OR '1'='1"],
    "org_role": [*OTHERS, "Owner", "root", "owner ", ["owner"]],
    "org_epoch": [None, True, False, "3", 3.0, 0, -1, [3], 2**70],
    "iat": [None, True, str(NOW), float(NOW), -NOW, 0, [NOW], 2**70, NOW - 100_000, NOW + 901],
    "nbf": [None, True, str(NOW), float(NOW), -NOW, 0, [NOW], 2**70, NOW - 1, NOW + 900, NOW + 31],
    "exp": [None, True, str(NOW + 900), NOW + 900.0, -1, 0, [NOW + 900], 2**70, NOW, NOW - 1, NOW + 901, 1e308],
    "jti": [*OTHERS, "short", "x" * 17, "é" * 16, "../../../../../.."],
}


@pytest.mark.parametrize("name", CLAIM_VALUES)
def test_a_claim_that_is_not_right_is_refused(tokens: Tokens, token: str, name: str) -> None:
    claims = claims_of(token)
    for value in CLAIM_VALUES[name]:
        refused(tokens, resigned(token, payload={**claims, name: value}))
    refused(tokens, resigned(token, payload={key: value for key, value in claims.items() if key != name}))


def test_every_claim_is_in_the_corpus() -> None:
    assert CLAIM_VALUES.keys() == CLAIMS


def test_foreign_claims_are_refused(tokens: Tokens, token: str) -> None:
    refused(tokens, resigned(token, payload={**claims_of(token), "admin": True}))


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_a_claim_given_twice_is_refused(tokens: Tokens, token: str, name: str) -> None:
    claims = claims_of(token)
    once = json.dumps(claims)
    twice = once[:-1] + f', "{name}": {json.dumps(claims[name])}}}'
    assert json.loads(twice) == claims
    refused(tokens, resigned(token, payload=b64(twice.encode())))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b"\xff",
        b"[" * 2000,
        b'{"a":' * 500,
        b"NaN",
        b'{"exp":1e400}',
        b"1" * 2500,
    ],
)
def test_a_payload_that_is_no_claims_is_refused(tokens: Tokens, token: str, payload: bytes) -> None:
    refused(tokens, resigned(token, payload=b64(payload)))


@pytest.mark.parametrize("literal", ["1e400", "NaN", "Infinity", "-Infinity", "1" * 400, "1.7e9"])
def test_a_number_that_is_no_integer_is_refused(tokens: Tokens, token: str, literal: str) -> None:
    text = json.dumps({**claims_of(token), "exp": 0}).replace('"exp": 0', f'"exp": {literal}')
    refused(tokens, resigned(token, payload=b64(text.encode())))


# --- time (C10, C11, R22) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_token_lives_until_its_leeway_is_over(watch: Watch, *, seen_before: bool) -> None:
    tokens = Tokens(KEYS, ISSUER, AUDIENCE, ttl_seconds=60, leeway_seconds=30, clock=watch)
    token = tokens.mint_access(**WHO).token
    if seen_before:
        tokens.verify_access(token)
    watch.advance(89.9)
    if seen_before:
        tokens.verify_access(token)
    watch.advance(0.1)
    refused(tokens, token)
    watch.advance(10 * 365 * 86400)
    refused(tokens, token)


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_token_of_the_future_is_refused_beyond_the_leeway(watch: Watch, *, seen_before: bool) -> None:
    """A clock set back does not accept what was made later; nor crash."""
    tokens = Tokens(KEYS, ISSUER, AUDIENCE, leeway_seconds=30, clock=watch)
    token = tokens.mint_access(**WHO).token
    if seen_before:
        tokens.verify_access(token)
    watch.advance(-31)
    refused(tokens, token)
    watch.advance(1)
    assert tokens.verify_access(token)


def test_the_leeway_is_as_the_setting_says() -> None:
    leeway = inspect.signature(Tokens).parameters["leeway_seconds"].default
    assert f"accepted for {leeway} seconds more" in str(JwtSettings.model_fields["ttl"].description)


def test_the_leeway_and_the_life_of_tokens_are_bounded() -> None:
    for wrong in ({"leeway_seconds": 61}, {"leeway_seconds": -1}, {"ttl_seconds": 901}, {"ttl_seconds": 0}):
        with pytest.raises(ConfigurationError):
            Tokens(KEYS, ISSUER, AUDIENCE, **wrong)  # type: ignore[arg-type]  # the values are ints, as they must be


# --- the memory of verified tokens ------------------------------------------------------------------------------------


class CountingTokens(Tokens):
    """Counts the tokens that were really verified."""

    verified = 0

    def _verify(self, token: str) -> Any:
        self.verified += 1
        return super()._verify(token)


def test_a_token_is_verified_once_and_the_memory_is_bounded() -> None:
    tokens = CountingTokens(KEYS, ISSUER, AUDIENCE, cached=10)
    first = tokens.mint_access(**WHO).token
    for _ in range(5):
        tokens.verify_access(first)
    assert tokens.verified == 1
    for _ in range(100):
        tokens.verify_access(tokens.mint_access(**WHO).token)
        tokens.verify_access(first)
    assert tokens.verified == 101, "what is in use stays remembered"
    assert len(tokens._cache._new) + len(tokens._cache._old) <= 20
    for _ in range(30):
        tokens.verify_access(tokens.mint_access(**WHO).token)
    tokens.verify_access(first)
    assert tokens.verified == 132, "what is not in use is forgotten"


# --- several keys, rotation (R20) -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "make"), [("EdDSA", ed25519), ("ES256", p256)])
def test_a_key_that_is_rotated_out_still_verifies_until_it_is_removed(
    algorithm: Algorithm, make: Callable[[str | None], SigningKey]
) -> None:
    old, new = make("old"), make("new")
    before = Tokens(Keys(SECRET, signing=[old]), ISSUER, AUDIENCE, algorithm=algorithm)
    during = Tokens(Keys(SECRET, signing=[new, replace(old, private=False)]), ISSUER, AUDIENCE, algorithm=algorithm)
    after = Tokens(Keys(SECRET, signing=[new]), ISSUER, AUDIENCE, algorithm=algorithm)
    old_token, new_token = before.mint_access(**WHO).token, during.mint_access(**WHO).token
    assert header_of(old_token)["kid"] == "old"
    assert header_of(new_token)["kid"] == "new"
    for token in (old_token, new_token):
        assert during.verify_access(token)
    refused(after, old_token)
    refused(before, new_token)


def test_the_same_key_under_another_kid_is_another_key() -> None:
    key = ed25519("a")
    tokens = Tokens(Keys(SECRET, signing=[key]), ISSUER, AUDIENCE, algorithm="EdDSA")
    other = Tokens(Keys(SECRET, signing=[replace(key, kid="b")]), ISSUER, AUDIENCE, algorithm="EdDSA")
    refused(tokens, other.mint_access(**WHO).token)


def test_another_secret_ends_every_token(tokens: Tokens, token: str, watch: Watch) -> None:
    rotated = Keys(secrets.token_urlsafe(48))
    refused(Tokens(rotated, ISSUER, AUDIENCE, clock=watch), token)
    assert rotated.signer("HS256").kid != KEYS.signer("HS256").kid
    forged = resigned(token, header={**header_of(token), "kid": rotated.signer("HS256").kid})
    refused(Tokens(rotated, ISSUER, AUDIENCE, clock=watch), forged)
