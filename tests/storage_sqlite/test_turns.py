"""Reads of one turn of the event loop share a transaction: never an old one, and never beyond the turn."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orgstead.errors import NotFound, OutcomeUnknown, StorageError
from orgstead.model import Event
from orgstead.storage import open_storage, tables
from orgstead.storage.port import Transaction
from orgstead.storage.sqlite.drive import ForeignAwait
from orgstead.storage.sqlite.engine import SqliteStorage
from orgstead.storage.sqlite.writer import Writer
from tests.storage_sqlite.work import ORG, SYSTEM, add, stored, writer_of

pytestmark = pytest.mark.anyio


def trace(storage: SqliteStorage) -> list[str]:
    """From now on: the statements of the reading connection of this thread, without those that read."""
    statements: list[str] = []

    def note(statement: str) -> None:
        if not statement.startswith("SELECT"):
            statements.append(statement)

    storage._readers.connection().set_trace_callback(note)
    return statements


def from_elsewhere(storage: SqliteStorage, id: str) -> None:
    """A commit that another thread's loop waits for, while the loop of this thread stands still."""

    def write() -> None:
        with suppress(OutcomeUnknown):
            asyncio.run(storage.run(SYSTEM, add, id))

    other = threading.Thread(target=write)
    other.start()
    other.join()


async def get(tx: Transaction, id: str) -> Event:
    return await tx.get(tables.events, ORG, id)


async def test_reads_of_one_turn_share_a_transaction_that_ends_with_it(storage: SqliteStorage) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    await asyncio.sleep(0)
    statements = trace(storage)
    for _ in range(3):
        assert await stored(storage) == ["evt_1"]
        await storage.access("org", "usr", "ses")
    assert statements == ["BEGIN"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert statements == ["BEGIN", "COMMIT"]
    assert not storage._readers.connection().in_transaction


async def test_what_is_committed_within_the_turn_is_seen_by_the_next_read(storage: SqliteStorage) -> None:
    statements = trace(storage)
    for number in range(1, 4):
        from_elsewhere(storage, f"evt_{number}")
        assert len(await stored(storage)) == number
        assert len(await stored(storage)) == number
    assert statements == ["BEGIN", "COMMIT", "BEGIN", "COMMIT", "BEGIN"]


async def test_what_is_committed_is_seen_by_everyone_as_soon_as_anyone_was_told(storage: SqliteStorage) -> None:
    """Writers and readers in several threads: whoever was told of a commit finds it."""
    failures: list[str] = []

    async def write_and_read(name: str) -> None:
        for number in range(50):
            written = await storage.run(SYSTEM, add, f"evt_{name}_{number}")
            try:
                await storage.read(SYSTEM, get, written)
            except NotFound:
                failures.append(written)

    async def several(name: str) -> None:
        await asyncio.gather(*(write_and_read(f"{name}{number}") for number in range(4)))

    threads = [threading.Thread(target=lambda name=name: asyncio.run(several(name))) for name in "abc"]
    for thread in threads:
        thread.start()
    await several("d")
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not failures
    assert len(await storage.scan(SYSTEM, all_ids)) == 4 * 4 * 50


async def all_ids(tx: Transaction) -> list[str]:
    return [row.id for row in await tx.page(tables.events, limit=2000)]


async def test_a_commit_whose_outcome_is_unknown_is_looked_for(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver may report a failure of a commit that has happened."""
    attempts = writer_of(storage).attempts
    await storage.run(SYSTEM, add, "evt_1")
    assert writer_of(storage).attempts == attempts + 1

    class Failing:
        """Commits, and says that it could not."""

        def __init__(self, writer: Writer) -> None:
            self._connection = writer.connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, statement: str, *values: Any) -> Any:
            result = self._connection.execute(statement, *values)
            if statement == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            return result

    monkeypatch.setattr(writer_of(storage), "connection", Failing(writer_of(storage)))
    assert await stored(storage) == ["evt_1"]
    from_elsewhere(storage, "evt_2")
    assert writer_of(storage).attempts == attempts + 2
    assert await stored(storage) == ["evt_1", "evt_2"]


async def test_a_read_that_fails_ends_the_transaction(storage: SqliteStorage) -> None:
    statements = trace(storage)
    with pytest.raises(NotFound):
        await storage.read(SYSTEM, get, "evt_none")
    assert statements == ["BEGIN", "COMMIT"]
    assert await stored(storage) == []


async def test_a_read_within_a_read_is_a_mistake(storage: SqliteStorage) -> None:
    async def twice(tx: Transaction) -> None:
        await storage.access("org", "usr", "ses")

    with pytest.raises(ForeignAwait):
        await storage.read(SYSTEM, twice)
    assert await stored(storage) == []


async def test_without_the_writer_every_read_looks_anew(storage: SqliteStorage, path: Path) -> None:
    """Commits of another process are not counted here."""
    reader = await open_storage(f"sqlite:///{path}", writable=False)
    assert isinstance(reader, SqliteStorage)
    for number in range(1, 4):
        from_elsewhere(storage, f"evt_{number}")
        assert len(await stored(reader)) == number
    await reader.close()


async def test_reads_do_not_keep_the_log_from_beginning_anew(storage: SqliteStorage, path: Path) -> None:
    """A loop that reads in every turn lets go of the file between them."""
    stop = asyncio.Event()

    async def keep_reading() -> None:
        while not stop.is_set():
            await storage.access("org", "usr", "ses")
            await asyncio.sleep(0)

    reading = [asyncio.create_task(keep_reading()) for _ in range(4)]
    try:
        for number in range(600):
            await storage.run(SYSTEM, add, f"evt_{number}", "x" * 60_000)
    finally:
        stop.set()
        await asyncio.gather(*reading)
    assert path.with_name("main.db-wal").stat().st_size < 24 * 1024 * 1024


async def test_closing_while_reads_are_under_way(path: Path) -> None:
    """In every thread, at any moment: who reads then is told, and the process lives."""
    for _ in range(20):
        storage = await open_storage(f"sqlite:///{path}")
        assert isinstance(storage, SqliteStorage)
        await storage.migrate()
        reading = threading.Event()

        async def keep_reading(storage: SqliteStorage = storage, reading: threading.Event = reading) -> None:
            while True:
                await storage.access("org", "usr", "ses")
                reading.set()
                await asyncio.sleep(0)

        told: list[BaseException] = []

        def read_on(told: list[BaseException] = told) -> None:
            try:
                asyncio.run(keep_reading())
            except StorageError as error:
                told.append(error)

        other = threading.Thread(target=read_on)
        other.start()
        await asyncio.to_thread(reading.wait)
        assert await stored(storage) == []
        await storage.close()
        await asyncio.to_thread(other.join)
        assert told
        with pytest.raises(StorageError):
            await stored(storage)
