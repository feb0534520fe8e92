"""What a check of an installation found: ``doctor`` shows it, and the engines tell it of their servers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``next`` is the command or step that mends it."""

    check: str
    status: Status
    detail: str
    next: str | None = None


def ok(check: str, detail: str) -> Finding:
    return Finding(check, Status.OK, detail)


def warn(check: str, detail: str, next: str | None = None) -> Finding:
    return Finding(check, Status.WARN, detail, next)


def fail(check: str, detail: str, next: str | None = None) -> Finding:
    return Finding(check, Status.FAIL, detail, next)
