"""Spaces: an organization's data as documents of the pooled collections, or as one collection of its own.

A dedicated space is the collection ``org_{slug}`` of the data database, with its slots inside it, so that fence and
data are renamed and dropped together. Each function looks first at what is there, so that it may be repeated.
"""

from __future__ import annotations

import re
from asyncio import gather
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import OperationFailure

from orgstead.errors import SpaceMismatch
from orgstead.model import PlacementKind, Slot, SlotState
from orgstead.storage import space_names, tables
from orgstead.storage.mongodb import failures, schema
from orgstead.storage.mongodb.client import Collection, Server
from orgstead.storage.mongodb.documents import Document, Layout, layout_of
from orgstead.storage.mongodb.units import Units
from orgstead.storage.port import FoundSpace, Space

_DEDICATED_MARK, _POOLED_MARK = "d:", "p:"
_AT_ONCE = 16
"""Collections that are made or looked at side by side."""

_DEDICATED = layout_of(tables.slots, shared=True)
_POOLED = layout_of(tables.slots)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of a slot: whose it is, of which epoch, and in which state."""

    org_id: str
    epoch: int
    state: str


def is_dedicated(space: Space) -> bool:
    return space_names.name_of(space) is not None


def _slots(server: Server, space: Space) -> tuple[Layout[Slot], Collection]:
    name = space_names.name_of(space)
    if name is None:
        return _POOLED, server.data[tables.slots.name]
    return _DEDICATED, server.data[name]


def _of_organization(layout: Layout[Slot], org_id: str) -> Document:
    return {"_id": layout.range([org_id])}


def _of_epoch(layout: Layout[Slot], space: Space) -> Document:
    return {"_id": layout.range([space.org_id, space.epoch])}


async def _kept(server: Server, space: Space, session: AsyncClientSession | None = None) -> list[_Kept]:
    """The slots of the space's organization, in a dedicated space those of everybody."""
    layout, collection = _slots(server, space)
    wanted = {"_id": layout.range([])} if is_dedicated(space) else _of_organization(layout, space.org_id)
    found = collection.find(wanted, {"org_id": 1, "epoch": 1, "state": 1}, sort=[("_id", 1)], session=session)
    return [_Kept(slot["org_id"], slot["epoch"], slot["state"]) for slot in await found.to_list()]


def _refuse_others(space: Space, kept: Sequence[_Kept]) -> None:
    """Raise ``SpaceMismatch`` over another organization's slots, or this one's under a later epoch."""
    if any(slot.org_id != space.org_id or slot.epoch > space.epoch for slot in kept):
        raise SpaceMismatch


# --- create, close, open ----------------------------------------------------------------------------------------------


async def create(units: Units, server: Server, spaces: Sequence[Space], slots: int) -> None:
    """``Storage.create_space`` and ``create_spaces``: nothing is made before all of them can be."""
    dedicated = [space for space in spaces if is_dedicated(space)]
    pooled = [space for space in spaces if not is_dedicated(space)]
    for some in _in_parts(dedicated):
        for space, kept in zip(some, await gather(*(_kept(server, space) for space in some)), strict=True):
            _refuse_others(space, kept)
    if dedicated:
        await _refuse_pooled(server, pooled, None)
    layouts = [layout_of(table, shared=True) for table in tables.SPACE]
    for some in _in_parts(dedicated):
        await gather(*(schema.create(server.data, space.name or "", *layouts) for space in some))

    async def attempt(session: AsyncClientSession) -> None:
        for space in dedicated:
            _refuse_others(space, await _kept(server, space, session))
            await _add_slots(server, [space], slots, session)
        await _refuse_pooled(server, pooled, session)
        await _add_slots(server, pooled, slots, session)

    await units.write(attempt)


def _in_parts(spaces: Sequence[Space]) -> Iterator[Sequence[Space]]:
    for start in range(0, len(spaces), _AT_ONCE):
        yield spaces[start : start + _AT_ONCE]


