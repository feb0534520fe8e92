"""Passwords: which are refused, that nothing is cut off, and that hashing is bounded."""

from __future__ import annotations

import asyncio
import threading
import unicodedata
from collections.abc import Iterator
from typing import Literal

import pytest
from argon2 import PasswordHasher

from orgstead.errors import ConfigurationError, Overloaded, PasswordUnacceptable
from orgstead.passwords import Passwords, common_passwords

pytestmark = pytest.mark.anyio

CHEAP = {"memory_kib": 8, "iterations": 1}
GOOD = "correct horse battery staple"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(**CHEAP)
    yield made
    made.close()


class Gate:
    """Takes the place of Argon2: every hash waits until the gate is opened, and is counted."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started = threading.Semaphore(0)
        self.ran = 0

    def hash(self, data: bytes) -> str:
        self.ran += 1
        self.started.release()
        assert self.opened.wait(10)
        return "hashed " + data.decode()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def gated(gate: Gate, monkeypatch: pytest.MonkeyPatch, *, threads: int, waiting: int) -> Passwords:
    """Passwords with room for ``threads`` running and ``waiting`` queued hashes, all held by the gate."""
    passwords = Passwords(threads=threads, max_wait_seconds=0.02 * waiting / threads)
    monkeypatch.setattr(passwords, "_hasher", gate)
    return passwords


# --- which are acceptable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password", ["aaaaaaaaaaaaaaa", GOOD, "ключ от двери 7", "x" * 64, "🔑" * 256, "with\0nul inside"]
)
def test_length_and_novelty_are_the_only_rules(passwords: Passwords, password: str) -> None:
    passwords.check(password)


@pytest.mark.parametrize(
    "password",
    ["", "seven77", "é" * 7, "e\u0301" * 7, "x" * 1025, "🔑" * 257, "y" * 5000, "lone \ud800 surrogate"],
)
def test_too_short_too_long_and_not_unicode_are_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(PasswordUnacceptable):
        passwords.check(password)


@pytest.mark.parametrize("password", ["password", "12345678", "PassWord", "iloveyou", "Trustno1", " password "])
def test_common_ones_are_refused_in_any_case(passwords: Passwords, password: str) -> None:
    with pytest.raises(PasswordUnacceptable):
        passwords.check(password)


@pytest.mark.parametrize(
    "password",
    [
        "ada.lovelace@example.com",
        "ADA.Lovelace",
        "Acme Rockets",
        "acmerockets",
        "acme-rockets",
        "Orgstead",
        "organization",
    ],
)
def test_what_is_known_about_the_person_is_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(PasswordUnacceptable):
        passwords.check(password, related=["ada.lovelace@example.com", "Acme Rockets"])
    passwords.check(password + " and more", related=["ada.lovelace@example.com", "Acme Rockets"])


def test_the_list_has_the_3000_most_common_that_are_long_enough() -> None:
    listed = common_passwords()
    assert len(listed) >= 3000
    assert all(len(entry) >= 8 and entry == entry.casefold() for entry in listed)


def test_the_minimum_is_a_setting_with_a_floor() -> None:
    strict = Passwords(min_length=15, **CHEAP)
    with pytest.raises(PasswordUnacceptable, match="15"):
        strict.check("fourteen chars")
    strict.check("fifteen chars..")
    with pytest.raises(ConfigurationError):
        Passwords(min_length=7)


def test_the_refusal_never_shows_the_password(passwords: Passwords) -> None:
    with pytest.raises(PasswordUnacceptable) as refused:
        passwords.check("trustno1")
    assert "trustno1" not in str(refused.value)


# --- hashing ----------------------------------------------------------------------------------------------------------


async def test_the_default_is_argon2id_with_the_recommended_cost() -> None:
    stored = await Passwords().hash(GOOD)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize("password", [GOOD, "x" * 64, "🔑" * 256, "a\0b is not a", "  spaces  "])
async def test_a_password_verifies_exactly(passwords: Passwords, password: str) -> None:
    stored = await passwords.hash(password)
    assert await passwords.verify(stored, password)
    for other in (password[:-1], password + " ", password.swapcase() + "x", password.split("\0")[0] + "\0"):
        assert not await passwords.verify(stored, other)


async def test_nothing_is_cut_off(passwords: Passwords) -> None:
    stored = await passwords.hash("x" * 1000 + "y" * 24)
    assert not await passwords.verify(stored, "x" * 999 + "z" + "y" * 24)
    assert not await passwords.verify(stored, "x" * 1000 + "y" * 23 + "z")
    with pytest.raises(PasswordUnacceptable):
        await passwords.hash("x" * 1025)


async def test_nul_does_not_end_a_password(passwords: Passwords) -> None:
    stored = await passwords.hash("prefix\0one suffix")
    assert not await passwords.verify(stored, "prefix\0another suffix")
    assert not await passwords.verify(stored, "prefix")


async def test_composed_and_decomposed_accents_are_the_same_password(passwords: Passwords) -> None:
    composed = "Ærøskøbing café é"
    stored = await passwords.hash(unicodedata.normalize("NFD", composed))
    assert await passwords.verify(stored, composed)


@pytest.mark.parametrize(
    "stored", ["", "x", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$!!", "$2b$12$abc", "é"]
)
async def test_a_damaged_stored_hash_matches_nothing(passwords: Passwords, stored: str) -> None:
    assert not await passwords.verify(stored, GOOD)


async def test_what_cannot_be_a_password_matches_nothing(passwords: Passwords) -> None:
    stored = await passwords.hash(GOOD)
    for password in ("\ud800", "x" * 1025, "", "x" * 10_000_000):
        assert not await passwords.verify(stored, password)


async def test_every_answer_no_costs_one_evaluation(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown, wrong, damaged and impossible: one full evaluation each, with the parameters in use."""
    evaluated: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            try:
                return super().verify(hash, password)
            finally:
                if str(hash).startswith("$argon2id$v=19$m=8,t=1,p=1$"):
                    evaluated.append(str(hash))

    right = await passwords.hash(GOOD)
    monkeypatch.setattr(passwords, "_hasher", Counting(memory_cost=8, time_cost=1, parallelism=1))
    for ask in (
        passwords.verify(right, "wrong"),
        passwords.verify("damaged", GOOD),
        passwords.verify(right, "\ud800"),
        passwords.verify_unknown(GOOD),
        passwords.verify_unknown("x" * 5000),
    ):
        evaluated.clear()
        assert not await ask
        assert len(evaluated) == 1


