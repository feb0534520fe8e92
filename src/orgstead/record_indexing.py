"""Changing the definition of a collection with many records, as an operation that any process can resume.

    announce (writes keep up both) -> check and build, batch by batch -> settle -> sweep what is of no use any more

Each batch holds the space's slot, so nobody writes between its reading and its writing, and remembers how far it came
in the collection itself. Records that violate the new definition are the operation's result; the definition stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from orgstead import json_schemas, operations, placements, record_definitions
from orgstead.audit import Actor
from orgstead.errors import NotFound, PlacementMoved, Problem
from orgstead.failpoints import failpoint
from orgstead.field_paths import pointer
from orgstead.index_keys import Index, is_claim, keys_of
from orgstead.kit import rfc3339
from orgstead.model import (
    Collection,
    IndexEntry,
    Json,
    Operation,
    OrganizationStatus,
    Record,
    RecordEvent,
    Slot,
)
from orgstead.organizations import for_change
from orgstead.record_definitions import DROPPING, Definition
from orgstead.record_errors import CollectionChanging, InvalidRecord, UniqueTaken
from orgstead.record_reads import KEYS, READ_BYTES, may_go_on
from orgstead.storage import tables
from orgstead.storage.port import Space, SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

T = TypeVar("T")
Work = Callable[[Transaction, Space, Operation, datetime], Awaitable[T]]

SCOPE = SystemScope("define collection")
DEFINE = "collection.define"
UNDO = "undo"

SMALL: Final = 500
"""Records up to which a definition is changed in one transaction."""

BATCH: Final = 500
MAX_PROBLEMS: Final = 20
"""Violations that a report names; with as many the check ends."""


# --- within one transaction -----------------------------------------------------------------------------------------


async def is_small(tx: Transaction, collection: Collection, most: int) -> bool:
    """Has the collection no more records than ``most``, and are they read at once?"""
    where = {"collection": collection.name}
    return not may_go_on(await tx.page(tables.records, where, limit=most + 1, max_weight=READ_BYTES), most + 1)


async def check_and_build(tx: Transaction, collection: Collection, limit: int) -> tuple[str | None, list[Problem]]:
    """Check up to ``limit`` more records against the announced definition, and add their entries to its new indexes.

    Returns the id of the last, None at the end, and what violates the definition: then nothing is added. The slot must
    be held.
    """
    after = collection.pending["after"]
    position = (after, collection.org_id, collection.name) if after else None
    where = {"collection": collection.name}
    records = await tx.page(tables.records, where, order=("id",), after=position, limit=limit, max_weight=READ_BYTES)
    building = [index for index in record_definitions.indexes_of(collection) if not index.ready]
    schema = collection.pending["schema"] if collection.pending["schema"] != collection.schema else None
    problems: list[Problem] = []
    entries: dict[tuple[int, str], IndexEntry] = {}
    claims: dict[tuple[int, str], Index] = {}
    for record in records:
        if schema is not None and len(problems) < MAX_PROBLEMS:
            problems += _named(record, json_schemas.problems_of(schema, record.data, InvalidRecord.code))
        for index in building:
            problems += _indexed(record, index, entries, claims)
    there = await _others(tx, collection, entries)
    problems += [
        p for at, other in there.items() if other != entries[at].id for p in _taken(entries[at].id, claims[at])
    ]
    if not problems:
        missing = [entry for at, entry in entries.items() if at not in there]
        await tx.add_many(tables.index_entries, missing)
    return (records[-1].id if may_go_on(records, limit) else None), problems[:MAX_PROBLEMS]


def _named(record: Record, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with pointers that name the record."""
    begin = pointer(("records", record.id))
    return [Problem(begin + problem.pointer, problem.code, problem.detail) for problem in problems]


