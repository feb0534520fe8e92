"""Dedicated spaces as collections: what an operator sees, and what a writer who comes late finds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orgstead import kit
from orgstead.errors import NotFound, PlacementMoved
from orgstead.model import PlacementKind
from orgstead.storage.mongodb.engine import MongoStorage
from orgstead.storage.port import Space, Transaction
from orgstead.storage.tables import record_events, records, slots
from tests.contract.work import do, enter, rows_of, slots_of, store
from tests.engines import Database
from tests.rows import sample
from tests.storage_mongodb.work import Commands, dedicated, server_of


async def collections(database: Database) -> set[str]:
    """The dedicated spaces' collections in the data database."""
    async with server_of(database.url) as server:
        return {name for name in await server.data.list_collection_names() if name.startswith("org_")}


async def test_a_space_is_one_collection_that_is_renamed_and_dropped(
    database: Database, storage: MongoStorage, commands: Commands
) -> None:
    """As the brief has it: ``org_acme``, then ``org_acme-labs``, then nothing; slots and records go together."""
    space = dedicated("org_acme")
    await storage.create_space(space)
    await storage.run(space, store, space, 3)
    assert await collections(database) == {"org_acme"}
    await storage.close_space(space)
    commands.forget()
    await storage.rename_space(space, "org_acme-labs")
    assert commands.names.count("renameCollection") == 1
    assert await collections(database) == {"org_acme-labs"}
    renamed = replace(space, name="org_acme-labs", epoch=2)
    await storage.open_space(renamed)
    assert len(await rows_of(storage, renamed, records)) == 3
    await storage.drop_space(renamed)
    assert await collections(database) == set()


async def test_documents_of_a_space_can_be_read_by_people(database: Database, storage: MongoStorage) -> None:
    space = dedicated()
    await storage.create_space(space)
    data = {"name": "Acme", "a.b": {"$x": [1, 2.5, None, {"": True}]}, "50%": 1}
    row = sample(records, space.org_id, collection="notes", id="1", data=data)
    await do(storage, space, "add", records, row)
    async with server_of(database.url) as server:
        found = await server.data["org_acme"].find_one({"org_id": space.org_id, "collection": "notes", "id": "1"})
        slot = await server.data["org_acme"].find_one({"epoch": 1})
    assert found is not None
    assert slot is not None
    assert found["_id"] == f"records\0{space.org_id}\0notes\x001"
    assert found["data"] == {"name": "Acme", "a%2Eb": {"%24x": [1, 2.5, None, {"%": True}]}, "50%25": 1}
    assert found["created_at"] == row.created_at
    assert slot["state"] == "open"


async def test_a_paused_writer_finds_the_old_collection_gone_and_makes_none(
    database: Database, storage: MongoStorage
) -> None:
    """The fence (R53, P14): paused with its old placement, it is renamed under it, resumed, and writes nothing."""
    space = dedicated("org_before")
    await storage.create_space(space)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def paused(tx: Transaction, fenced: bool) -> None:
        began.set()
        await go_on.wait()
        if fenced:
            await store(tx, space)
        else:
            await tx.add(records, sample(records, space.org_id))

    writers = [asyncio.create_task(storage.run(space, paused, fenced)) for fenced in (True, False)]
    await began.wait()
    await storage.close_space(space)
    await storage.rename_space(space, "org_after")
    after = replace(space, name="org_after", epoch=2)
    await storage.open_space(after)
    go_on.set()
    for outcome in await asyncio.gather(*writers, return_exceptions=True):
        assert isinstance(outcome, PlacementMoved)
    assert await collections(database) == {"org_after"}
    assert await rows_of(storage, after, records) == []
    assert (await slots_of(storage, after))[2, 0].records == 0


@pytest.mark.parametrize("fenced", [True, False])
async def test_closing_waits_for_a_writer_that_is_inside(
    database: Database, storage: MongoStorage, fenced: bool
) -> None:
    """Whoever has written a slot holds the space; also who adds without the fence writes one first."""
    space = dedicated("org_before")
    await storage.create_space(space)
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(tx: Transaction) -> None:
        if fenced:
            assert await enter(tx, space)
        await tx.add(records, sample(records, space.org_id))
        inside.set()
        await go_on.wait()
        await tx.add(records, sample(records, space.org_id))

    writer = asyncio.create_task(storage.run(space, slow))
    await inside.wait()
    closing = asyncio.create_task(storage.close_space(space))
    done, _ = await asyncio.wait([closing], timeout=0.2)
    assert not done, "closed while a writer was inside"
    go_on.set()
    await writer
    await closing
    await storage.rename_space(space, "org_after")
    assert len(await rows_of(storage, replace(space, name="org_after"), records)) == 2
    assert await collections(database) == {"org_after"}


@pytest.mark.parametrize("gone", ["never made", "renamed", "dropped"])
@pytest.mark.parametrize(
    "verb", ["add", "add_all", "add_many", "replace", "replace_many", "adjust", "lock", "remove", "take"]
)
async def test_no_verb_makes_a_collection(database: Database, storage: MongoStorage, gone: str, verb: str) -> None:
    """An insert into a missing collection would make it, without an error; nothing of ours does."""
    space = dedicated("org_gone")
    if gone != "never made":
        await storage.create_space(space)
        await storage.close_space(space)
    if gone == "renamed":
        await storage.rename_space(space, "org_elsewhere")
    elif gone == "dropped":
        await storage.drop_space(space)
    before = await collections(database)
    row = sample(records, space.org_id)
    key = (row.org_id, row.collection, row.id)

    async def work(tx: Transaction) -> None:
        if verb in ("add", "replace"):
            await getattr(tx, verb)(records, row)
        elif verb == "add_all":
            await tx.add_all([(record_events, []), (records, [row])])
        elif verb.endswith("many"):
            await getattr(tx, verb)(records, [row, sample(records, space.org_id)])
        elif verb == "adjust":
            assert not await tx.adjust(slots, space.org_id, 1, 0, deltas={"records": 1})
        elif verb == "take":
            assert await tx.take(records, org_id=key[0], collection=key[1], id=key[2]) is None
        else:
            await getattr(tx, verb)(records, *key)

    (outcome,) = await asyncio.gather(storage.run(space, work), return_exceptions=True)
    assert outcome is None or isinstance(outcome, (NotFound, PlacementMoved))
    assert await collections(database) == before


async def test_many_spaces_are_made_in_few_commands(storage: MongoStorage, commands: Commands) -> None:
    spaces = [Space(kit.new_id("org"), PlacementKind.POOLED, None, 1) for _ in range(200)]
    await storage.create_spaces(spaces)
    assert len(commands.names) <= 5
    assert len(await storage.spaces()) == 200
