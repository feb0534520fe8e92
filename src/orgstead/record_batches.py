"""Writing records: any number of changes as one transaction, with their index entries, events and usage.

Every write takes this way, a single one as a batch of one:

    hold the slot -> read collections and records -> take each change -> enter -> write each table once

The slot is held from the beginning, so what was read stays so until the commit: definitions, versions, unique values,
the usage, and the number of the last event. Nothing is written before every change was taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from orgstead import kit, placements, record_definitions, usage
from orgstead.audit import Actor
from orgstead.errors import InvalidInput, InvalidValue, NotFound, PreconditionFailed, Problem
from orgstead.field_paths import pointer
from orgstead.index_keys import Index, is_claim, keys_of
from orgstead.model import Collection, IndexEntry, Json, Record, RecordEvent, Slot
from orgstead.record_errors import InvalidRecord, InvalidRecordId, RecordExists, RecordTooLarge, UniqueTaken
from orgstead.record_reads import KEYS, by_keys
from orgstead.storage import tables
from orgstead.storage.port import Space, Table, Transaction
from orgstead.usage import Limits

if TYPE_CHECKING:
    from orgstead.app import App

MAX_CHANGES: Final = 500
"""Changes of one batch."""

MAX_CHANGED_BYTES: Final = 32 * 1_048_576
"""Bytes that the records which a batch changes may have together, before it changes them."""

_TOO_MUCH = f"The records that a batch changes have at most {MAX_CHANGED_BYTES} bytes together; change fewer at once."
_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")


class Op(StrEnum):
    CREATE = "create"
    REPLACE = "replace"
    PATCH = "patch"
    DELETE = "delete"


class Change(msgspec.Struct, frozen=True):
    """One change of one record. ``id`` may be None for a new record; ``data`` is the merge patch of a patch.

    ``if_version`` is the version that the record must still have, None for any.
    """

    op: Op
    collection: str
    id: str | None = None
    data: dict[str, Json] | None = None
    if_version: int | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes and when, and what the plan and the settings allow."""

    actor: str
    at: datetime
    limits: Limits
    max_bytes: int


def terms_of(app: App, plan: str, actor: Actor) -> Terms:
    """The terms of an organization on this plan, now."""
    limits = usage.limits_of(app.settings, plan)
    return Terms(actor=actor.id, at=app.clock(), limits=limits, max_bytes=app.settings.records.max_bytes)


def is_id(text: str) -> bool:
    """Can a record have this id?"""
    return _ID.fullmatch(text) is not None and text not in (".", "..")


def checked_id(text: str) -> str:
    """The id, if a record can have it: no path segment that means another. Raises ``InvalidRecordId``."""
    if not is_id(text):
        raise InvalidRecordId(problems=[Problem("/id", InvalidRecordId.code, InvalidRecordId.title)])
    return text


def merged(target: Json, patch: Json) -> Json:
    """``target`` with the merge patch applied (RFC 7396): null removes a member, objects merge, all else replaces."""
    if type(patch) is not dict:
        return patch
    result = dict(target) if type(target) is dict else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


Entries = dict[tuple[int, str], bool]
"""(index, key) -> whether the key is a claim that no other record may have."""


class Taken(msgspec.Struct):
    """A change that was found good: the record, by its collection and id, as it was and as it will be.

    ``gone`` and ``come`` are its entries in ``indexes`` that go and that come; ``records`` and ``bytes`` what it adds
    to the usage.
    """

    key: tuple[str, str]
    before: Record | None
    after: Record | None
    indexes: Sequence[Index]
    gone: Entries
    come: Entries
    records: int
    bytes: int


