"""The verbs about many rows: ``find_many``, ``page``, ``claim`` and ``aggregate``. One round trip each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from orgstead.storage.codec import Kind
from orgstead.storage.port import Table, total_order
from orgstead.storage.postgres.statements import Statements, Values, names, quoted
from orgstead.storage.unit import bounded_by, check_keys, check_limit, columns_named, weighed_by

if TYPE_CHECKING:
    from orgstead.storage.postgres.transaction import PostgresTransaction

Row = TypeVar("Row")
Order = Sequence[tuple[str, bool]]
"""(column, descending) pairs."""


async def page(
    tx: PostgresTransaction,
    table: Table[Row],
    where: Mapping[str, Any] | None,
    *,
    order: Sequence[str],
    after: Sequence[Any] | None,
    until: Any,
    limit: int,
    max_weight: int | None,
) -> list[Row]:
    """``Transaction.page``."""
    sql = tx.statements(table)
    rows = await rows_of_page(tx, sql, where, order=order, after=after, until=until, limit=limit, max_weight=max_weight)
    return [sql.codec.decode(row) for row in rows]


async def rows_of_page(
    tx: PostgresTransaction,
    sql: Statements[Any],
    where: Mapping[str, Any] | None,
    *,
    order: Sequence[str],
    after: Sequence[Any] | None,
    until: Any = None,
    limit: int,
    max_weight: int | None = None,
) -> list[Any]:
    """The plain values of a page's rows."""
    check_limit(limit)
    table = sql.table
    values = Values()
    condition = tx.conditions(sql, where, values)
    full = [(sql.codec.column(column.lstrip("-")).name, column.startswith("-")) for column in total_order(table, order)]
    pinned = {*(where or {}), *([table.scope] if tx.within_organization else [])}
    if until is not None:
        condition += f" AND {_before(sql, *bounded_by(table, order, pinned), until, values)}"
    free = [(column, down) for column, down in full if column not in pinned]
    sorted_ = sql.order_by(free)
    if after is None:
        text = f"{sql.select}{condition}{sorted_} LIMIT {values.bind(limit)}"
        return await tx.rows(_within(sql, text, sorted_, max_weight, values), values.all)
    if len(after) != len(full):
        raise ValueError(f"The order of {table.name} has {len(full)} columns, and after must have as many values.")
    marks = [
        (column, down, sql.codec.comparable(column, value))
        for (column, down), value in zip(full, after, strict=True)
        if column not in pinned
    ]
    ranges = list(_ranges(sql, marks, values))
    size = values.bind(limit)
    # The whole order in each of them: where a column IS NULL, an index has its rows in order only by that, too.
    parts = [f"{sql.select}{condition} AND {text}{sorted_} LIMIT {size}" for text in ranges]
    if not parts:
        return []
    text = parts[0]
    if len(parts) > 1:
        union = " UNION ALL ".join(f"({part})" for part in parts)
        text = f"SELECT {sql.columns} FROM ({union}) AS ranges{sorted_} LIMIT {size}"  # noqa: S608  # declared names
    return await tx.rows(_within(sql, text, sorted_, max_weight, values), values.all)


def _within(sql: Statements[Any], text: str, sorted_: str, max_weight: int | None, values: Values) -> str:
    """The statement, with what comes after the row by which its rows weigh ``max_weight`` left out.

    Large values are kept apart from their rows and read for those only that are sent.
    """
    weight = weighed_by(sql.table, max_weight)
    if weight is None:
        return text
    before = f"sum({quoted(weight)}) OVER ({sorted_} ROWS UNBOUNDED PRECEDING) - {quoted(weight)}"
    return (
        f"SELECT {sql.columns} FROM (SELECT *, {before} AS before FROM ({text}) AS rows) AS weighed"  # noqa: S608
        f" WHERE before < {values.bind(max_weight)}::bigint{sorted_}"
    )


def _before(sql: Statements[Any], column: str, down: bool, value: Any, values: Values) -> str:
    """The condition of the values that come before ``value``, of which None is the smallest."""
    text = f"{quoted(column)} {'>' if down else '<'} {values.bind(sql.codec.comparable(column, value))}"
    return f"({text} OR {quoted(column)} IS NULL)" if not down and column in sql.nullable else text


Marks = Sequence[tuple[str, bool, Any]]
"""(column, descending, value) of each column of the order that is left."""


def _ranges(sql: Statements[Any], marks: Marks, values: Values) -> Iterator[str]:
    """The conditions of the ranges that follow ``marks``.

    Where all directions are the same and nothing is None, one comparison of rows says it all, and an index serves it.
    Else there is a range for each column of the order: the rows that differ from the mark in the last column only, at
    the end those that differ in the first; an index serves each of them from its first row on.
    """
    if not marks:
        return
    if len({down for _, down, _ in marks}) == 1 and not any(column in sql.nullable for column, _, _ in marks):
        bound = ", ".join(values.bind(value) for _, _, value in marks)
        sign = "<" if marks[0][1] else ">"
        yield f"({names(column for column, _, _ in marks)}) {sign} ({bound})"
        return
    bounds = ["" if value is None else values.bind(value) for _, _, value in marks]
    for place in range(len(marks) - 1, -1, -1):
        same = [
            f"{quoted(column)} {f'= {bound}' if bound else 'IS NULL'}"
            for (column, _, _), bound in zip(marks[:place], bounds[:place], strict=True)
        ]
        column, down, _ = marks[place]
        for text in _beyond(sql, column, bounds[place], down=down):
            yield " AND ".join([*same, text])