async def _refuse_pooled(server: Server, spaces: Sequence[Space], session: AsyncClientSession | None) -> None:
    """``_refuse_others`` for any number of pooled spaces, in one command."""
    if not spaces:
        return
    later = [_POOLED.between([space.org_id, space.epoch], [space.org_id]) for space in spaces]
    wanted: Document = {"$or": [{"_id": bounds} for bounds in later]}
    if await server.data[tables.slots.name].find_one(wanted, {"_id": 1}, session=session) is not None:
        raise SpaceMismatch


async def _add_slots(server: Server, spaces: Sequence[Space], count: int, session: AsyncClientSession) -> None:
    """Add those of the open slots that are missing; the spaces are in one collection."""
    if not spaces:
        return
    layout, collection = _slots(server, spaces[0])
    rows = [
        Slot(org_id=space.org_id, epoch=space.epoch, slot=number, state=SlotState.OPEN)
        for space in spaces
        for number in range(count)
    ]
    wanted = {document["_id"]: document for document in map(layout.document, rows)}
    found = collection.find({"_id": {"$in": list(wanted)}}, {"_id": 1}, batch_size=len(wanted) + 1, session=session)
    for document in await found.to_list():
        del wanted[document["_id"]]
    if wanted:
        await collection.insert_many(wanted.values(), session=session)


async def close(server: Server, space: Space) -> None:
    """``Storage.close_space``, outside of any transaction: each write waits for whoever has written the slot.

    Inside of one it would conflict with every writer at once, and starve.
    """
    layout, collection = _slots(server, space)
    still = {**_of_epoch(layout, space), "state": {"$ne": SlotState.CLOSED.value}}
    change = {"$set": {"state": SlotState.CLOSED.value}}
    while await collection.find_one_and_update(still, change, {"_id": 1}, sort=[("_id", 1)]) is not None:
        pass


async def open_again(units: Units, server: Server, space: Space) -> None:
    """``Storage.open_space``. Raises ``SpaceMismatch`` where there is nothing that could be opened."""
    layout, collection = _slots(server, space)

    async def attempt(session: AsyncClientSession) -> None:
        kept = [slot for slot in await _kept(server, space, session) if slot.org_id == space.org_id]
        epochs = {slot.epoch for slot in kept}
        if space.epoch not in epochs:
            busy = any(slot.state != SlotState.CLOSED.value for slot in kept)
            if not kept or busy or max(epochs) > space.epoch:
                raise SpaceMismatch
            await _carry_over(layout, collection, space, max(epochs), session)
            return
        await collection.update_many(
            _of_epoch(layout, space), {"$set": {"state": SlotState.OPEN.value}}, session=session
        )

    await units.write(attempt)


async def _carry_over(
    layout: Layout[Slot], collection: Collection, space: Space, epoch: int, session: AsyncClientSession
) -> None:
    """Put the counters of the closed slots of ``epoch`` into open ones of the space's epoch, and remove all earlier."""
    wanted = _of_organization(layout, space.org_id)
    slots = [layout.row(document) for document in await collection.find(wanted, session=session).to_list()]
    await collection.delete_many(wanted, session=session)
    carried = [replace(slot, epoch=space.epoch, state=SlotState.OPEN) for slot in slots if slot.epoch == epoch]
    await collection.insert_many([layout.document(slot) for slot in carried], session=session)


# --- rename, drop -----------------------------------------------------------------------------------------------------


async def rename(server: Server, space: Space, name: str) -> None:
    """``Storage.rename_space``, by one ``renameCollection``; what the catalogue says afterwards is what happened."""
    space_names.require_valid(name)
    if not is_dedicated(space):
        raise SpaceMismatch("A pooled space has no name of its own.")
    target = Space(space.org_id, space.kind, name, space.epoch)
    names = await _present(server, space.name, name)
    if name == space.name and name in names:
        return
    if (space.name in names) == (name in names):
        raise SpaceMismatch
    _refuse_others(space, await _kept(server, target if name in names else space))
    if name in names:
        return
    data = server.data.name
    try:
        await server.client.admin.command({"renameCollection": f"{data}.{space.name}", "to": f"{data}.{name}"})
    except OperationFailure as error:
        raced = failures.has_code(error, failures.NAMESPACE_NOT_FOUND, failures.NAMESPACE_EXISTS)
        if not raced or await _present(server, space.name, name) != {name}:
            raise


