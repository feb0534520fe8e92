"""Records: an organization's own documents, by id. Queries are in ``queries.py``.

Every function runs within one transaction in the organization's space (``spaces.run``, ``spaces.read``), which it takes
first; the space second. What writes takes the ``Terms`` that it is written on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from orgstead import usage
from orgstead.errors import AlreadyExists, InvalidInput, NotFound, OrgsteadError, Problem
from orgstead.model import Json, Record
from orgstead.queries import PAGE_BYTES
from orgstead.record_batches import MAX_CHANGES, Batch, Change, Op, Terms, is_id
from orgstead.record_definitions import is_name
from orgstead.record_errors import InvalidDefinition, QueryTooLarge, QuotaExceeded, RecordExists, UniqueTaken
from orgstead.record_reads import by_keys, weight
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction, count_rows


async def get(tx: Transaction, space: Space, collection: str, id: str) -> Record:
    """Raises ``NotFound``, also for a name and an id that none can have."""
    if not (is_name(collection) and is_id(id)):
        raise NotFound
    return await tx.get(tables.records, space.org_id, collection, id)


async def get_many(tx: Transaction, space: Space, collection: str, ids: Sequence[str]) -> list[Record]:
    """The records of these ids that exist, each once, in the order of ``ids``.

    Raises ``QueryTooLarge`` where they are more than an answer may have, ``NotFound`` where the space is not there (any
    more).
    """
    wanted = dict.fromkeys(one for one in ids if is_id(one)) if is_name(collection) else {}
    by_id: dict[str, Record] = {}
    size = 0
    async for found in by_keys(tx, [(space.org_id, collection, one) for one in wanted]):
        size += weight(found)
        if size > PAGE_BYTES:
            raise QueryTooLarge(f"These records are larger than the {PAGE_BYTES} bytes of one answer; ask for fewer.")
        by_id.update({record.id: record for record in found})
    if not by_id:
        await usage.read(tx, space)
    return [by_id[one] for one in wanted if one in by_id]


async def create(
    tx: Transaction, space: Space, collection: str, data: dict[str, Json], terms: Terms, *, id: str | None = None
) -> Record:
    """Add a record; its collection is made with it where there is none of that name. ``id`` is made where None.

    Raises what a change can (``Batch.take``), ``UniqueTaken``, ``QuotaExceeded``, ``PlacementMoved``.
    """
    return _one(await _write(tx, space, [Change(Op.CREATE, collection, id, data)], terms))


async def replace(
    tx: Transaction,
    space: Space,
    collection: str,
    id: str,
    data: dict[str, Json],
    terms: Terms,
    *,
    if_version: int | None = None,
) -> Record:
    """Give an existing record other data. Raises as ``create``, ``NotFound`` and ``PreconditionFailed``."""
    return _one(await _write(tx, space, [Change(Op.REPLACE, collection, id, data, if_version)], terms))


async def patch(
    tx: Transaction,
    space: Space,
    collection: str,
    id: str,
    data: dict[str, Json],
    terms: Terms,
    *,
    if_version: int | None = None,
) -> Record:
    """Apply a merge patch (RFC 7396) to an existing record's data. Raises as ``replace``."""
    return _one(await _write(tx, space, [Change(Op.PATCH, collection, id, data, if_version)], terms))


async def delete(
    tx: Transaction, space: Space, collection: str, id: str, terms: Terms, *, if_version: int | None = None
) -> None:
    """Remove a record. Raises ``NotFound``, ``PreconditionFailed``, ``PlacementMoved``."""
    await _write(tx, space, [Change(Op.DELETE, collection, id, None, if_version)], terms)


async def batch(tx: Transaction, space: Space, changes: Sequence[Change], terms: Terms) -> list[Record | None]:
    """Make up to 500 changes, all or none; the records as they are then, in order, None for those deleted.

    A record may be named once. The quota is asked for all changes together. What a change raises is raised with
    ``problems`` that point into ``/operations/N``.
    """
    if not 1 <= len(changes) <= MAX_CHANGES:
        detail = f"A batch has 1 to {MAX_CHANGES} operations."
        raise InvalidInput(detail, problems=[Problem("/operations", InvalidInput.code, detail)])
    return await _write(tx, space, changes, terms, "/operations")


async def _write(
    tx: Transaction, space: Space, changes: Sequence[Change], terms: Terms, at: str | None = None
) -> list[Record | None]:
    batch = await Batch.begun(tx, space, changes, terms)
    places: dict[int, int] = {}
    for place, change in enumerate(changes):
        try:
            places[id(batch.take(change))] = place
        except QuotaExceeded:
            raise
        except OrgsteadError as error:
            raise _placed(error, at, place) from None
    for taken, conflict in await batch.conflicts():
        raise _placed(conflict, at, places[id(taken)])
    try:
        return await batch.write()
    except AlreadyExists as error:
        if error.constraint == tables.records.key_constraint:
            raise RecordExists from None
        if error.constraint == tables.index_entries.key_constraint:
            raise UniqueTaken from None
        raise


_MEMBERS: Final[Mapping[type[OrgsteadError], str]] = {InvalidDefinition: "/collection"}
"""The member of an operation that errors are about which name no place: a single change has it in its path."""


def _placed(error: OrgsteadError, at: str | None, place: int) -> OrgsteadError:
    """The error with pointers that lead to its change in the batch."""
    if at is not None:
        begin = f"{at}/{place}"
        inside = [Problem(begin + problem.pointer, problem.code, problem.detail) for problem in error.problems]
        error.problems = tuple(inside or [Problem(begin + _MEMBERS.get(type(error), ""), error.code, error.detail)])
    return error


def _one(written: list[Record | None]) -> Record:
    (record,) = written
    assert record is not None
    return record


async def count(tx: Transaction, space: Space, collection: str) -> int:
    """How many records the collection has. Raises ``NotFound`` where there is no such collection."""
    if not is_name(collection):
        raise NotFound
    number = await count_rows(tx, tables.records, {"collection": collection})
    if not number and await tx.find(tables.collections, org_id=space.org_id, name=collection) is None:
        raise NotFound
    return number
