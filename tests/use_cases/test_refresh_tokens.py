"""Refresh tokens: one for each generation of a session; and that no kind of token passes for another."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orgstead.cursors import Cursors
from orgstead.errors import InvalidCursor, InvalidToken
from orgstead.keys import Keys
from orgstead.kit import new_id
from orgstead.model import Session
from orgstead.tokens import Tokens
from tests.use_cases.forge import AUDIENCE, ISSUER, KEYS, START, WHO


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(KEYS, ISSUER, AUDIENCE)


# --- refresh tokens ---------------------------------------------------------------------------------------------------


def session(**changes: Any) -> Session:
    made = Session(
        id=WHO["session_id"],
        user_id=WHO["user_id"],
        org_id=WHO["org_id"],
        user_epoch=1,
        seed="5eed" * 8,
        rotated_at=START,
        created_at=START,
        expires_at=START + timedelta(days=30),
    )
    return replace(made, **changes)


def test_a_refresh_token_is_a_function_of_session_seed_and_generation(tokens: Tokens) -> None:
    token = tokens.refresh_token(session())
    assert token == tokens.refresh_token(session(rotated_at=START + timedelta(days=1), version=7))
    variants = [session(generation=2), session(seed="beef" * 8), session(id=new_id("ses"))]
    others = [tokens.refresh_token(other) for other in variants]
    other_secret = Tokens(Keys(secrets.token_urlsafe(48)), ISSUER, AUDIENCE).refresh_token(session())
    assert len({token, *others, other_secret}) == 5


@pytest.mark.parametrize("generation", [1, 2, 17])
def test_a_refresh_token_names_its_session_and_generation(tokens: Tokens, generation: int) -> None:
    claim = tokens.parse_refresh(tokens.refresh_token(session(generation=generation)))
    assert (claim.session_id, claim.generation) == (WHO["session_id"], generation)
    tokens.verify_refresh(claim, session(generation=18))


def test_a_refresh_token_of_something_else_is_refused(tokens: Tokens) -> None:
    claim = tokens.parse_refresh(tokens.refresh_token(session()))
    wrong = [replace(claim, generation=2), replace(claim, mac="0" * 64), replace(claim, session_id=new_id("ses"))]
    for forged in wrong:
        with pytest.raises(InvalidToken):
            tokens.verify_refresh(forged, session())
    for other in (session(seed="beef" * 8), session(id=new_id("ses"))):
        with pytest.raises(InvalidToken):
            tokens.verify_refresh(claim, other)
    other_id = new_id("ses")
    with pytest.raises(InvalidToken):
        tokens.verify_refresh(replace(claim, session_id=other_id), session(id=other_id))


def test_only_one_spelling_of_a_refresh_token_is_accepted(tokens: Tokens) -> None:
    token = tokens.refresh_token(session())
    body, generation, mac = token.rsplit("_", 2)
    spellings = [token.upper(), token + "\n", " " + token, token[:-1], token + "0", "x" + token, token[3:], "", "rt_"]
    spellings += [f"{body}_{wrong}_{mac}" for wrong in ("01", "0", "-1", "+1", "1e0", "9" * 10, "", "\u0661")]
    spellings += [f"{body}_{generation}_{mac.upper()}", f"{body}_{generation}_{'é' * 64}", f"{body}_{generation}"]
    for spelling in spellings:
        with pytest.raises(InvalidToken):
            tokens.parse_refresh(spelling)


# --- one kind in the place of another (C17, R21) ------------------------------------------------------------------


def kinds(tokens: Tokens) -> dict[str, str]:
    """One of every kind of secret or signed text that the service hands out or will."""
    return {
        "access token": tokens.mint_access(**WHO).token,
        "refresh token": tokens.refresh_token(session()),
        "cursor": Cursors(KEYS.derived("cursor")).encode(["a", 1], ["route"]),
        "sealed response": KEYS.encrypt("{}", "row"),
        "API key": "ok_" + new_id("key") + secrets.token_urlsafe(32),
        "invitation": new_id("inv") + "." + secrets.token_urlsafe(32),
        "session id": WHO["session_id"],
        "signing key id": KEYS.signer("HS256").kid,
        "derived key": KEYS.derived("jwt").hex(),
    }


def test_no_kind_is_accepted_in_the_place_of_another(tokens: Tokens) -> None:
    def refresh(text: str) -> None:
        tokens.verify_refresh(tokens.parse_refresh(text), session())

    def sealed(text: str) -> None:
        if KEYS.decrypt(text, "row") is None:
            raise InvalidToken

    accepting: dict[str, Callable[[str], object]] = {
        "access token": tokens.verify_access,
        "refresh token": refresh,
        "cursor": lambda text: Cursors(KEYS.derived("cursor")).decode(text, ["route"]),
        "sealed response": sealed,
    }
    for place, accept in accepting.items():
        for kind, text in kinds(tokens).items():
            if kind == place:
                accept(text)
            else:
                with pytest.raises((InvalidToken, InvalidCursor)):
                    accept(text)
