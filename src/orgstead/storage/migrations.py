"""The schema's history, in words that every engine can carry out.

A new database gets every migration; an old one those it has not seen. Engines record each applied version in a table
of their own called ``schema_migrations``. A migration that has been released is never edited: the next one follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orgstead.storage.port import Table
from orgstead.storage.tables import TABLES


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. ``creates`` are the tables it adds, with their constraints and indexes."""

    version: int
    title: str
    creates: tuple[Table[Any], ...]


MIGRATIONS: tuple[Migration, ...] = (Migration(1, "the first tables", TABLES),)
SCHEMA_VERSION = MIGRATIONS[-1].version
