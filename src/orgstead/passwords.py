"""Passwords: which are acceptable, and how they are hashed without the service running out of memory or time.

A password is normalised to NFC before it is checked or hashed (RFC 8265, OpaqueString), so that the same password
typed on keyboards that compose accents differently is the same password. Nothing else about it is changed: case,
spaces, emoji and NUL count, and nothing is cut off.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import sys
import threading
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from time import perf_counter
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerificationError, VerifyMismatchError

from orgstead.errors import ConfigurationError, Overloaded, PasswordUnacceptable

MAX_BYTES = 1024
MIN_LENGTH = 8
OWASP_MEMORY_KIB = 19456
OWASP_ITERATIONS = 2
PRODUCT_WORDS = ("orgstead", "organization", "organizations", "organisation", "administrator")

_SALT_BYTES = 16
_HASH_BYTES = 32
_SECONDS_PER_KIB = 0.02 / (OWASP_MEMORY_KIB * OWASP_ITERATIONS)
_SMOOTHING = 0.2
_NICENESS = 5
"""A third of the processor time that others have, while both want it (sched(7))."""

T = TypeVar("T")


class Passwords:
    """Checks, hashes (Argon2id, RFC 9106) and verifies passwords.

    ``memory_kib``, ``iterations`` and ``parallelism`` are Argon2's; the defaults are OWASP's minimum. At most
    ``threads`` hashes run at a time (default: one for each core), each holding ``memory_kib``. Work that would wait
    longer than ``max_wait_seconds`` is refused with ``Overloaded``; the estimate follows what hashes really took.
    ``min_length`` is in code points, at least 8.
    """

    def __init__(
        self,
        *,
        memory_kib: int = OWASP_MEMORY_KIB,
        iterations: int = OWASP_ITERATIONS,
        parallelism: int = 1,
        threads: int | None = None,
        max_wait_seconds: float = 1.0,
        min_length: int = MIN_LENGTH,
    ) -> None:
        if min_length < MIN_LENGTH:
            raise ConfigurationError(f"Passwords must have at least {MIN_LENGTH} characters; set a larger minimum.")
        self.min_length = min_length
        self._hasher = PasswordHasher(
            time_cost=iterations,
            memory_cost=memory_kib,
            parallelism=parallelism,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
            type=Type.ID,
        )
        self._nobodys_hash = _hash_of_nothing(memory_kib, iterations, parallelism)
        self._threads = threads or os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self._threads, "passwords", initializer=_step_back)
        self._max_wait = max_wait_seconds
        self._seconds = _SECONDS_PER_KIB * memory_kib * iterations
        self._pending = 0
        self._lock = threading.Lock()

    def check(self, password: str, *, related: Iterable[str] = ()) -> None:
        """Raise ``PasswordUnacceptable`` for a password that is too short, too long, common, or easily guessed.

        ``related`` are texts that belong to the person or organization (e-mail address, name, slug): a password that
        equals one of them, or the local part of an address, is refused. There are no rules of composition.
        """
        data = _normalised(password)
        if data is None:
            raise PasswordUnacceptable(f"Choose a password of at most {MAX_BYTES} bytes of valid Unicode text.")
        text = data.decode()
        if len(text) < self.min_length:
            raise PasswordUnacceptable(f"Choose a password of at least {self.min_length} characters.")
        folded = _folded(text)
        if folded in common_passwords():
            raise PasswordUnacceptable("This password is one of those that are tried first; choose another.")
        if folded in _guesses(related):
            raise PasswordUnacceptable(
                "Choose a password that is not an e-mail address, a name of the organization or of this product."
            )

    async def hash(self, password: str) -> str:
        """The PHC text (``$argon2id$…``) to store.

        Raises ``Overloaded`` when the queue is full, ``PasswordUnacceptable`` for what cannot be a password at all;
        the other rules are ``check``'s.
        """
        data = _normalised(password)
        if data is None:
            raise PasswordUnacceptable(f"Choose a password of at most {MAX_BYTES} bytes of valid Unicode text.")
        return await self._run(lambda: self._hasher.hash(data))

    async def verify(self, stored: str, password: str) -> bool:
        """Is this the password of ``stored``? Raises ``Overloaded`` when the queue is full.

        A stored text that is no hash, and a text that cannot be a password, are False at the same cost.
        """
        data = _normalised(password)
        return await self._run(lambda: self._matches(stored, data))

    async def verify_unknown(self, password: str) -> bool:
        """False, at the cost of ``verify``: what is done when there is no such account."""
        return await self.verify(self._nobodys_hash, password)

    def needs_rehash(self, stored: str) -> bool:
        """Was ``stored`` made with other parameters than those in use? Ask after a successful ``verify``."""
        try:
            return self._hasher.check_needs_rehash(stored)
        except ValueError:
            return False

    def close(self) -> None:
        """Let the threads end once the hashes that are running are done; those waiting are cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _matches(self, stored: str, data: bytes | None) -> bool:
        """Runs in a thread. ``stored`` may be damaged, which Argon2 reports before or after the costly part."""
        if data is None:
            stored, data = self._nobodys_hash, b""
        try:
            return self._hasher.verify(stored, data)
        except VerifyMismatchError:
            return False
        except (VerificationError, ValueError):
            return self._matches(self._nobodys_hash, data)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread of ours, or raise ``Overloaded``. Cancelling the caller gives up its place."""
        return await asyncio.wrap_future(self._enqueued(work))

    def _enqueued(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            wait = max(0, self._pending + 1 - self._threads) * self._seconds / self._threads
            if wait > self._max_wait:
                raise Overloaded(
                    "Too many passwords are being checked; retry after a moment.", retry_after=max(1, math.ceil(wait))
                )
            self._pending += 1
        future = self._executor.submit(self._timed, work)
        future.add_done_callback(self._left)
        return future

    def _left(self, _: Future[T]) -> None:
        """Done, failed, or cancelled while waiting; a hash that runs keeps its place until it is done."""
        with self._lock:
            self._pending -= 1

    def _timed(self, work: Callable[[], T]) -> T:
        started = perf_counter()
        result = work()
        taken = perf_counter() - started
        with self._lock:
            self._seconds += _SMOOTHING * (taken - self._seconds)
        return result


def _step_back() -> None:
    """Let the rest of the service go first where cores are short: requests that hash nothing stay quick.

    Only Linux has a priority for each thread; elsewhere this would be the whole process's.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


@cache
def common_passwords() -> frozenset[str]:
    """The passwords that are tried first, of 8 characters and more, in lower case; shipped with the package."""
    text = files("orgstead").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


def _normalised(password: str) -> bytes | None:
    """The bytes that are hashed, or None where the text is too long or no valid Unicode (a lone surrogate).

    Composing shortens a text to no less than a quarter, so what is longer than four times the limit is not looked at.
    """
    if len(password) > 4 * MAX_BYTES:
        return None
    try:
        data = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return None
    return data if len(data) <= MAX_BYTES else None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().strip()


def _guesses(related: Iterable[str]) -> set[str]:
    """What someone who knows the person or the organization tries first."""
    texts = [*PRODUCT_WORDS, *related]
    texts += [text.rpartition("@")[0] for text in texts if "@" in text]
    folded = {_folded(text) for text in texts}
    return folded | {guess.replace(" ", separator) for guess in folded for separator in ("", "-", "_", ".")}


def _hash_of_nothing(memory_kib: int, iterations: int, parallelism: int) -> str:
    """A well-formed hash that no password is known for: checking against it costs as much as against a real one."""
    salt, digest = (b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (_SALT_BYTES, _HASH_BYTES))
    return f"$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}${salt}${digest}"
