"""The verbs about many rows: ``find_many``, ``page``, ``claim`` and ``aggregate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from bson import Int64
from pymongo.asynchronous.cursor import AsyncCursor

from orgstead.errors import InvalidValue
from orgstead.storage.codec import Kind
from orgstead.storage.mongodb.documents import Document, Layout, all_of
from orgstead.storage.mongodb.units import Again
from orgstead.storage.port import Table, total_order
from orgstead.storage.unit import bounded_by, check_keys, check_limit, columns_named, weighed_by

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
    max_weight: int | None,
) -> list[Row]:
    """``Transaction.page``: one command, whose first batch is the whole page, unless it is larger than an answer."""
    check_limit(limit)
    weight = weighed_by(table, max_weight)
    layout, collection = tx.place(table)
    values = tx.matching(layout, where)
    names = total_order(table, order)
    full = [(layout.codec.column(name.lstrip("-")).name, name.startswith("-")) for name in names]
    if after is not None and len(after) != len(full):
        raise ValueError(f"The order of {table.name} has {len(full)} columns, and after must have as many values.")
    marks = None if after is None else {c: layout.codec.comparable(c, v) for (c, _), v in zip(full, after, strict=True)}
    pinned = {*(where or {}), *([table.scope] if tx.org_id is not None else [])}
    end = None if until is None else bounded_by(table, order, pinned)
    if values is None or limit == 0:
        return []
    free = [(column, down) for column, down in full if column not in values]
    if _is_key_order(layout, values, free):
        down = free[0][1]
        sort = [("_id", -1 if down else 1)]
        bounds = layout.range(layout.leading(values))
        if marks is not None:
            bounds.pop("$lt" if down else "$gte", None)
            bounds["$lt" if down else "$gt"] = layout.id_of([{**marks, **values}[column] for column in table.key])
        if end is not None:  # rows of that very value may still be inside; the exact condition follows
            edge = [*layout.leading(values), layout.codec.comparable(end[0], until)]
            bounds.pop("$gte" if down else "$lt", None)
            bounds["$gt" if down else "$lt"] = layout.id_of(edge)
        wanted = [*layout.equal(values, ranged=False), *([{"_id": bounds}] if bounds else [])]
    else:
        wanted = layout.equal(values)
        sort = [(layout.paths[column], -1 if down else 1) for column, down in free]
        if marks is not None:
            wanted += _beyond(layout, free, [layout.native(column, marks[column]) for column, _ in free])
    if end is not None:
        wanted.append(_before(layout, *end, until))
    found = collection.find(all_of(wanted), sort=sort or None, limit=limit, batch_size=limit, session=tx.session)
    return [layout.row(document) for document in await _documents(found, weight, max_weight)]


async def _documents(found: AsyncCursor[Document], weight: str | None, max_weight: int | None) -> list[Document]:
    """What the cursor finds, up to the document by which they weigh ``max_weight``; answers have 16 MiB at most."""
    if weight is None or max_weight is None:
        return await found.to_list()
    documents: list[Document] = []
    left = max_weight
    async with found:
        async for document in found:
            documents.append(document)
            left -= document[weight]
            if left <= 0:
                break
    return documents


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


def _before(layout: Layout[Any], column: str, down: bool, value: Any) -> Document:
    """The condition of the values that come before ``value``, of which None is the smallest."""
    path, edge = layout.paths[column], layout.native(column, layout.codec.comparable(column, value))
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
    tx: MongoTransaction,
    table: Table[Row],
    keys: Sequence[tuple[Any, ...]],
    unique: str | None,
    max_weight: int | None,
) -> list[Row]:
    """``Transaction.find_many``: each row once, however often its key is named."""
    check_keys(keys)
    weight = weighed_by(table, max_weight)
    layout, collection = tx.place(table)
    columns = columns_named(table, unique)
    wanted = [layout.codec.plain(columns, key) for key in dict.fromkeys(keys) if None not in key]
    scope = table.scope if tx.org_id is not None else None
    if scope in columns:
        place = columns.index(scope)
        wanted = [key for key in wanted if key[place] == tx.org_id]
    if not wanted:
        return []
    if unique is None:
        condition: Document = {"_id": {"$in": [layout.id_of(key) for key in wanted]}}
    elif len(columns) == 1:
        path = layout.paths[columns[0]]
        condition = {path: {"$in": [layout.natives(columns, key)[path] for key in wanted]}}
    else:
        condition = {"$or": [layout.natives(columns, key) for key in wanted]}
    scoped = [] if scope is None or scope in columns else [{layout.paths[scope]: tx.org_id}]
    found = collection.find(all_of([condition, *scoped]), batch_size=len(wanted) + 1, session=tx.session)
    return [layout.row(document) for document in await _documents(found, weight, max_weight)]


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