@pytest.mark.parametrize("stored", ["", "damaged", "é"])
def test_a_damaged_hash_does_not_ask_for_a_new_one(passwords: Passwords, stored: str) -> None:
    assert not passwords.needs_rehash(stored)


async def test_weaker_parameters_ask_for_a_new_hash(passwords: Passwords) -> None:
    stronger = Passwords(memory_kib=16, iterations=1)
    stored = await passwords.hash(GOOD)
    assert await stronger.verify(stored, GOOD)
    assert stronger.needs_rehash(stored)
    assert not stronger.needs_rehash(await stronger.hash(GOOD))


# --- the bound --------------------------------------------------------------------------------------------------------


async def test_no_more_hashes_run_than_there_are_threads_and_the_rest_is_refused(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = gated(gate, monkeypatch, threads=2, waiting=3)
    accepted = [asyncio.create_task(passwords.hash(f"password {n}")) for n in range(20)]
    refused, waiting = await asyncio.wait(accepted, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    while len(refused) < 15:
        more, waiting = await asyncio.wait(waiting, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        assert more
        refused |= more
    assert gate.ran <= 2
    errors = [task.exception() for task in refused]
    assert all(isinstance(error, Overloaded) and (error.retry_after or 0) >= 1 for error in errors)
    gate.opened.set()
    assert len(await asyncio.gather(*waiting)) == 5


async def test_giving_up_while_waiting_frees_the_place(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = gated(gate, monkeypatch, threads=1, waiting=1)
    running = asyncio.create_task(passwords.hash("running"))
    waiting = asyncio.create_task(passwords.hash("waiting"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await passwords.hash("refused")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    another = asyncio.create_task(passwords.hash("another"))
    await asyncio.sleep(0)
    gate.opened.set()
    assert [await running, await another] == ["hashed running", "hashed another"]
    assert gate.ran == 2


async def test_giving_up_on_a_running_hash_keeps_its_place(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = gated(gate, monkeypatch, threads=1, waiting=0)
    running = asyncio.create_task(passwords.hash("running"))
    await asyncio.to_thread(gate.started.acquire)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(Overloaded):
        await passwords.hash("refused")


async def test_the_loop_runs_on_while_passwords_are_hashed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = gated(gate, monkeypatch, threads=1, waiting=0)
    hashing = asyncio.create_task(passwords.hash("running"))
    await asyncio.to_thread(gate.started.acquire)
    assert not hashing.done()
    gate.opened.set()
    assert await hashing == "hashed running"