class Batch:
    """Changes while they are taken one by one. ``one_by_one`` holds each against the quota when it is taken.

    Otherwise the quota is asked at the end, for all of them together.
    """

    def __init__(self, tx: Transaction, space: Space, slot: Slot, terms: Terms, *, one_by_one: bool) -> None:
        self._tx = tx
        self._space = space
        self._slot = slot
        self._before = self._used = usage.used(slot)
        self._terms = terms
        self._one_by_one = one_by_one
        self._collections: dict[str, Collection] = {}
        self._indexes: dict[str, Sequence[Index]] = {}
        self._existing: set[tuple[str, str]] = set()
        self._there: dict[tuple[str, str], Record] = {}
        self._seen: set[tuple[str, str]] = set()
        self._new_collections: list[Collection] = []
        self._taken: list[Taken] = []

    @classmethod
    async def begun(
        cls, tx: Transaction, space: Space, changes: Iterable[Change], terms: Terms, *, one_by_one: bool = False
    ) -> Batch:
        """Hold the space's slot and read what the changes are about.

        Raises ``PlacementMoved``, and ``InvalidInput`` where records that are changed are too large together.
        """
        batch = cls(tx, space, await placements.hold(tx, space), terms, one_by_one=one_by_one)
        org_id = space.org_id
        changes = [c for c in changes if record_definitions.is_name(c.collection)]  # `take` refuses the others
        names = dict.fromkeys(change.collection for change in changes)
        batch._collections = {
            collection.name: collection
            for keys in _portions([(org_id, name) for name in names])
            for collection in await tx.find_many(tables.collections, keys)
        }
        alone = len(changes) == 1 and not one_by_one  # an import wants to know what is there, not to be refused
        if read := [change for change in changes if _is_read(change, alone=alone)]:
            await batch._read(read)
        return batch

    def take(self, change: Change) -> Taken:
        """Hold one change against what is there. What it raises concerns this change only; nothing is taken then.

        Raises ``NotFound``, ``PreconditionFailed``, ``RecordExists``, ``InvalidRecord``, ``InvalidRecordId``,
        ``InvalidDefinition``, ``RecordTooLarge`` and, one by one, ``QuotaExceeded``.
        """
        record_id = kit.new_id("rec") if change.id is None else checked_id(change.id)
        key = (change.collection, record_id)
        if key in self._seen:
            raise InvalidInput(problems=[_problem("/id", "A batch names a record once.")])
        before = self._there.get(key)
        if change.op is Op.CREATE:
            if key in self._existing:
                raise RecordExists
        elif before is None:
            raise NotFound
        elif change.if_version is not None and change.if_version != before.version:
            raise PreconditionFailed
        collection = self._collections.get(change.collection) or self._new(change.collection)
        after = self._after(change, record_id, before)
        if after is not None:
            problems = record_definitions.violations(collection, record_id, after.data, InvalidRecord.code)
            if problems:
                raise InvalidRecord(problems=problems)
        taken = self._taken_of(key, before, after, collection)
        is_new = collection.name not in self._collections
        if self._one_by_one:
            deltas = {"records": taken.records, "bytes": taken.bytes, "collections": int(is_new)}
            usage.admit(self._terms.limits, self._used, deltas)
            self._used = {what: used + deltas.get(what, 0) for what, used in self._used.items()}
        if is_new:
            self._collections[collection.name] = collection
            self._new_collections.append(collection)
        self._seen.add(key)
        self._taken.append(taken)
        return taken

    async def conflicts(self) -> list[tuple[Taken, UniqueTaken]]:
        """The changes that were taken and claim unique values of records that keep them, or of changes before them."""
        if not any(claim for taken in self._taken for claim in taken.come.values()):
            return []
        claims = [(taken, [(taken.key[0], *at) for at, claim in taken.come.items() if claim]) for taken in self._taken]
        released = {(t.key[0], *at) for t in self._taken for at, claim in t.gone.items() if claim}
        asked = dict.fromkeys((self._space.org_id, *at) for _, mine in claims for at in mine if at not in released)
        held = {
            (entry.collection, entry.number, entry.key)
            for keys in _portions(list(asked))
            for entry in await self._tx.find_many(tables.index_entries, keys)
        }
        found: list[tuple[Taken, UniqueTaken]] = []
        for taken, mine in claims:
            if clash := next((at for at in mine if at in held), None):
                found.append((taken, _unique_taken(taken, clash[1])))
            else:
                held.update(mine)  # a change that is refused stands in nobody's way
        return found

    def drop(self, taken: Iterable[Taken]) -> None:
        """Take these back: they are not written."""
        dropped = {id(one) for one in taken}
        self._taken = [one for one in self._taken if id(one) not in dropped]

    async def write(self) -> list[Record | None]:
        """Write everything that was taken; the records as they are now, in order, None for those deleted.

        Raises ``QuotaExceeded``, ``PlacementMoved``, and ``UniqueTaken`` unless ``conflicts`` was asked.
        """
        if not self._taken:
            return []
        deltas = {"records": 0, "bytes": 0, "collections": len(self._new_collections)}
        added: list[Record] = []
        changed: list[Record] = []
        for taken in self._taken:
            deltas["records"] += taken.records
            deltas["bytes"] += taken.bytes
            if taken.after is not None:
                (added if taken.before is None else changed).append(taken.after)
        usage.admit(self._terms.limits, self._before, deltas)
        events = self._events()
        at_most = self._terms.limits.bounding(deltas)
        entered = await placements.enter(self._tx, self._space, deltas={**deltas, "seq": len(events)}, at_most=at_most)
        assert entered, "the slot is held, so its usage is what was looked at"
        if len(added) < len(self._taken):
            await self._remove()  # before adding: a claim that one change lets go of is free for another
        new: list[tuple[Table[Any], Sequence[Any]]] = [
            (tables.collections, self._new_collections),
            (tables.records, added),
            (tables.index_entries, self._new_entries()),
            (tables.record_events, events),
        ]
        await self._tx.add_all([(table, rows) for table, rows in new if rows])
        stored = iter(await self._tx.replace_many(tables.records, changed) if changed else ())
        return [next(stored) if t.after and t.before else t.after for t in self._taken]

    # --- what the steps are made of ---------------------------------------------------------------------------------

    async def _read(self, changes: Sequence[Change]) -> None:
        """Read the records that these changes are about."""
        changed = {(change.collection, change.id) for change in changes if change.op is not Op.CREATE}
        size = 0
        keys = ((self._space.org_id, change.collection, change.id) for change in changes)
        async for records in by_keys(self._tx, keys):
            for record in records:
                key = (record.collection, record.id)
                self._existing.add(key)
                if key in changed:
                    self._there[key] = record
                    size += record.bytes
            if size > MAX_CHANGED_BYTES and len(changed) > 1:
                raise InvalidInput(problems=[_problem("/operations", _TOO_MUCH)])

    def _new(self, name: str) -> Collection:
        """A collection that comes into being with its first record. It counts once a change that needs it is kept."""
        at = self._terms.at
        name = record_definitions.checked_name(name)
        return Collection(org_id=self._space.org_id, name=name, created_at=at, updated_at=at)

    def _indexes_of(self, collection: Collection) -> Sequence[Index]:
        found = self._indexes.get(collection.name)
        if found is None:
            found = self._indexes[collection.name] = record_definitions.indexes_of(collection)
        return found

    def _after(self, change: Change, record_id: str, before: Record | None) -> Record | None:
        """The record as the change makes it."""
        if change.op is Op.DELETE:
            return None
        data = change.data
        if change.op is Op.PATCH and before is not None:
            data = merged(before.data, data)
        if type(data) is not dict:
            raise InvalidRecord(problems=[_problem("/data", "The data of a record is an object.")])
        size = size_of(data)
        if size > self._terms.max_bytes:
            raise RecordTooLarge(f"A record has at most {self._terms.max_bytes} bytes; this one would have {size}.")
        at = self._terms.at
        if before is not None:
            return replace(before, data=data, bytes=size, updated_at=at)
        return Record(
            org_id=self._space.org_id,
            collection=change.collection,
            id=record_id,
            data=data,
            bytes=size,
            created_at=at,
            updated_at=at,
        )

    def _taken_of(
        self, key: tuple[str, str], before: Record | None, after: Record | None, collection: Collection
    ) -> Taken:
        indexes = self._indexes_of(collection)
        records = size = 0
        gone: Entries = {}
        come: Entries = {}
        if after is not None:
            records, size = 1, after.bytes
            come = _entries(indexes, after)
        if before is not None:
            records, size = records - 1, size - before.bytes
            old = _entries(indexes, before)
            gone = {at: claim for at, claim in old.items() if at not in come}
            come = {at: claim for at, claim in come.items() if at not in old}
        return Taken(key, before, after, indexes, gone, come, records, size)

    async def _remove(self) -> None:
        """Remove the records that are deleted, and the index entries that go."""
        org_id = self._space.org_id
        deleted = [t.before for t in self._taken if t.before and not t.after]
        if deleted:
            await self._tx.remove_many(tables.records, [(r.org_id, r.collection, r.id) for r in deleted])
        gone = [(org_id, t.key[0], *at) for t in self._taken for at in t.gone]
        if unsure := {(org_id, t.key[0], index.number) for t in self._taken for index in t.indexes if not index.ready}:
            gone = await self._without_missing(gone, unsure)
        if gone:
            await self._tx.remove_many(tables.index_entries, gone)

    def _new_entries(self) -> list[IndexEntry]:
        return [
            IndexEntry(org_id=self._space.org_id, collection=collection, number=number, key=key, id=record_id)
            for t in self._taken
            for collection, record_id in (t.key,)
            for number, key in t.come
        ]

    async def _without_missing(
        self, gone: list[tuple[str, str, int, str]], unsure: set[tuple[str, str, int]]
    ) -> list[tuple[str, str, int, str]]:
        """Of the entries that go, those that are there: an index that is being built may not have them yet."""
        asked = [at for at in gone if at[:3] in unsure]
        there = {
            (entry.org_id, entry.collection, entry.number, entry.key)
            for keys in _portions(asked)
            for entry in await self._tx.find_many(tables.index_entries, keys)
        }
        return [at for at in gone if at[:3] not in unsure or at in there]

    def _events(self) -> list[RecordEvent]:
        facts: list[tuple[str, str, str | None, int | None]] = [
            ("collection.created", collection.name, None, None) for collection in self._new_collections
        ]
        for taken in self._taken:
            collection, record_id = taken.key
            if taken.after is None:
                facts.append(("record.deleted", collection, record_id, None))
            elif taken.before is None:
                facts.append(("record.created", collection, record_id, 1))
            else:
                facts.append(("record.updated", collection, record_id, taken.before.version + 1))
        return [
            RecordEvent(
                org_id=self._space.org_id,
                seq=seq,
                type=type_,
                collection=collection,
                record_id=record_id,
                record_version=version,
                actor=self._terms.actor,
                at=self._terms.at,
            )
            for seq, (type_, collection, record_id, version) in enumerate(facts, self._slot.seq + 1)
        ]


def size_of(data: Json) -> int:
    """Bytes of the data as compact JSON. Raises ``InvalidValue`` for what is no JSON."""
    try:
        return len(orjson.dumps(data))
    except TypeError:  # orjson's own error is one
        raise InvalidValue from None


def _is_read(change: Change, *, alone: bool) -> bool:
    """Is the record of this change to be read? A new one that comes alone is not: its key is refused if it is there."""
    return change.id is not None and is_id(change.id) and not (alone and change.op is Op.CREATE)


def _portions(keys: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    for begin in range(0, len(keys), KEYS):
        yield keys[begin : begin + KEYS]


def _entries(indexes: Sequence[Index], record: Record) -> Entries:
    entries: Entries = {}
    for index in indexes:
        for key in keys_of(index, record.id, record.data):
            entries[index.number, key] = index.unique and is_claim(key)
    return entries


def _unique_taken(taken: Taken, number: int) -> UniqueTaken:
    (index,) = (index for index in taken.indexes if index.number == number)
    problems = [Problem(pointer(("data", *field.path)), UniqueTaken.code, UniqueTaken.title) for field in index.fields]
    return UniqueTaken(problems=problems)


def _problem(at: str, detail: str) -> Problem:
    return Problem(at, InvalidInput.code, detail)
