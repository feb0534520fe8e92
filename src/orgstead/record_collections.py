"""Collections: defining them, reading their definitions, removing them.

A change of a definition is checked against the records that are there: either all of them satisfy it and it is in
force, or it is reported what does not, and nothing has changed. Few records are checked in the transaction of the
change; many in batches by an operation (``record_indexing``), while writes already satisfy and keep up both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orgstead import operations, placements, record_definitions, record_indexing, spaces, usage
from orgstead.audit import Actor
from orgstead.errors import NotFound, Problem
from orgstead.kit import rfc3339
from orgstead.model import Collection, Json, Operation, OperationState, Placement, Slot
from orgstead.record_batches import Terms
from orgstead.record_definitions import DROPPING, Definition
from orgstead.record_errors import CollectionChanging, CollectionNotEmpty, DefinitionViolated
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.app import App


@dataclass(frozen=True, slots=True)
class Defined:
    """A collection after it was defined, whether it is new, and the operation that is still at work on it, if any."""

    collection: Collection
    created: bool = False
    operation: Operation | None = None


async def get(tx: Transaction, space: Space, name: str) -> Collection:
    """Raises ``NotFound``, also for a name that none can have."""
    if not record_definitions.is_name(name):
        raise NotFound
    return await tx.get(tables.collections, space.org_id, name)


async def page(tx: Transaction, space: Space, *, after: str | None = None, limit: int) -> list[Collection]:
    """Collections by name, after the one of that name. Raises ``NotFound`` where the space is not there (any more)."""
    position = None if after is None else (after, space.org_id)
    found = await tx.page(tables.collections, order=("name",), after=position, limit=limit)
    if not found:
        await usage.read(tx, space)
    return found


def shown(collection: Collection) -> dict[str, Json]:
    """A collection as JSON: the definition in force. ``state`` is changing while another one is being checked.

    Its row's version is not shown: that counts steps of changes, those that were refused, too.
    """
    return {
        "object": "collection",
        "name": collection.name,
        **record_definitions.shown(collection),
        "state": "changing" if collection.pending else "ready",
        "created_at": rfc3339(collection.created_at),
        "updated_at": rfc3339(collection.updated_at),
    }


def _anyhow(current: Collection | None) -> None:
    """Permits every definition."""


async def define(
    app: App,
    placement: Placement,
    name: str,
    definition: Definition,
    terms: Terms,
    actor: Actor,
    *,
    permit: Callable[[Collection | None], None] = _anyhow,
) -> Defined:
    """Give a collection this definition and no other; make it where there is none of that name.

    ``permit`` is shown the collection as it is, None where there is none, and raises what the caller minds about it.
    Raises ``InvalidDefinition`` for the name, ``QuotaExceeded``, ``CollectionChanging``, ``OperationInProgress``,
    ``PlacementMoved``, and ``DefinitionViolated``, whose problems name records by ``/records/{id}/data/…``.
    """
    record_definitions.checked_name(name)
    defined = await spaces.run(app, placement, define_now, name, definition, terms, permit)
    if isinstance(defined, Defined):
        return defined
    operation = await record_indexing.begin(app, defined, definition, actor)
    operation = await operations.finish(app, operation, within=operations.WAIT_SECONDS)
    if operation.state is not OperationState.RUNNING and (found := operation.result.get("violations")):
        raise DefinitionViolated(problems=[Problem(**problem) for problem in found])
    collection = await spaces.read(app, placement, get, name)
    return Defined(collection, operation=operation if operation.state is OperationState.RUNNING else None)


async def define_now(
    tx: Transaction,
    space: Space,
    name: str,
    definition: Definition,
    terms: Terms,
    permit: Callable[[Collection | None], None] = _anyhow,
) -> Defined | Collection:
    """``define`` in one transaction; where the collection has too many records for that, the collection as it is."""
    slot = await placements.hold(tx, space)
    current = await tx.find(tables.collections, org_id=space.org_id, name=name)
    # Before the caller is asked: a change that may yet be refused is no reason to say that the definition is another.
    if current is not None and _is_changing(current):
        raise CollectionChanging(retry_after=1)
    permit(current)
    if current is None:
        return Defined(await _create(tx, space, slot, name, definition, terms), created=True)
    if record_definitions.definition_of(current) == definition:
        return Defined(current)
    changed = record_definitions.announced(current, definition)
    if not await record_indexing.is_small(tx, changed, record_indexing.SMALL):
        return current
    _, problems = await record_indexing.check_and_build(tx, changed, record_indexing.SMALL + 1)
    if problems:
        raise DefinitionViolated(problems=problems)
    changed = record_definitions.settled(changed, applied=True)
    while not await record_indexing.sweep(tx, changed):
        pass
    dropping = record_definitions.numbers_in(changed, DROPPING)
    changed = record_definitions.forgotten(replace(changed, updated_at=terms.at), dropping)
    await record_indexing.tell(tx, space, slot, "collection.updated", name, terms.actor, terms.at)
    return Defined(await tx.replace(tables.collections, changed))


async def _create(
    tx: Transaction, space: Space, slot: Slot, name: str, definition: Definition, terms: Terms
) -> Collection:
    usage.admit(terms.limits, usage.used(slot), {"collections": 1})
    empty = Collection(org_id=space.org_id, name=name, created_at=terms.at, updated_at=terms.at)
    collection = record_definitions.settled(record_definitions.announced(empty, definition), applied=True)
    await record_indexing.tell(tx, space, slot, "collection.created", name, terms.actor, terms.at, collections=1)
    await tx.add(tables.collections, collection)
    return collection


async def remove(
    tx: Transaction,
    space: Space,
    name: str,
    terms: Terms,
    permit: Callable[[Collection | None], None] = _anyhow,
) -> None:
    """Remove an empty collection and its definition. ``permit`` is asked as in ``define``.

    Raises ``NotFound``, ``CollectionNotEmpty``, ``CollectionChanging``, ``PlacementMoved``.
    """
    slot = await placements.hold(tx, space)
    collection = await get(tx, space, name)
    if _is_changing(collection):
        raise CollectionChanging(retry_after=1)
    permit(collection)
    if await tx.page(tables.records, {"collection": name}, limit=1):
        raise CollectionNotEmpty
    await record_indexing.tell(tx, space, slot, "collection.deleted", name, terms.actor, terms.at, collections=-1)
    await tx.remove(tables.collections, space.org_id, name)


def _is_changing(collection: Collection) -> bool:
    return bool(collection.pending) or any(index["state"] == DROPPING for index in collection.indexes.values())
