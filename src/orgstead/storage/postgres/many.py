"""The verbs that write many rows: a statement for each thousand, whose values travel as one array for each column.

Rows that are added to several tables travel in one statement, too, which begins with common table expressions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from orgstead.errors import NotFound, StaleRow
from orgstead.storage.port import Table
from orgstead.storage.postgres.statements import Statements, Values, names, quoted

if TYPE_CHECKING:
    from orgstead.storage.postgres.transaction import PostgresTransaction

Row = TypeVar("Row")

ROWS = 1000
"""Rows of one statement: enough that round trips do not count, few enough that a message stays small."""


async def add_all(tx: PostgresTransaction, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
    """``Transaction.add_all``: a thousand rows of each table with every statement."""
    given: list[tuple[Statements[Any], list[list[Any]]]] = []
    for table, some in rows:
        sql = tx.statements(table)
        for row in some:
            tx.admit_row(table, row)
        given.append((sql, [sql.codec.encode(row) for row in some]))
    for start in range(0, max((len(some) for _, some in given), default=0), ROWS):
        parts = [(sql, some[start : start + ROWS]) for sql, some in given if len(some) > start]
        text = _insert(tuple((sql, len(part) > 1) for sql, part in parts))
        values = [value for _, part in parts for value in (part[0] if len(part) == 1 else _arrays(part))]
        await tx.insert(text, values, *(sql.table for sql, _ in parts))


async def replace_many(tx: PostgresTransaction, table: Table[Row], rows: Sequence[Row]) -> list[Row]:
    """``Transaction.replace_many``."""
    sql = tx.statements(table)
    stored: list[Row] = []
    for part in _parts([sql.codec.encode(row) for row in rows]):
        if await tx.count(*_update(tx, sql, part), sql.table) != len(part):
            raise await _reason(tx, sql, part)
        for values in part:
            if sql.version_place is not None:
                values[sql.version_place] += 1
            stored.append(sql.codec.decode(values))
    return stored


async def remove_many(tx: PostgresTransaction, table: Table[Row], keys: Sequence[tuple[Any, ...]]) -> None:
    """``Transaction.remove_many``."""
    sql = tx.statements(table)
    for part in _parts([sql.codec.key(key) for key in keys]):
        values = Values()
        wanted = sql.unnested(table.key, part, values)
        same = " AND ".join(f"stored.{quoted(column)} = wanted.{quoted(column)}" for column in table.key)
        if tx.org_id is not None:
            same += f" AND stored.{quoted(table.scope or '')} = {values.bind(tx.org_id)}"
        text = (
            f"DELETE FROM {sql.target} AS stored"  # noqa: S608  # declared names
            f" USING {wanted} AS wanted ({names(table.key)}) WHERE {same}"
        )
        if await tx.count(text, values.all, sql.table) != len(part):
            raise NotFound


@lru_cache(maxsize=4096)
def _insert(parts: tuple[tuple[Statements[Any], bool], ...]) -> str:
    """One statement that adds a row, or several where that is true, to each of these tables."""
    texts: list[str] = []
    behind = 0
    for sql, several in parts:
        texts.append(sql.inserting(several=several, behind=behind))
        behind += len(sql.table.columns)
    # PostgreSQL promises no order, but runs the last of them first and then the others backwards. Written so, they run
    # as given, and units that add to the same tables one by one do not wait for each other crosswise.
    first, *others = texts
    also = [f"part{number} AS ({text})" for number, text in enumerate(reversed(others), 1)]
    return f"WITH {', '.join(also)} {first}" if also else first


def _arrays(rows: Sequence[list[Any]]) -> Iterator[list[Any]]:
    """The values of each column."""
    return (list(array) for array in zip(*rows, strict=True))


def _update(tx: PostgresTransaction, sql: Statements[Any], part: Sequence[list[Any]]) -> tuple[str, list[Any]]:
    values = Values()
    source = sql.unnested(sql.table.columns, part, values)
    assigned = [
        f"{quoted(column)} = given.{quoted(column)}{' + 1' if column == 'version' else ''}" for column in sql.changed
    ]
    matched = [*sql.table.key, *(["version"] if sql.version_place is not None else [])]
    conditions = [f"stored.{quoted(column)} = given.{quoted(column)}" for column in matched]
    if tx.org_id is not None:
        conditions.append(f"stored.{quoted(sql.table.scope or '')} = {values.bind(tx.org_id)}")
    text = (
        f"UPDATE {sql.target} AS stored SET {', '.join(assigned)}"  # noqa: S608  # declared names
        f" FROM {source} AS given ({sql.columns}) WHERE {' AND '.join(conditions)}"
    )
    return text, values.all


async def _reason(tx: PostgresTransaction, sql: Statements[Any], part: Sequence[list[Any]]) -> Exception:
    """What ``replace`` would have raised first: some rows are not there, or not of the version they should be."""
    values = Values()
    wanted = sql.unnested(sql.table.key, [[row[place] for place in sql.key_places] for row in part], values)
    same = " AND ".join(f"stored.{quoted(column)} = wanted.{quoted(column)}" for column in sql.table.key)
    if tx.org_id is not None:
        same += f" AND stored.{quoted(sql.table.scope or '')} = {values.bind(tx.org_id)}"
    version = "stored.version" if sql.version_place is not None else "0"
    text = (
        f"SELECT {names(sql.table.key, 'stored.')}, {version} FROM {sql.target} AS stored"  # noqa: S608  # declared
        f" JOIN {wanted} AS wanted ({names(sql.table.key)}) ON {same}"
    )
    # The rows that were matched carry the next version by now, unlike the one that was not.
    found = {tuple(row)[:-1]: tuple(row)[-1] for row in await tx.rows(text, values.all)}
    for row in part:
        key = tuple(row[place] for place in sql.key_places)
        if key not in found:
            return NotFound()
        if sql.version_place is not None and found[key] != row[sql.version_place] + 1:
            return StaleRow()
    return StaleRow()


def _parts(rows: Sequence[list[Any]]) -> Iterator[Sequence[list[Any]]]:
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]
