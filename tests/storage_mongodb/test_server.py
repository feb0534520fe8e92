"""Which servers are served: replica sets and sharded clusters that are new enough, and databases of ours."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from orgstead.api import management
from orgstead.app import App
from orgstead.errors import ConfigurationError, StorageError, StorageReadOnly
from orgstead.settings import Settings
from orgstead.storage import open_storage
from orgstead.storage.mongodb import schema
from orgstead.storage.mongodb.engine import MongoStorage
from orgstead.storage.port import Transaction
from orgstead.storage.tables import TABLES
from tests.contract.work import do
from tests.engines import Database
from tests.rows import sample
from tests.servers import EngineUnavailable, mongodb
from tests.storage_mongodb.work import SYSTEM, dedicated, failing, opened, server_of

PATIENCE = 60
"""Seconds within which anything must be told."""


async def test_a_standalone_is_refused_with_what_to_do() -> None:
    try:
        with mongodb.secantusdb("--standalone") as uri:
            async with opened(f"{uri}orgstead") as storage:
                for refused in (storage.check, storage.migrate):
                    with pytest.raises(ConfigurationError, match="standalone") as raised:
                        await refused()
                    assert "--replSet" in (raised.value.next or "")
    except EngineUnavailable as error:
        pytest.skip(str(error))


async def test_a_server_that_is_too_old_is_refused(storage: MongoStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    await storage.check()
    monkeypatch.setattr(schema, "OLDEST", (99, 0))
    with pytest.raises(ConfigurationError, match="too old") as raised:
        await storage.check()
    assert "99.0" in (raised.value.next or "")


async def test_a_secondary_that_is_asked_directly_takes_no_writes(
    database: Database, storage: MongoStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then does the driver send anything to a server that is not the primary."""
    told = AsyncDatabase.command

    async def as_secondary(self: AsyncDatabase[Any], command: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await told(self, command, *args, **kwargs)
        return {**answer, "isWritablePrimary": False, "secondary": True} if command == "hello" else answer

    await storage.check()
    monkeypatch.setattr(AsyncDatabase, "command", as_secondary)
    for refused in (storage.check, storage.migrate):
        with pytest.raises(StorageReadOnly, match="no primary"):
            await refused()
    assert await management.unready(App(Settings(), storage)) == "storage.read_only"
    reader = await open_storage(database.url, writable=False)
    await reader.check()
    await reader.close()


async def test_a_database_of_another_program_is_left_alone(database: Database) -> None:
    async with server_of(database.url) as server:
        for name in await server.directory.list_collection_names():
            await server.directory.drop_collection(name)
        await server.directory["their_things"].insert_one({"x": 1})
        async with opened(database.url) as storage:
            for refused in (storage.check, storage.migrate):
                with pytest.raises(ConfigurationError, match="another program"):
                    await refused()
        assert await server.directory.list_collection_names() == ["their_things"]
        await server.directory.drop_collection("their_things")


async def test_a_server_that_does_not_answer_is_unavailable() -> None:
    """Also to what may take minutes once there is a server: it is not waited for as long."""
    url = "mongodb://127.0.0.1:9/orgstead?serverSelectionTimeoutMS=200"
    async with opened(url) as storage:
        for asked in (
            storage.check,
            storage.migrate,
            storage.spaces,
            partial(storage.create_space, dedicated()),
            partial(storage.examine, processes=1),
            lambda: storage.scan(SYSTEM, _page),
        ):
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(StorageError):
                    await asked()


async def _page(tx: Transaction) -> Any:
    return await tx.page(TABLES[0], limit=1)


@pytest.mark.parametrize(("code", "what"), [(13, "grant it readWrite on"), (18, "correct them")])
async def test_who_is_not_let_in_is_told_what_is_missing(
    database: Database, storage: MongoStorage, code: int, what: str
) -> None:
    """Exactly the rights that docs/operating.md gives."""
    async with failing(database.url, "find", 10, errorCode=code):
        for refused in (storage.check, storage.migrate):
            with pytest.raises(ConfigurationError) as raised:
                await refused()
            assert what in (raised.value.next or "")
            assert "dbAdmin" not in (raised.value.next or "")


async def test_there_is_no_backup_of_ours(storage: MongoStorage) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await storage.backup("anywhere")
    assert "mongodump" in (raised.value.next or "")


async def test_opened_for_reading_it_writes_nothing(database: Database) -> None:
    storage = await open_storage(database.url, writable=False)
    try:
        await storage.check()
        for step in (
            do(storage, SYSTEM, "add", TABLES[0], sample(TABLES[0])),
            storage.create_space(dedicated()),
            storage.migrate(),
        ):
            with pytest.raises(StorageReadOnly):
                await step
        assert await storage.spaces() == []
    finally:
        await storage.close()


async def test_nothing_expires_by_itself_and_space_indexes_begin_with_the_organization(
    database: Database, storage: MongoStorage
) -> None:
    """No TTL index anywhere: what expires is removed by the worker, whose clock can be set."""
    await storage.create_space(dedicated())
    async with server_of(database.url) as server:
        for part in (server.directory, server.data):
            for name in await part.list_collection_names():
                for index in (await part[name].index_information()).values():
                    assert "expireAfterSeconds" not in index, name
                    assert "collation" not in index, name
        for table in (table for table in TABLES if table.unique):
            there = await server.directory[table.name].index_information()
            assert {name for name, index in there.items() if index.get("unique")} == set(table.unique or {})