def _indexed(
    record: Record,
    index: Index,
    entries: dict[tuple[int, str], IndexEntry],
    claims: dict[tuple[int, str], Index],
) -> list[Problem]:
    """Draw up the record's entries; what keeps it from having them."""
    try:
        keys = list(keys_of(index, record.id, record.data))
    except InvalidRecord as error:
        return _named(record, error.problems)
    problems: list[Problem] = []
    for key in keys:
        at = (index.number, key)
        if is_claim(key) and index.unique:
            if at in entries:
                problems += _taken(record.id, index)
            claims[at] = index
        entries.setdefault(
            at,
            IndexEntry(org_id=record.org_id, collection=record.collection, number=index.number, key=key, id=record.id),
        )
    return problems


def _taken(record_id: str, index: Index) -> list[Problem]:
    begin = pointer(("records", record_id, "data"))
    return [Problem(begin + pointer(f.path), UniqueTaken.code, UniqueTaken.title) for f in index.fields]


async def _others(
    tx: Transaction, collection: Collection, entries: Mapping[tuple[int, str], IndexEntry]
) -> dict[tuple[int, str], str]:
    """The entries that are there already, because a write has added them or they are claims, and whose they are."""
    found: dict[tuple[int, str], str] = {}
    wanted = [(collection.org_id, collection.name, *at) for at in entries]
    for begin in range(0, len(wanted), KEYS):
        for entry in await tx.find_many(tables.index_entries, wanted[begin : begin + KEYS]):
            found[entry.number, entry.key] = entry.id
    return found


async def sweep(tx: Transaction, collection: Collection) -> bool:
    """Remove a batch of the entries of indexes that are dropping; True when none is left. The slot must be held."""
    for number in record_definitions.numbers_in(collection, DROPPING):
        where = {"collection": collection.name, "number": number}
        if entries := await tx.page(tables.index_entries, where, order=("key",), limit=BATCH):
            keys = [(entry.org_id, entry.collection, entry.number, entry.key) for entry in entries]
            await tx.remove_many(tables.index_entries, keys)
            return False
    return True


# --- the operation --------------------------------------------------------------------------------------------------


async def begin(app: App, collection: Collection, definition: Definition, actor: Actor) -> Operation:
    """Write the intent to change the collection, as it was read, to this definition.

    Raises ``OperationInProgress``, ``StatusConflict``, ``NotFound``.
    """
    payload: dict[str, Json] = {
        "collection": collection.name,
        "seen": _state_of(collection),
        "definition": definition.to_json(),
    }
    return await app.storage.run(SCOPE, _write_intent, collection.org_id, operations.beginning(app, actor), payload)


def _state_of(collection: Collection) -> list[Json]:
    """What no other state of a collection of this name has."""
    return [rfc3339(collection.created_at), collection.version]


async def _write_intent(
    tx: Transaction, org_id: str, by: operations.Beginning, payload: Mapping[str, Json]
) -> Operation:
    organization = await for_change(tx, org_id, None, OrganizationStatus.ACTIVE)
    operation = operations.begun(DEFINE, organization, by, payload)
    await tx.add(tables.operations, operation)
    await tx.replace(tables.organizations, replace(organization, operation_id=operation.id, updated_at=by.at))
    return operation


async def _in_space(app: App, operation: Operation, work: Work[T]) -> T:
    """Run ``work(tx, space, operation, at)`` in the organization's space, which stays where it is meanwhile."""
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    space = placements.space_of(placement)
    return await app.cell(placement.cell).run(space, work, space, operation, app.clock())


async def _held(tx: Transaction, space: Space, operation: Operation) -> tuple[Slot, Collection]:
    """The slot, locked, and the collection that the operation is about."""
    slot = await placements.hold(tx, space)
    return slot, await tx.get(tables.collections, space.org_id, operation.payload["collection"])


def _is_ours(collection: Collection, operation: Operation) -> bool:
    """Is the change that is pending this operation's? Otherwise an earlier attempt has settled it."""
    return bool(collection.pending.get("operation") == operation.id)


async def announce(app: App, operation: Operation) -> Mapping[str, Json]:
    """From here on writes satisfy the new schema, too, and keep up the new indexes.

    Raises ``CollectionChanging`` where the collection is not any more as it was read: what was asked of it then, such
    as an If-Match, may not hold now.
    """
    await _in_space(app, operation, _announce)
    return {}