def _beyond(sql: Statements[Any], column: str, bound: str, *, down: bool) -> Iterator[str]:
    """The conditions of the values that follow a value, of which None (an empty ``bound``) is the smallest."""
    if not bound:
        if not down:
            yield f"{quoted(column)} IS NOT NULL"
        return
    yield f"{quoted(column)} {'<' if down else '>'} {bound}"
    if down and column in sql.nullable:
        yield f"{quoted(column)} IS NULL"


async def find_many(
    tx: PostgresTransaction,
    table: Table[Row],
    keys: Sequence[tuple[Any, ...]],
    unique: str | None,
    max_weight: int | None,
) -> list[Row]:
    """``Transaction.find_many``: each row once, however often its key is named."""
    check_keys(keys)
    sql = tx.statements(table)
    columns = columns_named(table, unique)
    wanted = [sql.codec.plain(columns, key) for key in dict.fromkeys(keys) if None not in key]
    if not wanted:
        return []
    values = Values()
    source = sql.unnested(columns, wanted, values)
    parts = [f"key{n}" for n in range(1, len(columns) + 1)]
    matches = [f"{quoted(column)} = wanted.{part}" for column, part in zip(columns, parts, strict=True)]
    text = (
        f"SELECT {names(table.columns)} FROM {source} AS wanted ({', '.join(parts)})"  # noqa: S608  # declared names
        f" JOIN {sql.target} ON {' AND '.join(matches)} WHERE {tx.conditions(sql, None, values)}"
    )
    text = _within(sql, text, "", max_weight, values)
    return [sql.codec.decode(found) for found in await tx.rows(text, values.all)]


async def claim(
    tx: PostgresTransaction,
    table: Table[Row],
    where: Mapping[str, Any],
    *,
    due: datetime,
    until: datetime,
    owner: str,
    limit: int,
) -> list[Row]:
    """``Transaction.claim``: the rows whose lease ended first come first; those that others hold are passed over."""
    check_limit(limit)
    if table.lease is None:
        raise ValueError(f"Rows of {table.name} cannot be claimed: its declaration names no lease.")
    until_column, owner_column = table.lease
    sql = tx.statements(table)
    values = Values()
    condition = tx.conditions(sql, where, values)
    ended = f"{quoted(until_column)} <= {values.bind(sql.codec.comparable(until_column, due))}"
    order = sql.order_by([(until_column, False), *((column, False) for column in table.key)])
    lease = {
        until_column: values.bind(sql.codec.comparable(until_column, until)),
        owner_column: values.bind(sql.codec.comparable(owner_column, owner)),
    }
    assigned = [f"{quoted(column)} = {value}" for column, value in lease.items()]
    if table.versioned:
        assigned.append(f"{quoted('version')} = held.{quoted('version')} + 1")
    same = " AND ".join(f"held.{quoted(column)} = due.{quoted(column)}" for column in table.key)
    # MATERIALIZED: the rows are chosen and locked once, whatever the plan is.
    text = (
        f"WITH due AS MATERIALIZED (SELECT {names(table.key)}, {quoted(until_column)} AS ended FROM {sql.target}"  # noqa: S608
        f" WHERE {condition} AND {ended}{order} LIMIT {values.bind(limit)} FOR UPDATE SKIP LOCKED),"
        f" leased AS (UPDATE {sql.target} AS held SET {', '.join(assigned)} FROM due WHERE {same}"
        f" RETURNING {names(table.columns, 'held.')}, due.ended)"
        f" SELECT {names(table.columns)} FROM leased ORDER BY ended, {names(table.key)}"
    )
    return [sql.codec.decode(row) for row in await tx.rows(text, values.all)]


async def aggregate(
    tx: PostgresTransaction,
    table: Table[Any],
    where: Mapping[str, Any] | None,
    *,
    group_by: Sequence[str],
    sums: Sequence[str],
) -> list[dict[str, Any]]:
    """``Transaction.aggregate``: the groups in the order of their values; without groups always one row."""
    sql = tx.statements(table)
    values = Values()
    condition = tx.conditions(sql, where, values)
    groups = [sql.codec.column(column) for column in group_by]
    for column in sums:
        if sql.codec.column(column).kind is not Kind.INTEGER:
            raise ValueError(f"The column {column} of {table.name} has no sum: it is not an integer.")
    measures = ["count(*)", *(f"coalesce(sum({quoted(column)}), 0)::bigint" for column in sums)]
    text = f"SELECT {', '.join([*map(quoted, group_by), *measures])} FROM {sql.target} WHERE {condition}"  # noqa: S608
    if group_by:
        text += f" GROUP BY {names(group_by)}{sql.order_by([(column, False) for column in group_by])}"
    results = []
    nothing = [] if group_by else [(0,) * len(measures)]  # also where a space is not there
    for row in await tx.rows(text, values.all) or nothing:
        plain = tuple(row)
        result = {
            column.name: value if column.decode is None or value is None else column.decode(value)
            for column, value in zip(groups, plain, strict=False)
        }
        result.update(zip(("count", *sums), plain[len(groups) :], strict=True))
        results.append(result)
    return results
