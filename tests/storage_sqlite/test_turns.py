"""Reads of one turn of the event loop share a transaction: never an old one, and never beyond the turn."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orgstead.errors import NotFound, OutcomeUnknown, StorageError
from orgstead.model import Access, Event
from orgstead.storage import open_storage, tables
from orgstead.storage.port import Transaction
from orgstead.storage.sqlite import writer
from orgstead.storage.sqlite.drive import ForeignAwait
from orgstead.storage.sqlite.engine import SqliteStorage
from tests.storage_sqlite.work import ORG, SYSTEM, FailingCommit, add, ids, stored, writer_of

pytestmark = pytest.mark.anyio

T = TypeVar("T")


def trace(storage: SqliteStorage) -> list[str]:
    """From now on: the statements of the reading connection of this thread, without those that read rows."""
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
    assert statements == ["BEGIN", "PRAGMA data_version"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert statements == ["BEGIN", "PRAGMA data_version", "COMMIT"]
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

    failing = FailingCommit(writer_of(storage).connection, committed=True)
    monkeypatch.setattr(writer_of(storage), "connection", failing)
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


async def test_a_commit_during_a_read_is_seen_by_the_next(storage: SqliteStorage) -> None:
    async def meanwhile(tx: Transaction) -> list[str]:
        before = await ids(tx)
        from_elsewhere(storage, "evt_1")
        return before + await ids(tx)

    assert await storage.read(SYSTEM, meanwhile) == []
    assert await stored(storage) == ["evt_1"]


async def test_a_commit_is_counted_before_anybody_is_told(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver, before, seen = writer._deliver, writer_of(storage).attempts, []

    def delivered(outcomes: list[Any]) -> None:
        seen.append(writer_of(storage).attempts)
        deliver(outcomes)

    monkeypatch.setattr(writer, "_deliver", delivered)
    await storage.run(SYSTEM, add, "evt_1")
    assert seen == [before + 1]


async def test_reads_without_a_pause_do_not_keep_the_log_from_beginning_anew(
    storage: SqliteStorage, path: Path
) -> None:
    """A loop that nearly always has a transaction under way lets go of the file for longer once the log is long."""
    stop = asyncio.Event()

    async def keep_reading() -> None:
        while not stop.is_set():
            for _ in range(2):
                await storage.access("org", "usr", "ses")
                sum(range(1000))  # what is done with it
            await asyncio.sleep(0)

    reading = [asyncio.create_task(keep_reading()) for _ in range(64)]
    numbers = iter(range(1200))

    async def keep_writing() -> None:
        for number in numbers:
            await storage.run(SYSTEM, add, f"evt_{number}", "x" * 60_000)

    try:
        await asyncio.gather(*(keep_writing() for _ in range(8)))
    finally:
        stop.set()
        await asyncio.gather(*reading)
    assert path.with_name("main.db-wal").stat().st_size < 32 * 1024 * 1024


def read_and_break_off(storage: SqliteStorage) -> None:
    """A loop of its own, which ends in the middle of the turn that reads."""
    loop = asyncio.new_event_loop()

    async def read() -> None:
        await storage.access("org", "usr", "ses")
        loop.stop()

    task = loop.create_task(read())
    loop.run_forever()
    assert storage._readers.connection().in_transaction
    assert task.done()
    loop.close()


def in_a_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


async def test_a_loop_that_ends_within_its_turn_leaves_nothing_to_the_next(storage: SqliteStorage) -> None:
    def work() -> list[bool]:
        read_and_break_off(storage)
        connection = storage._readers.connection()
        asyncio.run(_read_and_wait(storage))
        return [connection.in_transaction]

    assert in_a_thread(work) == [False]


async def _read_and_wait(storage: SqliteStorage) -> None:
    await storage.access("org", "usr", "ses")
    await asyncio.sleep(0)


async def test_a_loop_that_is_gone_leaves_no_transaction(storage: SqliteStorage) -> None:
    """Also where its thread never reads again."""

    def work() -> sqlite3.Connection:
        read_and_break_off(storage)
        return storage._readers.connection()

    connection = in_a_thread(work)
    gc.collect()
    assert not connection.in_transaction


async def test_a_first_read_while_the_storage_closes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is known to whoever closes before anything is done with it."""
    storage = await open_storage(f"sqlite:///{path}")
    assert isinstance(storage, SqliteStorage)
    await storage.migrate()
    connecting, connect = threading.Event(), storage._readers.connection

    def slowly() -> sqlite3.Connection:
        connection = connect()
        connecting.set()
        closing.wait(0.2)  # as long as closing could do harm, were it not to wait
        return connection

    closing = threading.Event()
    monkeypatch.setattr(storage._readers, "connection", slowly)
    reading = asyncio.create_task(asyncio.to_thread(asyncio.run, storage.access("org", "usr", "ses")))
    await asyncio.to_thread(connecting.wait)
    await storage.close()
    closing.set()
    (outcome,) = await asyncio.gather(reading, return_exceptions=True)
    assert isinstance(outcome, (Access, StorageError))


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

        reads = asyncio.create_task(asyncio.to_thread(asyncio.run, keep_reading()))
        await asyncio.to_thread(reading.wait)
        assert await stored(storage) == []
        await storage.close()
        for late in (reads, stored(storage)):
            with pytest.raises(StorageError, match="closed"):
                await late