async def _present(server: Server, *names: str | None) -> set[str]:
    """Which of these collections are there."""
    return set(await server.data.list_collection_names(filter={"name": {"$in": [*names]}}))


async def drop(server: Server, space: Space, batch: int) -> dict[str, int] | None:
    """``Storage.drop_space``: a dedicated space at once, a pooled one ``batch`` documents at a time, its slots last."""
    if is_dedicated(space) and not await _present(server, space.name):
        return None
    _refuse_others(space, await _kept(server, space))
    await close(server, space)  # what is being removed takes no more writes
    return await (_drop_collection(server, space) if is_dedicated(space) else _drop_documents(server, space, batch))


async def _drop_collection(server: Server, space: Space) -> dict[str, int]:
    collection = server.data[space.name or ""]
    removed: dict[str, int] = {}
    for table in tables.SPACE:
        layout = layout_of(table, shared=True)
        removed[table.name] = await collection.count_documents({"_id": layout.range([])})
    await collection.drop()
    return removed


async def _drop_documents(server: Server, space: Space, batch: int) -> dict[str, int] | None:
    removed: dict[str, int] = {}
    left = batch
    for table in sorted(tables.SPACE, key=lambda table: table is tables.slots):
        layout, collection = layout_of(table), server.data[table.name]
        everything = layout.range([space.org_id])
        removed[table.name] = 0
        if left == 0:
            continue
        ids = await collection.find(
            {"_id": everything}, {"_id": 1}, sort=[("_id", 1)], limit=left, batch_size=left
        ).to_list()
        if ids:
            upto = {"_id": {"$gte": ids[0]["_id"], "$lte": ids[-1]["_id"]}}
            removed[table.name] = (await collection.delete_many(upto)).deleted_count
        left -= removed[table.name]
    return removed if left < batch else None


# --- list -------------------------------------------------------------------------------------------------------------


async def found(server: Server, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    """``Storage.spaces``: the dedicated ones by name (marks ``d:name``), then the pooled ones (``p:org_id``)."""
    if limit < 1:
        return []
    spaces: list[tuple[str, FoundSpace]] = []
    if not after.startswith(_POOLED_MARK):
        spaces = await _dedicated(server, after.removeprefix(_DEDICATED_MARK), limit)
        after = ""
    return spaces + await _pooled(server, after.removeprefix(_POOLED_MARK), limit - len(spaces))


async def _dedicated(server: Server, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    names = sorted(name for name in await _all_dedicated(server) if name > after)[:limit]
    spaces: list[tuple[str, FoundSpace]] = []
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        places = [Space("", PlacementKind.DEDICATED, name, 0) for name in some]
        for name, kept in zip(some, await gather(*(_kept(server, place) for place in places)), strict=True):
            org_id = kept[0].org_id if kept else None
            epochs = tuple(dict.fromkeys(slot.epoch for slot in kept))
            spaces.append((_DEDICATED_MARK + name, FoundSpace(org_id, PlacementKind.DEDICATED, name, epochs)))
    return spaces


async def _pooled(server: Server, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    if limit < 1:
        return []
    beyond = {"_id": {"$gte": _POOLED.range([after])["$lt"]}} if after else {}
    listed = server.data[tables.slots.name].find(
        beyond, {"org_id": 1, "epoch": 1}, sort=[("_id", 1)], batch_size=limit + 1
    )
    epochs: dict[str, list[int]] = {}
    async for document in listed:
        org_id, epoch = document["org_id"], document["epoch"]
        if org_id not in epochs and len(epochs) == limit:
            break
        kept = epochs.setdefault(org_id, [])
        if epoch not in kept:
            kept.append(epoch)
    return [
        (_POOLED_MARK + org_id, FoundSpace(org_id, PlacementKind.POOLED, None, tuple(kept)))
        for org_id, kept in epochs.items()
    ]


async def _all_dedicated(server: Server) -> list[str]:
    pattern = re.compile("^org_")
    names = await server.data.list_collection_names(filter={"name": {"$regex": pattern}})
    return [name for name in names if space_names.is_valid(name)]


async def count_dedicated(server: Server) -> int:
    """How many spaces have a collection of their own."""
    return len(await _all_dedicated(server))
