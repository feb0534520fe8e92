"""Small things everyone needs: time, ids, pages. Knows no organization and does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from ulid import ULID

T = TypeVar("T")

Clock = Callable[[], datetime]
"""Gives the time in UTC to the millisecond. The App owns one, so that tests can set it."""


def now() -> datetime:
    """The time in UTC, cut to milliseconds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def new_id(prefix: str) -> str:
    """A new id such as ``org_01jd…``: the prefix and a lower-case ULID (sorts by time, 80 random bits)."""
    return f"{prefix}_{str(ULID()).lower()}"


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T10:00:00.000Z``: how every time leaves the product."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and the opaque cursor of what follows (None at the end)."""

    items: list[T]
    next_cursor: str | None
