"""``postgresql://user:password@host/database``: where a database is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """``url`` carries neither credentials nor parameters."""

    url: str


def parse(url: str) -> Location:
    """The place that ``url`` names."""
    return Location(url)