async def _announce(tx: Transaction, space: Space, operation: Operation, at: datetime) -> None:
    _, collection = await _held(tx, space, operation)
    if _is_ours(collection, operation):
        return
    seen = operation.payload.get("seen")  # operations that an earlier version began have none
    if collection.pending or (seen is not None and _state_of(collection) != seen):
        raise CollectionChanging(retry_after=1)
    wanted = Definition.from_json(operation.payload["definition"])
    await tx.replace(tables.collections, record_definitions.announced(collection, wanted, operation.id))


async def build(app: App, operation: Operation) -> Mapping[str, Json]:
    """Check and index what was there before, until its end or the first batch with violations."""
    while True:
        goes_on, problems = await _in_space(app, operation, _build)
        if problems:
            return {"violations": [{"pointer": p.pointer, "code": p.code, "detail": p.detail} for p in problems]}
        if not goes_on:
            return {}
        await failpoint("define.mid_build")


async def _build(tx: Transaction, space: Space, operation: Operation, at: datetime) -> tuple[bool, list[Problem]]:
    _, collection = await _held(tx, space, operation)
    if not _is_ours(collection, operation):
        return False, []
    last, problems = await check_and_build(tx, collection, BATCH)
    if last is not None and not problems:
        await tx.replace(tables.collections, replace(collection, pending={**collection.pending, "after": last}))
    return last is not None, problems


async def settle(app: App, operation: Operation) -> Mapping[str, Json]:
    """The new definition is in force; or, with violations, the old one is the only one again."""
    await _in_space(app, operation, _settle)
    return {}


async def _settle(tx: Transaction, space: Space, operation: Operation, at: datetime) -> None:
    slot, collection = await _held(tx, space, operation)
    if not _is_ours(collection, operation):
        return
    applied = operation.step != UNDO and not operation.result.get("violations")
    changed = record_definitions.settled(collection, applied=applied)
    if applied:
        changed = replace(changed, updated_at=at)
        await tell(tx, space, slot, "collection.updated", collection.name, operation.actor, at)
    await tx.replace(tables.collections, changed)


async def tell(
    tx: Transaction, space: Space, slot: Slot, type: str, name: str, actor: str, at: datetime, **deltas: int
) -> None:
    """Write the event of a change of a collection, and count it; the slot must be held. ``deltas`` are of the usage."""
    if not await placements.enter(tx, space, deltas={**deltas, "seq": 1}):
        raise PlacementMoved(retry_after=1)
    event = RecordEvent(org_id=space.org_id, seq=slot.seq + 1, type=type, collection=name, actor=actor, at=at)
    await tx.add(tables.record_events, event)


async def clean(app: App, operation: Operation) -> Mapping[str, Json]:
    """Remove the entries that no index has any more."""
    while not await _in_space(app, operation, _clean):
        await failpoint("define.mid_sweep")
    return {}


async def _clean(tx: Transaction, space: Space, operation: Operation, at: datetime) -> bool:
    _, collection = await _held(tx, space, operation)
    if not await sweep(tx, collection):
        return False
    dropping = record_definitions.numbers_in(collection, DROPPING)
    if dropping:
        await tx.replace(tables.collections, record_definitions.forgotten(collection, dropping))
    return True


async def take_back(app: App, operation: Operation) -> Mapping[str, Json]:
    """Leave the old definition as the only one, whatever has failed."""
    try:
        await _in_space(app, operation, _settle)
        return await clean(app, operation)
    except NotFound:
        return {}  # the collection itself is gone


async def end(tx: Transaction, operation: Operation, at: datetime) -> None:
    """The organization is free for its next operation."""
    organization = await tx.lock(tables.organizations, operation.org_id)
    await tx.replace(tables.organizations, replace(organization, operation_id=None, updated_at=at))


operations.register(
    operations.Kind(
        DEFINE,
        steps=(
            operations.Step("announce", announce, then="define.after_announce"),
            operations.Step("build", build, then="define.after_build"),
            operations.Step("settle", settle, then="define.after_settle"),
            operations.Step("sweep", clean, end),
        ),
        undo=operations.Step(UNDO, take_back, end),
    )
)
