"""Queries: the records of a collection that meet a condition, in an order, a page at a time.

    {"where": {"field": "city", "eq": "Berlin"}, "order": ["-price"], "select": ["city", "price"]}

What a query answers, and in which order, follows from the records and the query alone; declared indexes decide only
how much has to be looked at for it. Sorting is by JSON type, then value, missing first (``index_keys``), and ends with
the id, in the direction of the last field named. A list goes on after a mark, which means the same whatever index reads
on: the last record's values and id.

How much one query may look at in vain is bounded (``Rules``): beyond that it is refused, with the index that would
help, or answered as far as it got.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from orgstead import field_paths, record_collections, record_definitions
from orgstead.conditions import Condition, names_of, path_of, wrong
from orgstead.conditions import parse as parse_condition
from orgstead.errors import InvalidCursor
from orgstead.field_paths import ID, Ordered, Path
from orgstead.kit import rfc3339
from orgstead.model import Collection, Json, Record
from orgstead.query_plans import Mark, Order, Plan, advice, plans_for
from orgstead.query_sources import FIRST, Source
from orgstead.record_errors import InvalidQuery, QueryUnindexed
from orgstead.record_reads import weight
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.settings import Settings

MAX_ORDER: Final = 4
MAX_SELECT: Final = 50
MAX_MARK: Final = 4000
"""Characters of a mark. Only an order by long text that no index has can exceed it."""

PAGE_BYTES: Final = 8 * 1_048_576
"""A page that has so many bytes of records ends, whatever its limit."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a collection. ``select`` None is the whole data."""

    where: Condition | None = None
    order: Order = field(default_factory=Order)
    select: tuple[Path, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How many records a query may look at without returning them, an aggregate may be made of, and what then."""

    max_examined: int
    max_aggregated: int
    refuses: bool = True


def rules_of(settings: Settings) -> Rules:
    """The rules that the settings set."""
    records = settings.records
    return Rules(records.max_examined, records.max_aggregated, records.unindexed == "refuse")


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order, and the mark after which to go on: None at the end.

    There may be fewer than the limit, even none, and still more to come.
    """

    records: list[Record]
    mark: Mark | None


# --- reading a query ------------------------------------------------------------------------------------------------


def parse(where: Any = None, order: Any = None, select: Any = None) -> Query:
    """The query that JSON values spell. Raises ``InvalidQuery`` naming the place."""
    condition = None if where is None else parse_condition(where)
    selected = None
    if select is not None:
        names = names_of(select, "/select", most=MAX_SELECT)
        selected = tuple(path_of(name, f"/select/{place}") for place, name in enumerate(names))
    return Query(condition, Order() if order is None else _order(order), selected)


def _order(names: Any) -> Order:
    fields: list[Ordered] = []
    down = False
    for place, name in enumerate(names_of(names, "/order", most=MAX_ORDER)):
        at = f"/order/{place}"
        wanted = Ordered(path_of(name.removeprefix("-"), at), name.startswith("-"))
        down = wanted.down
        if wanted.path == ID:
            if place < len(names) - 1:
                raise wrong(at, "Ids are all different: nothing can come after them in an order.")
            break
        if wanted.path in [other.path for other in fields]:
            raise wrong(at, "An order names a field once.")
        fields.append(wanted)
    return Order(tuple(fields), down)


# --- answering ------------------------------------------------------------------------------------------------------


class _Exhausted(Exception):
    """The plan has looked at as many records in vain as it may."""


async def run(
    tx: Transaction,
    space: Space,
    collection: str,
    query: Query,
    rules: Rules,
    *,
    after: Mark | None = None,
    limit: int,
) -> Page:
    """Up to ``limit`` records that meet the query, in its order, after a mark of the same order.

    Raises ``NotFound`` where there is no such collection, ``QueryUnindexed`` where it would take too much to answer,
    ``InvalidCursor`` for a mark of another order.
    """
    found = await record_collections.get(tx, space, collection)
    if after is not None and len(after) != len(query.order.fields) + 1:
        raise InvalidCursor
    plans = plans_for(query.where, query.order, record_definitions.indexes_of(found))
    for plan in plans:
        try:
            return await _answered(tx, found, query, plan, rules, after, limit, partial=False)
        except _Exhausted:
            continue
    serving = next((plan for plan in plans if plan.served), None)
    if rules.refuses or serving is None:
        raise unindexed(query, rules.max_examined)
    return await _answered(tx, found, query, serving, rules, after, limit, partial=True)


def unindexed(query: Query, most: int) -> QueryUnindexed:
    """The refusal, with the index that would help."""
    fields = advice(query.where, query.order)
    help_ = f"Declare the index {orjson.dumps(fields).decode()}." if fields else "Ask for something more specific."
    return QueryUnindexed(f"No index serves this query, and it would look at more than {most} records. {help_}")


async def _answered(
    tx: Transaction,
    collection: Collection,
    query: Query,
    plan: Plan,
    rules: Rules,
    after: Mark | None,
    limit: int,
    *,
    partial: bool,
) -> Page:
    if not plan.served:
        return await _sorted(tx, collection, query, plan, rules, after, limit)
    page: list[Record] = []
    size = vain = 0
    wanted = limit + 1 if plan.exact else FIRST
    source = Source(tx, collection, plan, after, wanted)
    while batch := await source.read():
        for record in batch:
            if plan.exact or query.where is None or query.where.holds(record.id, record.data):
                if len(page) == limit or (page and size + record.bytes > PAGE_BYTES):
                    return Page(page, _mark(query, page[-1]))
                page.append(record)
                size += record.bytes
                continue
            vain += 1
            if vain > rules.max_examined:
                if partial:
                    return Page(page, _mark(query, record))
                raise _Exhausted
    return Page(page, None)


async def _sorted(
    tx: Transaction, collection: Collection, query: Query, plan: Plan, rules: Rules, after: Mark | None, limit: int
) -> Page:
    """Look at everything that the plan holds and keep the first records behind the mark."""
    order = query.order
    begin = None if after is None else order.position(after)
    best: list[tuple[str, Record]] = []
    examined = held = 0
    source = Source(tx, collection, plan, None, FIRST)
    while batch := await source.read():
        examined += len(batch)
        if examined > rules.max_examined:
            raise _Exhausted
        for record in batch:
            if query.where is None or query.where.holds(record.id, record.data):
                position = order.position(order.mark(record.id, record.data))
                if begin is None or position > begin:
                    best.append((position, record))
                    held += record.bytes
        if len(best) > 4 * (limit + FIRST) or held > 2 * PAGE_BYTES:
            best, _ = _first(best, limit)
            held = weight(record for _, record in best)
    best, more = _first(best, limit)
    page = [record for _, record in best]
    if more:
        page.pop()
    return Page(page, _mark(query, page[-1]) if more else None)


def _first(best: list[tuple[str, Record]], limit: int) -> tuple[list[tuple[str, Record]], bool]:
    """The records of a page, by their positions, and the next one if there is one, which is said."""
    found: list[tuple[str, Record]] = []
    size = 0
    for position, record in heapq.nsmallest(limit + 1, best, key=_position):
        found.append((position, record))
        if len(found) > limit or (len(found) > 1 and size + record.bytes > PAGE_BYTES):
            return found, True
        size += record.bytes
    return found, False


def _position(found: tuple[str, Record]) -> str:
    return found[0]


def _mark(query: Query, record: Record) -> Mark:
    mark = query.order.mark(record.id, record.data)
    if sum(map(len, mark)) > MAX_MARK:
        raise InvalidQuery("The order is by text that is too long to go on after; order by a field that is indexed.")
    return mark


# --- showing --------------------------------------------------------------------------------------------------------


def shown(record: Record, select: Sequence[Path] | None = None) -> dict[str, Json]:
    """A record as JSON, with the selected members of its data."""
    return {
        "object": "record",
        "id": record.id,
        "collection": record.collection,
        "data": record.data if select is None else field_paths.projected(record.data, select),
        "version": record.version,
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
    }
