"""What fsck finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. ``id`` is the invariant, ``subject`` an id or name, never content."""

    id: str
    subject: str
    detail: str
    repaired: bool = False
