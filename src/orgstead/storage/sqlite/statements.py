"""DDL and SQL, derived from the table declarations. Everything that becomes SQL text is a declared name or quoted.

A table's text is made once for each physical name and reused, because ``sqlite3`` finds a prepared statement by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from orgstead.storage import space_names
from orgstead.storage.codec import Kind, TableCodec, codec_of
from orgstead.storage.port import Space, Table

Row = TypeVar("Row")

_TYPES = {
    Kind.TEXT: "TEXT",
    Kind.INTEGER: "INTEGER",
    Kind.REAL: "REAL",
    Kind.BOOLEAN: "INTEGER",
    Kind.TIME: "INTEGER",
    Kind.JSON: "TEXT",
}


@lru_cache(maxsize=4096)
def quoted(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def names(columns: Iterable[str]) -> str:
    return ", ".join(map(quoted, columns))


def physical_name(space: Space, table: Table[Any]) -> str:
    """The name of ``table`` in ``space``. Raises ``SpaceMismatch`` where its name does not go with its kind."""
    name = space_names.name_of(space)
    return table.name if name is None else f"{name}__{table.name}"


def create_table(table: Table[Any], physical: str, mark: str) -> Iterator[str]:
    """The statements that make ``table`` under the name ``physical``; they do nothing where it exists.

    ``mark`` begins the names of its indexes. It must not follow from the physical name: a rename keeps index names, and
    the freed name may be given to another table.
    """
    lines = [
        f"{quoted(column.name)} {_TYPES[column.kind]}{'' if column.nullable else ' NOT NULL'}"
        for column in codec_of(table).columns
    ]
    lines.append(f"PRIMARY KEY ({names(table.key)})")
    lines.extend(f"UNIQUE ({names(columns)})" for columns in (table.unique or {}).values())
    # Small rows live in the key's own tree; large ones would make it deep.
    options = "STRICT" if table.large else "STRICT, WITHOUT ROWID"
    yield f"CREATE TABLE IF NOT EXISTS {quoted(physical)} ({', '.join(lines)}) {options}"
    for columns in table.indexes:
        index = quoted(f"{mark}__{table.name}__{'__'.join(columns)}")
        yield f"CREATE INDEX IF NOT EXISTS {index} ON {quoted(physical)} ({names(columns)})"


def add_column(table: Table[Any], name: str, default: int) -> str:
    """The statement that adds a column to ``table``, with the same value in every row."""
    kind = _TYPES[codec_of(table).by_name[name].kind]
    return f"ALTER TABLE {quoted(table.name)} ADD COLUMN {quoted(name)} {kind} NOT NULL DEFAULT {default}"


class Statements(Generic[Row]):
    """The SQL of one table under one physical name, and the pieces that conditions are put together from."""

    def __init__(self, table: Table[Row], physical: str) -> None:
        self.table = table
        self.codec: TableCodec[Row] = codec_of(table)
        target = quoted(physical)
        columns = names(table.columns)
        self.equal = {column: f"{quoted(column)} = ?" for column in table.columns}
        self.null = {column: f"{quoted(column)} IS NULL" for column in table.columns}
        key = " AND ".join(self.equal[column] for column in table.key)
        self._by_key = (key, key if table.scope is None else f"{key} AND {self.equal[table.scope]}")
        self.insert = f"INSERT INTO {target} ({columns}) VALUES ({', '.join('?' * len(table.columns))})"  # noqa: S608  # declared names
        self.select = f"SELECT {columns} FROM {target} WHERE "  # noqa: S608  # declared names
        self.exists = f"SELECT 1 FROM {target} WHERE "  # noqa: S608  # declared names
        self.update = f"UPDATE {target} SET "  # noqa: S608  # declared names
        self.delete = f"DELETE FROM {target} WHERE "  # noqa: S608  # declared names
        self.returning = f" RETURNING {columns}"
        self.changed = tuple(column for column in table.columns if column not in table.key)
        self.assign = ", ".join(self.equal[column] for column in self.changed)
        places = {column: place for place, column in enumerate(table.columns)}
        self.key_places = tuple(places[column] for column in table.key)
        self.changed_places = tuple(places[column] for column in self.changed)
        self.version_place = places.get("version")
        self.target = target
        self._adjusting: dict[tuple[Any, ...], str] = {}

    def by_key(self, scoped: bool) -> str:
        """The condition of one row; ``scoped`` adds the scope's predicate, whose value comes last."""
        return self._by_key[scoped]

    def adjusting(
        self, deltas: tuple[str, ...], where: tuple[str, ...], bounds: tuple[tuple[str, bool], ...], *, scoped: bool
    ) -> str:
        """The statement that adds to ``deltas`` of one row, made once for each combination that the program has.

        ``where`` are further conditions. Each of ``bounds`` is a column and whether it is bounded as it will be. Its
        values are: the deltas, the key, the conditions' values, and for each bound the delta, if any, and the bound.
        Raises ``ValueError`` for a column that is not of integers.
        """
        at = (deltas, where, bounds, scoped)
        text = self._adjusting.get(at)
        if text is None:
            for column in (*deltas, *(column for column, _ in bounds)):
                self.codec.check_is_integer(column)
            sums = {column: f"{quoted(column)} + ?" for column in deltas}
            assign = [f"{quoted(column)} = {added}" for column, added in sums.items()]
            if self.table.versioned:
                assign.append(f"{quoted('version')} = {quoted('version')} + 1")
            limits = [f"{sums[column] if grows else quoted(column)} <= ?" for column, grows in bounds]
            conditions = " AND ".join([self.by_key(scoped), *where, *limits])
            text = self._adjusting[at] = f"{self.update}{', '.join(assign)} WHERE {conditions}"
        return text

    def order_by(self, order: Sequence[tuple[str, bool]]) -> str:
        """``ORDER BY`` these (column, descending) pairs; empty where there is nothing left to order."""
        if not order:
            return ""
        return " ORDER BY " + ", ".join(quoted(column) + (" DESC" if down else "") for column, down in order)


@lru_cache(maxsize=1024)
def statements_of(table: Table[Row], physical: str) -> Statements[Row]:
    """The statements of ``table`` under the name ``physical``."""
    return Statements(table, physical)
