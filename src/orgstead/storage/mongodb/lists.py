"""The verbs about many rows: ``find_many``, ``page``, ``claim`` and ``aggregate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from bson import Int64

from orgstead.errors import InvalidValue
from orgstead.storage.codec import Kind
from orgstead.storage.mongodb.documents import Document, Layout, all_of
from orgstead.storage.mongodb.units import Again
from orgstead.storage.port import Table, total_order
from orgstead.storage.unit import bounded_by, check_keys, check_limit, columns_named

if TYPE_CHECKING:
    from orgstead.storage.mongodb.transaction import MongoTransaction

Row = TypeVar("Row")
Order = Sequence[tuple[str, bool]]
"""(column, descending) pairs."""


async def page(
    tx: MongoTransaction,
    table: Table[Row],
    where: Mapping[str, Any] | None,
    *,
    order: Sequence[str],
    after: Sequence[Any] | None,
    until: Any,
    limit: int,
) -> list[Row]:
    """``Transaction.page``: one command, whose first batch is the whole page."""
    check_limit(limit)
    layout, collection = tx.place(table)
    values = tx.matching(layout, where)
    names = total_order(table, order)
    full = [(layout.codec.column(name.lstrip("-")).name, name.startswith("-")) for name in names]
    if after is not None and len(after) != len(full):
        raise ValueError(f"The order of {table.name} has {len(full)} columns, and after must have as many values.")
    marks = None if after is None else [layout.comparable(c, v) for (c, _), v in zip(full, after, strict=True)]
    pinned = {*(where or {}), *([table.scope] if tx.org_id is not None else [])}
    bound = None if until is None else bounded_by(table, order, pinned)
    if values is None or limit == 0:
        return []
    free = [(column, down) for column, down in full if column not in values]
    beyond = None if marks is None else [m for (c, _), m in zip(full, marks, strict=True) if c not in values]
    if _is_key_order(layout, values, free):
        end = None if until is None else layout.comparable(free[0][0], until)
        wanted, sort = _by_id(layout, values, free, beyond, end)
    else:
        wanted = layout.equal(values)
        if beyond is not None:
            wanted += _beyond(layout, free, beyond)
        sort = [(layout.paths[column], -1 if down else 1) for column, down in free]
    if bound is not None:
        wanted.append(_before(layout, *bound, until))
    found = collection.find(all_of(wanted), sort=sort or None, limit=limit, batch_size=limit, session=tx.session)
    return [layout.row(document) for document in await found.to_list()]


def _is_key_order(layout: Layout[Any], values: Mapping[str, Any], free: Order) -> bool:
    """True when the order is that of ``_id``, which is then read in the order of its own index."""
    key = layout.table.key
    pinned = len(key) - len(free)
    return (
        bool(free)
        and tuple(column for column, _ in free) == key[pinned:]
        and all(column in values for column in key[:pinned])
        and len({down for _, down in free}) == 1
    )


def _by_id(
    layout: Layout[Any], values: Mapping[str, Any], free: Order, beyond: Sequence[Any] | None, end: Any
) -> tuple[list[Document], list[tuple[str, int]]]:
    """The conditions of a page in the order of ``_id``, and that order.

    ``end`` bounds it no more than it may: where there are further columns, rows with that very value are still in it.
    """
    down = free[0][1]
    leading = layout.prefix(values)
    bounds: Document = layout.range(leading) if leading else {}
    if beyond is not None:
        mark = {**leading, **{column: m for (column, _), m in zip(free, beyond, strict=True)}}
        edge = mark if layout.embedded else beyond[0]
        if down:
            bounds["$lt"] = edge
        else:
            bounds.pop("$gte", None)
            bounds["$gt"] = edge
    if end is not None:
        bounds["$gte" if down else "$lt"] = {**leading, free[0][0]: end} if layout.embedded else end
    others = [{layout.paths[column]: value} for column, value in values.items() if column not in layout.table.key]
    return [*([{"_id": bounds}] if bounds else []), *others], [("_id", -1 if down else 1)]


def _before(layout: Layout[Any], column: str, down: bool, value: Any) -> Document:
    """The condition of the values that come before ``value``, of which None is the smallest."""
    path, edge = layout.paths[column], layout.comparable(column, value)
    if down:
        return {path: {"$gt": edge}}
    nullable = layout.codec.by_name[column].nullable
    return {"$or": [{path: {"$lt": edge}}, {path: None}]} if nullable else {path: {"$lt": edge}}


def _beyond(layout: Layout[Any], order: Order, marks: Sequence[Any]) -> list[Document]:
    """The conditions of what follows ``marks`` in ``order``: a bound for an index, and the exact alternatives."""
    alternatives: list[Document] = []
    for place in range(len(order) - 1, -1, -1):
        same = [{layout.paths[c]: mark} for (c, _), mark in zip(order[:place], marks[:place], strict=True)]
        column, down = order[place]
        alternatives += [all_of([*same, step]) for step in _steps(layout, column, marks[place], down=down)]
    if not alternatives:
        return [{"_id": {"$in": []}}]
    bound: list[Document] = []
    if order and marks[0] is not None:
        (column, down), path = order[0], layout.paths[order[0][0]]
        if not down:
            bound = [{path: {"$gte": marks[0]}}]
        elif not layout.codec.by_name[column].nullable:
            bound = [{path: {"$lte": marks[0]}}]
    return [*bound, {"$or": alternatives}]


def _steps(layout: Layout[Any], column: str, mark: Any, *, down: bool) -> Iterator[Document]:
    """The conditions of the values that follow ``mark``, of which None is the smallest."""
    path = layout.paths[column]
    if mark is None:
        if not down:
            yield {path: {"$ne": None}}
        return
    yield {path: {"$lt" if down else "$gt": mark}}
    if down and layout.codec.by_name[column].nullable:
        yield {path: None}


async def find_many(
    tx: MongoTransaction, table: Table[Row], keys: Sequence[tuple[Any, ...]], unique: str | None
) -> list[Row]:
    """``Transaction.find_many``: each row once, however often its key is named."""
    check_keys(keys)
    layout, collection = tx.place(table)
    columns = columns_named(table, unique)
    wanted = [layout.natives(columns, key) for key in dict.fromkeys(keys) if None not in key]
    values = tx.matching(layout, None) or {}
    if not wanted:
        return []
    if unique is None:
        condition: Document = {"_id": {"$in": [layout.from_natives(key) for key in wanted]}}
    elif len(columns) == 1:
        condition = {layout.paths[columns[0]]: {"$in": [key[0] for key in wanted]}}
    else:
        condition = {"$or": [{layout.paths[c]: v for c, v in zip(columns, key, strict=True)} for key in wanted]}
    scoped = [{layout.paths[column]: value} for column, value in values.items()]
    found = collection.find(all_of([condition, *scoped]), batch_size=len(wanted) + 1, session=tx.session)
    return [layout.row(document) for document in await found.to_list()]


async def claim(
    tx: MongoTransaction,
    table: Table[Row],
    where: Mapping[str, Any],
    *,
    due: datetime,
    until: datetime,
    owner: str,
    limit: int,
) -> list[Row]:
    """``Transaction.claim``: the rows whose lease ended first come first.

    Two commands: who else leases one of the rows meanwhile has written it, and one of the two conflicts.
    """
    check_limit(limit)
    if table.lease is None:
        raise ValueError(f"Rows of {table.name} cannot be claimed: its declaration names no lease.")
    until_column, owner_column = table.lease
    layout, collection = tx.place(table)
    values = tx.matching(layout, where)
    ended = {layout.paths[until_column]: {"$lte": layout.comparable(until_column, due)}}
    if values is None or limit == 0:
        return []
    sort = [(layout.paths[until_column], 1), ("_id", 1)]
    found = await collection.find(
        all_of([*layout.equal(values), ended]), sort=sort, limit=limit, batch_size=limit, session=tx.session
    ).to_list()
    if not found:
        return []
    lease = {
        layout.paths[until_column]: layout.comparable(until_column, until),
        layout.paths[owner_column]: layout.comparable(owner_column, owner),
    }
    change: Document = {"$set": lease, **({"$inc": {"version": Int64(1)}} if table.versioned else {})}
    ids = [document["_id"] for document in found]
    tx.touched = collection.name, "claim"
    result = await collection.update_many({"_id": {"$in": ids}}, change, session=tx.session)
    if result.matched_count != len(ids):
        raise Again(tx.touched)
    rows = []
    for document in found:
        document.update({until_column: until, owner_column: owner})
        if table.versioned:
            document["version"] += 1
        rows.append(layout.row(document))
    return rows


async def aggregate(
    tx: MongoTransaction,
    table: Table[Any],
    where: Mapping[str, Any] | None,
    *,
    group_by: Sequence[str],
    sums: Sequence[str],
) -> list[dict[str, Any]]:
    """``Transaction.aggregate``: the groups in the order of their values; without groups always one row."""
    layout, collection = tx.place(table)
    groups = [layout.codec.column(column) for column in group_by]
    for column in sums:
        if layout.codec.column(column).kind is not Kind.INTEGER:
            raise ValueError(f"The column {column} of {table.name} has no sum: it is not an integer.")
    values = tx.matching(layout, where)
    found: list[Document] = []
    if values is not None:
        by = {column.name: f"${layout.paths[column.name]}" for column in groups}
        measures = {f"sum_{place}": {"$sum": f"${layout.paths[column]}"} for place, column in enumerate(sums)}
        cursor = await collection.aggregate(
            [
                {"$match": all_of(layout.equal(values))},
                {"$group": {"_id": by or None, "count": {"$sum": 1}, **measures}},
                {"$sort": {f"_id.{column}": 1 for column in by} or {"_id": 1}},
            ],
            session=tx.session,
        )
        found = await cursor.to_list()
    if not found and not group_by:
        found = [{"_id": None, "count": 0, **{f"sum_{place}": 0 for place in range(len(sums))}}]
    return [_group(groups, sums, document) for document in found]


def _group(groups: Sequence[Any], sums: Sequence[str], document: Document) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for column in groups:
        value = document["_id"].get(column.name)
        as_it_is = value is None or column.decode is None or column.kind is not Kind.TEXT
        result[column.name] = value if as_it_is else column.decode(value)
    result["count"] = document["count"]
    for place, column in enumerate(sums):
        total = document[f"sum_{place}"]
        if type(total) is not int:
            raise InvalidValue("The sum does not fit into 64 bits.")  # the server goes on with a float then
        result[column] = total
    return result
