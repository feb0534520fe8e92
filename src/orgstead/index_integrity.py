"""Do the indexes of a space hold what its records say (I13 of ``fsck``)? And making them so.

Looking reads in batches and holds nobody up; what it says of a space that is written to meanwhile may be about what is
just being finished. Mending holds the space's slot for each batch, so it is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orgstead import placements, record_definitions
from orgstead.index_keys import Index, keys_of
from orgstead.model import Collection, IndexEntry, Placement, Record
from orgstead.record_definitions import DROPPING
from orgstead.record_errors import InvalidRecord
from orgstead.record_reads import KEYS, READ_BYTES, by_keys, may_go_on
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

BATCH = 500

Position = tuple[Any, ...] | None


@dataclass(slots=True)
class Drift:
    """How many entries of a collection's indexes are missing, and how many are there that should not be."""

    collection: str
    missing: int = 0
    excess: int = 0
    repaired: bool = False


@dataclass(slots=True)
class _Seen:
    """What the records of a collection say, as far as they were read."""

    expected: Counter[int] = field(default_factory=Counter)
    missing: Counter[int] = field(default_factory=Counter)


async def drifts(app: App, placement: Placement, *, repair: bool) -> AsyncIterator[Drift]:
    """The collections of a space whose indexes are not right; mended where ``repair``."""
    space, cell = placements.space_of(placement), app.cell(placement.cell)
    counts = await cell.scan(space, _counts)
    collections = {c.name: c for c in await cell.scan(space, _indexed)}
    for name in sorted({*counts, *collections}):
        collection = collections.get(name)
        if collection is not None and _is_changing(collection):
            continue
        seen = _Seen()
        position: Position = None
        while collection is not None:
            position = await cell.scan(space, _look, collection, seen, position)
            if position is None:
                break
        there = counts.get(name, {})
        excess = sum(there.values()) - sum(seen.expected.values()) + sum(seen.missing.values())
        drift = Drift(name, sum(seen.missing.values()), max(0, excess))
        if drift.missing or drift.excess:
            if repair:
                position = None
                while (position := await cell.run(space, _remove_excess, space, name, position)) is not None:
                    pass
                while (position := await cell.run(space, _add_missing, space, name, position)) is not None:
                    pass
                drift.repaired = True
            yield drift


async def are_none(tx: Transaction) -> bool:
    """Has the space neither collections nor entries of any? Then there is nothing that could be wrong."""
    if await tx.page(tables.collections, limit=1):
        return False
    return not await tx.page(tables.index_entries, limit=1)


def _is_changing(collection: Collection) -> bool:
    return bool(collection.pending or record_definitions.numbers_in(collection, DROPPING))


async def _counts(tx: Transaction) -> dict[str, dict[int, int]]:
    """How many entries there are, by collection and index."""
    found: dict[str, dict[int, int]] = {}
    for group in await tx.aggregate(tables.index_entries, group_by=("collection", "number")):
        found.setdefault(group["collection"], {})[group["number"]] = group["count"]
    return found


async def _indexed(tx: Transaction) -> list[Collection]:
    """The collections that have indexes."""
    found: list[Collection] = []
    position: Position = None
    while page := await tx.page(tables.collections, after=position, limit=BATCH):
        found += [collection for collection in page if collection.indexes]
        position = (page[-1].org_id, page[-1].name)
    return found


async def _records(tx: Transaction, name: str, position: Position) -> tuple[list[Record], Position]:
    """The next records of a collection, and where to go on: None at the end."""
    records = await tx.page(
        tables.records, {"collection": name}, order=("id",), after=position, limit=BATCH, max_weight=READ_BYTES
    )
    last = records[-1] if may_go_on(records, BATCH) else None
    return records, (last.id, last.org_id, last.collection) if last else None


async def _look(tx: Transaction, collection: Collection, seen: _Seen, position: Position) -> Position:
    records, position = await _records(tx, collection.name, position)
    expected = _expected(collection, records)
    there = await _there(tx, list(expected))
    for key, entry in expected.items():
        seen.expected[entry.number] += 1
        if there.get(key) != entry:
            seen.missing[entry.number] += 1
    return position


def _expected(collection: Collection, records: Sequence[Record]) -> dict[tuple[Any, ...], IndexEntry]:
    """The entries that these records must have, by their keys."""
    found: dict[tuple[Any, ...], IndexEntry] = {}
    for record in records:
        for index in record_definitions.indexes_of(collection):
            for key in _keys(index, record):
                entry = IndexEntry(
                    org_id=record.org_id, collection=collection.name, number=index.number, key=key, id=record.id
                )
                found[record.org_id, collection.name, index.number, key] = entry
    return found


def _keys(index: Index, record: Record) -> list[str]:
    try:
        return list(keys_of(index, record.id, record.data))
    except InvalidRecord:
        return []  # there is no key to look for


async def _there(tx: Transaction, keys: Sequence[tuple[Any, ...]]) -> Mapping[tuple[Any, ...], IndexEntry]:
    found: dict[tuple[Any, ...], IndexEntry] = {}
    for begin in range(0, len(keys), KEYS):
        for entry in await tx.find_many(tables.index_entries, keys[begin : begin + KEYS]):
            found[entry.org_id, entry.collection, entry.number, entry.key] = entry
    return found


async def _held(tx: Transaction, space: Space, name: str) -> Collection | None:
    await placements.hold(tx, space)
    return await tx.find(tables.collections, org_id=space.org_id, name=name)


async def _remove_excess(tx: Transaction, space: Space, name: str, position: Position) -> Position:
    """Remove, of the next entries, those that their records do not have."""
    collection = await _held(tx, space, name)
    page = await tx.page(tables.index_entries, {"collection": name}, after=position, limit=BATCH)
    ids = dict.fromkeys((space.org_id, name, entry.id) for entry in page)
    expected: dict[tuple[Any, ...], IndexEntry] = {}
    if collection is not None:
        async for records in by_keys(tx, ids):
            expected |= _expected(collection, records)
    keys = {(entry.org_id, entry.collection, entry.number, entry.key): entry for entry in page}
    excess = [key for key, entry in keys.items() if expected.get(key) != entry]
    if excess:
        await tx.remove_many(tables.index_entries, excess)
    return list(keys)[-1] if len(page) == BATCH else None


async def _add_missing(tx: Transaction, space: Space, name: str, position: Position) -> Position:
    """Add the entries that the next records do not have."""
    collection = await _held(tx, space, name)
    if collection is None:
        return None
    records, position = await _records(tx, name, position)
    expected = _expected(collection, records)
    there = await _there(tx, list(expected))
    missing = [entry for key, entry in expected.items() if key not in there]
    if missing:
        await tx.add_many(tables.index_entries, missing)
    return position
