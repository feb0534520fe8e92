"""The verbs about many rows: ``find_many``, ``page``, ``claim`` and ``aggregate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from orgstead.storage.codec import Kind
from orgstead.storage.port import Table, total_order
from orgstead.storage.sqlite.statements import Statements, names, quoted
from orgstead.storage.unit import bounded_by, check_keys, check_limit, columns_named, weighed_by

if TYPE_CHECKING:
    from orgstead.storage.sqlite.transaction import SqliteTransaction

Row = TypeVar("Row")
Order = Sequence[tuple[str, bool]]
"""(column, descending) pairs."""

_Range = tuple[list[str], list[Any], Order]
"""Conditions, their values, and the order that is left."""

_EVERY_ROW = "1"


def page(
    tx: SqliteTransaction,
    table: Table[Row],
    where: Mapping[str, Any] | None,
    *,
    order: Sequence[str],
    after: Sequence[Any] | None,
    until: Any,
    limit: int,
    max_weight: int | None,
) -> list[Row]:
    """``Transaction.page``.

    What follows ``after`` is read as a few ranges, one for each column of the order: first the rows that differ in the
    last column only, at the end those that differ in the first. An index serves each of them from its first row on,
    also where columns hold None or directions are mixed, which one comparison of tuples would not.
    """
    check_limit(limit)
    weight = weighed_by(table, max_weight)
    sql = tx.statements(table)
    conditions, values = tx.conditions(sql, where)
    full = [(sql.codec.column(column.lstrip("-")).name, column.startswith("-")) for column in total_order(table, order)]
    pinned = {*(where or {}), *([table.scope] if tx.within_organization else [])}
    free = [(column, down) for column, down in full if column not in pinned]
    if until is not None:
        column, down = bounded_by(table, order, pinned)
        text, value = _before(sql, column, until, down=down)
        conditions.append(text)
        values.append(value)
    if after is None:
        ranges: Iterator[_Range] = iter([(conditions, values, free)])
    else:
        if len(after) != len(full):
            raise ValueError(f"The order of {table.name} has {len(full)} columns, and after must have as many values.")
        plain = [
            sql.codec.comparable(column, value)
            for (column, _), value in zip(full, after, strict=True)
            if column not in pinned
        ]
        ranges = _ranges(sql, conditions, values, free, plain)
    found: list[Any] = []
    for texts, parameters, rest in ranges:
        wanted = limit - len(found)
        if wanted <= 0:
            break
        text = f"{sql.select}{' AND '.join(texts) or _EVERY_ROW}{sql.order_by(rest)} LIMIT ?"
        if weight is None or max_weight is None:
            found.extend(tx.rows(text, [*parameters, wanted]))
            continue
        place = table.columns.index(weight)
        found.extend(tx.rows_within(text, [*parameters, wanted], place, max_weight - sum(row[place] for row in found)))
    return [sql.codec.decode(row) for row in found]


def _before(sql: Statements[Any], column: str, value: Any, *, down: bool) -> tuple[str, Any]:
    """The condition of the values that come before ``value``, and what it is compared with. None is the smallest."""
    text = f"{quoted(column)} {'>' if down else '<'} ?"
    if not down and sql.codec.by_name[column].nullable:
        text = f"({text} OR {sql.null[column]})"
    return text, sql.codec.comparable(column, value)


def _ranges(
    sql: Statements[Any], conditions: list[str], values: list[Any], order: Order, after: list[Any]
) -> Iterator[_Range]:
    """Conditions, their values and the remaining order of each range behind ``after``, in the order of the page."""
    for place in range(len(order) - 1, -1, -1):
        texts, parameters = list(conditions), list(values)
        for (column, _), value in zip(order[:place], after[:place], strict=True):
            texts.append(sql.null[column] if value is None else sql.equal[column])
            parameters.extend([] if value is None else [value])
        column, down = order[place]
        for text, bound in _beyond(sql, column, after[place], down=down):
            yield [*texts, text], [*parameters, *bound], order[place:]


def _beyond(sql: Statements[Any], column: str, value: Any, *, down: bool) -> Iterator[tuple[str, list[Any]]]:
    """The conditions of the values that follow ``value``, of which None is the smallest."""
    if value is None:
        if not down:
            yield f"{quoted(column)} IS NOT NULL", []
        return
    yield f"{quoted(column)} {'<' if down else '>'} ?", [value]
    if down and sql.codec.by_name[column].nullable:
        yield sql.null[column], []


def find_many(
    tx: SqliteTransaction,
    table: Table[Row],
    keys: Sequence[tuple[Any, ...]],
    unique: str | None,
    max_weight: int | None,
) -> list[Row]:
    """``Transaction.find_many``: each row once, however often its key is named."""
    check_keys(keys)
    weight = weighed_by(table, max_weight)
    sql = tx.statements(table)
    columns = columns_named(table, unique)
    wanted = [key for key in dict.fromkeys(keys) if None not in key]
    if not wanted:
        return []
    if len(wanted) == 1:
        if unique is None:
            found = tx.found(sql, wanted[0])
            return [] if found is None else [found]
        same, values = tx.conditions(sql, dict(zip(columns, wanted[0], strict=True)))
        return [sql.codec.decode(row) for row in tx.rows(sql.select + " AND ".join(same), values)]
    conditions, bound = tx.conditions(sql, None)
    values = [value for key in wanted for value in sql.codec.plain(columns, key)]
    # CROSS JOIN fixes the order: one search for each key. Left to choose, SQLite may scan the table instead.
    parts = [f"wanted.{quoted(f'column{n}')}" for n in range(1, len(columns) + 1)]
    matches = [f"{sql.target}.{quoted(column)} = {part}" for column, part in zip(columns, parts, strict=True)]
    row = f"({', '.join('?' * len(columns))})"
    source = f"(VALUES {', '.join([row] * len(wanted))}) AS wanted"
    text = f"SELECT {names(table.columns)} FROM {source} CROSS JOIN {sql.target}"  # noqa: S608  # declared names
    text += f" WHERE {' AND '.join([*matches, *conditions])}"
    parameters = [*values, *bound]
    if weight is None or max_weight is None:
        rows = tx.rows(text, parameters)
    else:
        rows = tx.rows_within(text, parameters, table.columns.index(weight), max_weight)
    return [sql.codec.decode(row) for row in rows]


def claim(
    tx: SqliteTransaction,
    table: Table[Row],
    where: Mapping[str, Any],
    *,
    due: datetime,
    until: datetime,
    owner: str,
    limit: int,
) -> list[Row]:
    """``Transaction.claim``: the rows whose lease ended first come first. Nobody else writes meanwhile."""
    check_limit(limit)
    if table.lease is None:
        raise ValueError(f"Rows of {table.name} cannot be claimed: its declaration names no lease.")
    until_column, owner_column = table.lease
    sql = tx.statements(table)
    conditions, values = tx.conditions(sql, where)
    conditions.append(f"{quoted(until_column)} <= ?")
    values.append(sql.codec.comparable(until_column, due))
    order = sql.order_by([(until_column, False), *((column, False) for column in table.key)])
    found = tx.rows(f"{sql.select}{' AND '.join(conditions)}{order} LIMIT ?", [*values, limit])
    lease = {
        until_column: sql.codec.comparable(until_column, until),
        owner_column: sql.codec.comparable(owner_column, owner),
    }
    claimed: list[Row] = []
    for row in found:
        plain = {**dict(zip(table.columns, row, strict=True)), **lease}
        if table.versioned:
            plain["version"] += 1
        text = f"{sql.update}{sql.assign} WHERE {sql.by_key(False)}"
        tx.count(text, [*(plain[c] for c in sql.changed), *(plain[c] for c in table.key)])
        claimed.append(sql.codec.decode(tuple(plain.values())))
    return claimed


def aggregate(
    tx: SqliteTransaction,
    table: Table[Any],
    where: Mapping[str, Any] | None,
    *,
    group_by: Sequence[str],
    sums: Sequence[str],
) -> list[dict[str, Any]]:
    """``Transaction.aggregate``: the groups in the order of their values; without groups always one row."""
    sql = tx.statements(table)
    conditions, values = tx.conditions(sql, where)
    groups = [sql.codec.column(column) for column in group_by]
    for column in sums:
        if sql.codec.column(column).kind is not Kind.INTEGER:
            raise ValueError(f"The column {column} of {table.name} has no sum: it is not an integer.")
    measures = ["count(*)", *(f"coalesce(sum({quoted(column)}), 0)" for column in sums)]
    text = f"SELECT {', '.join([*map(quoted, group_by), *measures])} FROM {sql.target}"  # noqa: S608  # declared names
    text += f" WHERE {' AND '.join(conditions) or _EVERY_ROW}"
    if group_by:
        text += f" GROUP BY {names(group_by)} ORDER BY {names(group_by)}"
    results = []
    nothing = [] if group_by else [(0,) * len(measures)]  # also where a space is not there
    for row in tx.rows(text, values) or nothing:
        result = {
            column.name: value if column.decode is None or value is None else column.decode(value)
            for column, value in zip(groups, row, strict=False)
        }
        result.update(zip(("count", *sums), row[len(groups) :], strict=True))
        results.append(result)
    return results
