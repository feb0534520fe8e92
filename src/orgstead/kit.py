"""Small things everyone needs: time, ids, members of JSON, work side by side. Knows no organization and does no I/O."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar, cast

T = TypeVar("T")

Clock = Callable[[], datetime]
"""Gives the time in UTC to the millisecond. The App owns one, so that tests can set it."""


def now() -> datetime:
    """The time in UTC, cut to milliseconds."""
    return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)  # exact: a float tells microseconds apart


class _Ulids:
    """ULIDs as numbers (github.com/ulid/spec): 48 bits of milliseconds and 80 random ones; within a millisecond, one
    more than the last, so that ids sort in the order in which a process made them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        fresh = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
        with self._lock:
            self._last = fresh if fresh >> 80 > self._last >> 80 else self._last + 1
            return self._last


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_SHIFTS = range(120, -10, -10)
_ulids = _Ulids()


def new_id(prefix: str) -> str:
    """A new id such as ``org_01jd…``: the prefix and a lower-case ULID. Ids that a process makes sort by their age."""
    return _written(prefix, _ulids.next())


def derived_id(prefix: str, at: datetime, seed: bytes) -> str:
    """An id that follows from the time and the seed: what is made twice of the same is one and the same."""
    milliseconds = int(at.timestamp() * 1000)
    return _written(prefix, milliseconds << 80 | int.from_bytes(hashlib.sha256(seed).digest()[:10]))


def base32(number: int, length: int) -> str:
    """The number in so many digits of the alphabet that ids are written in: lower case, without i, l, o and u."""
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -5, -5)])


def _written(prefix: str, number: int) -> str:
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


@lru_cache(maxsize=8192)
def rfc3339(moment: datetime) -> str:
    """``2026-11-23T10:00:00.000Z``: how every time leaves the product."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


async def all_of(works: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all, done side by side, in order. Raises the first one's error, once all have ended: nothing goes
    on behind the back of whoever hears of a failure."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException):
            raise one
    return cast(list[T], ended)


def unique_members(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` for ``json``. Raises ``ValueError`` for a name given twice: readers differ about it."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError("duplicate member")
        members[name] = value
    return members
