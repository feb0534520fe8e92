"""How many commands the server is sent: each costs a round trip."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orgstead.model import Access, SlotState
from orgstead.storage.mongodb.engine import MongoStorage
from orgstead.storage.port import OrgScope, Space, Transaction
from orgstead.storage.tables import memberships, operations, organizations, records, slots, users
from tests.contract.work import do, look
from tests.engines import Database
from tests.rows import MORNING, org_id, sample
from tests.storage_mongodb.work import SYSTEM, Commands, dedicated, opened, pooled, with_snapshot_reads


async def test_access_is_one_command(database: Database) -> None:
    commands = Commands()
    async with opened(with_snapshot_reads(database.url), commands) as storage:
        await storage.access("org", "usr", "ses")
        assert commands.names == ["aggregate"]
        (sent,) = commands.sent
        assert sent["readConcern"]["level"] == "snapshot"
        assert "txnNumber" not in sent


async def test_access_of_all_who_ask_at_once_is_one_command(storage: MongoStorage, commands: Commands) -> None:
    await storage.access("org", "usr", "ses")
    commands.forget()
    await asyncio.gather(*(storage.access(org_id(), "usr", "ses") for _ in range(100)))
    assert commands.names.count("aggregate") == 1


async def test_a_document_that_cannot_be_read_fails_its_own_caller_only(storage: MongoStorage) -> None:
    """A newer version may have written it, while processes of both are at work."""
    rows = [sample(organizations, org_id()) for _ in range(2)]
    await storage.run(SYSTEM, lambda tx: tx.add_many(organizations, rows))
    collection = storage._server.directory[organizations.name]
    await collection.update_one({"_id": rows[0].id}, {"$set": {"status": "weird"}})
    weird, sound = await asyncio.gather(*(storage.access(row.id, "usr", "ses") for row in rows), return_exceptions=True)
    assert isinstance(weird, Exception)
    assert sound == Access(rows[1], None, None, None, None)


async def test_reads_are_one_command_for_each_verb_and_of_one_moment(database: Database) -> None:
    commands = Commands()
    org = org_id()
    async with opened(with_snapshot_reads(database.url), commands) as storage:
        await storage.run(OrgScope(org), _members, org, 3)

        async def work(tx: Transaction) -> int:
            await tx.find(organizations, id=org)
            await tx.find_many(memberships, [(org, str(number)) for number in range(1000)])
            (counted,) = await tx.aggregate(memberships)
            return len(await tx.page(memberships, limit=1000)) + int(counted["count"])

        commands.forget()
        assert await storage.read(OrgScope(org), work) == 6
        assert commands.names == ["find", "find", "aggregate", "find"]
        moments = [sent["readConcern"].get("atClusterTime") for sent in commands.sent]
        assert moments[0] is None
        assert moments[1] is not None
        assert len(set(moments[1:])) == 1


async def test_where_snapshots_are_not_kept_to_reads_are_transactions(
    storage: MongoStorage, commands: Commands
) -> None:
    await look(storage, SYSTEM, "find", users, id="none")
    assert commands.names in (["find", "commitTransaction"], ["find"])


@pytest.mark.parametrize("space", [pooled(), dedicated()], ids=["pooled", "dedicated"])
async def test_a_write_is_one_command_for_each_verb_and_the_commit(
    storage: MongoStorage, commands: Commands, space: Space
) -> None:
    """The first verb begins the transaction; a space that was entered by its slot is asked for nothing more."""
    await storage.create_space(space)
    row = sample(records, space.org_id)

    async def put(tx: Transaction) -> None:
        assert await tx.adjust(slots, space.org_id, 1, 0, deltas={"records": 1}, where={"state": SlotState.OPEN})
        await tx.add(records, row)
        await tx.replace(records, row)
        await tx.take(records, org_id=space.org_id, collection=row.collection, id=row.id)

    commands.forget()
    await storage.run(space, put)
    assert commands.names == ["findAndModify", "insert", "findAndModify", "findAndModify", "commitTransaction"]
    assert [bool(sent.get("startTransaction")) for sent in commands.sent] == [True, False, False, False, False]
    assert commands.sent[0]["readConcern"]["level"] == "snapshot"
    assert commands.sent[-1]["writeConcern"] == {"w": "majority", "j": True}


async def test_many_rows_are_one_command(storage: MongoStorage, commands: Commands) -> None:
    org = org_id()

    async def many(tx: Transaction) -> None:
        rows = [sample(memberships, org) for _ in range(300)]
        await tx.add_many(memberships, rows)
        await tx.replace_many(memberships, rows)
        await tx.remove_many(memberships, [(row.org_id, row.user_id) for row in rows])

    await storage.run(OrgScope(org), many)
    assert commands.names == ["insert", "update", "delete", "commitTransaction"]


async def test_rows_of_several_tables_are_one_command_for_each(storage: MongoStorage, commands: Commands) -> None:
    org = org_id()
    some, one = [sample(memberships, org) for _ in range(300)], [sample(operations, org)]
    await do(storage, OrgScope(org), "add_all", [(operations, one), (memberships, some), (organizations, [])])
    assert commands.names == ["insert", "insert", "commitTransaction"]


async def test_claiming_is_two_commands(storage: MongoStorage, commands: Commands) -> None:
    org = org_id()
    for _ in range(3):
        await do(storage, OrgScope(org), "add", operations, sample(operations, org, lease_until=MORNING))
    commands.forget()
    lease: dict[str, Any] = {"due": MORNING, "until": MORNING, "owner": "me", "limit": 9}
    assert len(await do(storage, SYSTEM, "claim", operations, {}, **lease)) == 3
    assert commands.names == ["find", "update", "commitTransaction"]


async def test_work_that_asks_nothing_sends_nothing(storage: MongoStorage, commands: Commands) -> None:
    async def nothing(tx: Transaction) -> int:
        return 42

    assert await storage.run(SYSTEM, nothing) == 42
    assert await storage.read(SYSTEM, nothing) == 42
    assert commands.names == []


async def _members(tx: Transaction, org: str, count: int) -> None:
    await tx.add_many(memberships, [sample(memberships, org) for _ in range(count)])
