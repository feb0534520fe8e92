"""Which physical table a space's table is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from orgstead.errors import SpaceMismatch
from orgstead.model import PlacementKind
from orgstead.storage.port import Space, Table

MAX_NAME = 60
"""Bytes of a space's name: with a table's name behind it, it is still a name on every engine."""

_NAME = re.compile(r"org_[a-z0-9_-]+")


@lru_cache(maxsize=4096)
def valid_name(name: str | None) -> bool:
    """True for a name that a dedicated space may have: ``org_`` and more of a-z, 0-9, ``_`` and ``-``."""
    return name is not None and len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def physical_name(space: Space, table: Table[Any]) -> str:
    """The name of ``table`` in ``space``. Raises ``SpaceMismatch`` where its name does not go with its kind."""
    if space.kind is PlacementKind.POOLED:
        if space.name is not None:
            raise SpaceMismatch
        return table.name
    if not valid_name(space.name):
        raise SpaceMismatch
    return f"{space.name}__{table.name}"
