"""The physical names that dedicated spaces may have, the same on every engine."""

from __future__ import annotations

import re
from functools import lru_cache

from orgstead.errors import InvalidValue, SpaceMismatch
from orgstead.model import PlacementKind
from orgstead.storage.port import Space

MAX_NAME = 60
"""Bytes of a space's name: with a table's name behind it, it is still a name on every engine."""

_NAME = re.compile(r"org_[a-z0-9_-]+")


@lru_cache(maxsize=4096)
def is_valid(name: str | None) -> bool:
    """True for a name that a dedicated space may have: ``org_`` and more of a-z, 0-9, ``_`` and ``-``."""
    return name is not None and len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def require_valid(name: str) -> None:
    """Raise ``InvalidValue`` for a name that no dedicated space may have."""
    if not is_valid(name):
        raise InvalidValue(f"A space's name is org_ and a-z, 0-9, hyphen, underscore; at most {MAX_NAME} in all.")


def name_of(space: Space) -> str | None:
    """The physical name of a dedicated space, None for a pooled one.

    Raises ``SpaceMismatch`` where its name does not go with its kind.
    """
    if space.kind is PlacementKind.POOLED:
        if space.name is not None:
            raise SpaceMismatch
        return None
    if not is_valid(space.name):
        raise SpaceMismatch
    return space.name
