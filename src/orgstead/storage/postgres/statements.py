"""DDL and SQL, derived from the table declarations. Everything that becomes SQL text is a declared name or quoted.

A table's text is made once for each schema and reused, because the driver finds a prepared statement by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from orgstead.storage import space_names
from orgstead.storage.codec import Column, Kind, TableCodec, codec_of
from orgstead.storage.port import Space, Table

Row = TypeVar("Row")

SCHEMA = "orgstead"
"""Where everything is that does not belong to a dedicated space."""

TYPES: Mapping[Kind, str] = {
    Kind.TEXT: "text",
    Kind.INTEGER: "bigint",
    Kind.REAL: "double precision",
    Kind.BOOLEAN: "smallint",
    Kind.TIME: "bigint",
    Kind.JSON: "text",  # jsonb would turn 1e17 into an integer: docs/decisions/0012
}


def quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def names(columns: Iterable[str], of: str = "") -> str:
    """The columns, separated by commas; with the name of the table that they are ``of``."""
    return ", ".join(f"{of}{quoted(column)}" for column in columns)


def within(schema: str, name: str) -> str:
    """The name of a table or function with its schema."""
    return f"{quoted(schema)}.{quoted(name)}"


def schema_of(space: Space | None) -> str:
    """The schema that holds the tables of ``space``. Raises ``SpaceMismatch`` where its name does not fit its kind."""
    return SCHEMA if space is None else space_names.name_of(space) or SCHEMA


def collated(column: Column) -> str:
    """The type of a column; text is compared by code point."""
    return f'{TYPES[column.kind]} COLLATE "C"' if TYPES[column.kind] == "text" else TYPES[column.kind]


def create_table(table: Table[Any], schema: str) -> Iterator[str]:
    """The statements that make ``table`` in ``schema``. Its constraints have our names for them."""
    target = within(schema, table.name)
    columns = codec_of(table).columns
    lines = [f"{quoted(column.name)} {collated(column)}{'' if column.nullable else ' NOT NULL'}" for column in columns]
    lines.append(f"CONSTRAINT {quoted(table.key_constraint)} PRIMARY KEY ({names(table.key)})")
    for name, unique in (table.unique or {}).items():
        lines.append(f"CONSTRAINT {quoted(name)} UNIQUE ({names(unique)})")
    yield f"CREATE TABLE {target} ({', '.join(lines)})"
    nullable = {column.name for column in columns if column.nullable}
    for number, indexed in enumerate(table.indexes, 1):
        # None is the smallest value, also in an index that is to give it in order.
        parts = ", ".join(quoted(column) + (" NULLS FIRST" if column in nullable else "") for column in indexed)
        yield f"CREATE INDEX {quoted(f'{table.name}.index{number}')} ON {target} ({parts})"


def add_column(table: Table[Any], name: str, default: int, schema: str) -> str:
    """The statement that adds a column to ``table``, with the same value in every row; it may be repeated."""
    target, kind = within(schema, table.name), collated(codec_of(table).by_name[name])
    return f"ALTER TABLE {target} ADD COLUMN IF NOT EXISTS {quoted(name)} {kind} NOT NULL DEFAULT {default}"


class Values:
    """The values of one statement: ``bind`` gives the text that stands for a value."""

    __slots__ = ("all",)

    def __init__(self, *values: Any) -> None:
        self.all: list[Any] = list(values)

    def bind(self, value: Any) -> str:
        self.all.append(value)
        return f"${len(self.all)}"


class Statements(Generic[Row]):
    """The SQL of one table in one schema, and the pieces that conditions are put together from."""

    def __init__(self, table: Table[Row], schema: str) -> None:
        self.table = table
        self.codec: TableCodec[Row] = codec_of(table)
        self.target = target = within(schema, table.name)
        self.columns = columns = names(table.columns)
        places = {column: place for place, column in enumerate(table.columns)}
        self.changed = tuple(column for column in table.columns if column not in table.key)
        self.key_places = tuple(places[column] for column in table.key)
        self.changed_places = tuple(places[column] for column in self.changed)
        self.version_place = places.get("version")
        self.types = {column.name: TYPES[column.kind] for column in self.codec.columns}
        self.nullable = frozenset(column.name for column in self.codec.columns if column.nullable)
        self.insert = self.inserting()
        self.select = f"SELECT {columns} FROM {target} WHERE "  # noqa: S608  # declared names
        self.update = f"UPDATE {target} SET "  # noqa: S608  # declared names
        self.delete = f"DELETE FROM {target} WHERE "  # noqa: S608  # declared names
        self.returning = f" RETURNING {columns}"
        self._get = self._scoped(lambda key: f"{self.select}{key}")
        self._lock = self._scoped(lambda key: f"{self.select}{key} FOR UPDATE")
        self._remove = self._scoped(lambda key: f"{self.delete}{key}")
        self._exists = self._scoped(lambda key: f"SELECT 1 FROM {target} WHERE {key}")  # noqa: S608  # declared names
        self._replace = (self._replacing(scoped=False), self._replacing(scoped=True))

    def inserting(self, *, several: bool = False, behind: int = 0) -> str:
        """An INSERT, one value for each column or, of several rows, one array; they follow ``behind`` other values."""
        columns = list(enumerate(self.table.columns, behind + 1))
        marks = ", ".join(f"${place}::{self.types[column]}[]" if several else f"${place}" for place, column in columns)
        rows = f"SELECT * FROM unnest({marks})" if several else f"VALUES ({marks})"  # noqa: S608  # declared names
        return f"INSERT INTO {self.target} ({self.columns}) {rows}"

    def _scoped(self, text: Any) -> tuple[str, str]:
        """A statement about one row, without and with the scope's predicate, whose value comes last."""
        return text(self._by_key(0, scoped=False)), text(self._by_key(0, scoped=self.table.scope is not None))

    def _by_key(self, behind: int, *, scoped: bool) -> str:
        columns = [*self.table.key, *([self.table.scope] if scoped and self.table.scope else [])]
        return " AND ".join(f"{quoted(column)} = ${behind + n}" for n, column in enumerate(columns, 1))

    def _replacing(self, *, scoped: bool) -> str:
        """Values: the changed columns, the version that must be stored (where there is one), the key, the scope."""
        assigned = ", ".join(f"{quoted(column)} = ${n}" for n, column in enumerate(self.changed, 1))
        behind = len(self.changed)
        text = f"{self.update}{assigned} WHERE "
        if self.version_place is not None:
            behind += 1
            text += f"{quoted('version')} = ${behind} AND "
        return text + self._by_key(behind, scoped=scoped and self.table.scope is not None)

    def get(self, scoped: bool) -> str:
        return self._get[scoped]

    def lock(self, scoped: bool) -> str:
        return self._lock[scoped]

    def remove(self, scoped: bool) -> str:
        return self._remove[scoped]

    def exists(self, scoped: bool) -> str:
        return self._exists[scoped]

    def replace(self, scoped: bool) -> str:
        return self._replace[scoped]

    def unnested(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], values: Values) -> str:
        """Rows of values as a table to select from: ``unnest($1::text[], …)``. ``columns`` say of which types."""
        arrays = zip(*rows, strict=True) if rows else [()] * len(columns)
        parts = [
            f"{values.bind(list(array))}::{self.types[column]}[]" for column, array in zip(columns, arrays, strict=True)
        ]
        return f"unnest({', '.join(parts)})"

    def order_by(self, order: Sequence[tuple[str, bool]]) -> str:
        """``ORDER BY`` these (column, descending) pairs, None first; empty where there is nothing left to order."""
        if not order:
            return ""
        return " ORDER BY " + ", ".join(self._ordered(column, down) for column, down in order)

    def _ordered(self, column: str, down: bool) -> str:
        nulls = (" NULLS LAST" if down else " NULLS FIRST") if column in self.nullable else ""
        return quoted(column) + (" DESC" if down else "") + nulls


@lru_cache(maxsize=4096)
def statements_of(table: Table[Row], schema: str) -> Statements[Row]:
    """The statements of ``table`` in ``schema``."""
    return Statements(table, schema)
