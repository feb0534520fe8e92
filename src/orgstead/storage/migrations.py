"""The schema's history, in words that every engine can carry out.

A new database gets every migration; an old one those it has not seen. Engines record each applied version in a table
of their own called ``schema_migrations``. A migration that has been released is never edited: the next one follows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orgstead.errors import SchemaTooNew
from orgstead.storage import tables
from orgstead.storage.port import Table


@dataclass(frozen=True, slots=True)
class Column:
    """A column that was added to a table of the directory. A new database has it from the beginning, because tables
    are made as they are declared now; in an old one every row has its model's default, which is an integer."""

    table: Table[Any]
    name: str

    @property
    def default(self) -> int:
        default = self.table.model.__dataclass_fields__[self.name].default
        if type(default) is not int:
            raise TypeError(f"{self.table.name}.{self.name} has no default that old rows can be given.")
        return default


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. ``creates`` are the tables it adds, with their constraints and indexes."""

    version: int
    title: str
    creates: tuple[Table[Any], ...]
    adds: tuple[Column, ...] = ()


_LATER = (tables.api_keys,)

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "the first tables", tuple(table for table in tables.TABLES if table not in _LATER)),
    Migration(2, "API keys", (tables.api_keys,), adds=(Column(tables.organizations, "api_keys"),)),
)
SCHEMA_VERSION = MIGRATIONS[-1].version


def pending(version: int) -> tuple[Migration, ...]:
    """The migrations that a schema of this version has not seen, oldest first; 0 is a database without a schema.

    Raises ``SchemaTooNew`` for a version that is ahead of ours.
    """
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(next="install the version of orgstead that made this schema, or a newer one")
    return tuple(migration for migration in MIGRATIONS if migration.version > version)


def told(missing: Iterable[Migration]) -> list[tuple[int, str]]:
    """The migrations as ``port.Storage.pending`` says them."""
    return [(migration.version, migration.title) for migration in missing]


def added_to(table: Table[Any]) -> list[Column]:
    """The columns that were added to the table after it was made."""
    return [column for migration in MIGRATIONS for column in migration.adds if column.table.name == table.name]
