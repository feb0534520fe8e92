"""Group commit: one commit for many units, and each of them whole or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from orgstead.errors import (
    AlreadyExists,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    StorageBusy,
    StorageError,
    StorageFull,
    TransactionEnded,
)
from orgstead.storage import open_storage, tables
from orgstead.storage.port import Transaction
from orgstead.storage.sqlite.drive import ForeignAwait
from orgstead.storage.sqlite.engine import SqliteStorage
from orgstead.storage.sqlite.writer import MAX_QUEUED
from tests.storage_sqlite.work import ORG, SYSTEM, FailingCommit, add, ids, paused, stored, submitted, writer_of

pytestmark = pytest.mark.anyio


def recorded(storage: SqliteStorage) -> list[str]:
    """From now on: every statement that the writing connection runs."""
    statements: list[str] = []
    writer_of(storage).connection.set_trace_callback(statements.append)
    return statements


async def test_units_that_wait_together_share_one_commit(storage: SqliteStorage) -> None:
    statements = recorded(storage)
    async with paused(storage):
        tasks = await submitted(*(storage.run(SYSTEM, add, f"evt_{n:03d}") for n in range(100)))
    assert await asyncio.gather(*tasks) == [f"evt_{n:03d}" for n in range(100)]
    assert statements.count("COMMIT") == 1
    assert len(await stored(storage)) == 100


async def test_nobody_hears_of_success_before_the_commit(storage: SqliteStorage) -> None:
    order: list[str] = []
    writer_of(storage).connection.set_trace_callback(order.append)

    async def tell(n: int) -> None:
        await storage.run(SYSTEM, add, f"evt_{n}")
        order.append("told")

    async with paused(storage):
        tasks = await submitted(tell(1), tell(2))
    await asyncio.gather(*tasks)
    assert order.index("COMMIT") < order.index("told")


async def test_a_failing_unit_leaves_its_neighbours_alone(storage: SqliteStorage) -> None:
    async def fail(tx: Transaction) -> None:
        await add(tx, "evt_lost")
        raise ZeroDivisionError

    statements = recorded(storage)
    async with paused(storage):
        tasks = await submitted(
            storage.run(SYSTEM, add, "evt_1"),
            storage.run(SYSTEM, fail),
            storage.run(SYSTEM, add, "evt_1"),
            storage.run(SYSTEM, add, "evt_2"),
        )
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [str, ZeroDivisionError, AlreadyExists, str]
    assert await stored(storage) == ["evt_1", "evt_2"]
    assert statements.count("COMMIT") == 1


async def test_a_unit_that_fails_first_leaves_its_neighbours_alone(storage: SqliteStorage) -> None:
    async def fail(tx: Transaction) -> None:
        await add(tx, "evt_lost")
        await tx.get(tables.events, ORG, "evt_missing")

    async with paused(storage):
        tasks = await submitted(storage.run(SYSTEM, fail), storage.run(SYSTEM, add, "evt_1"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotFound, str]
    assert await stored(storage) == ["evt_1"]


async def test_a_caller_that_gave_up_is_skipped(storage: SqliteStorage) -> None:
    async with paused(storage):
        kept, given_up = await submitted(storage.run(SYSTEM, add, "evt_kept"), storage.run(SYSTEM, add, "evt_given_up"))
        given_up.cancel()
        await asyncio.wait([given_up])
    assert await kept == "evt_kept"
    assert given_up.cancelled()
    assert await stored(storage) == ["evt_kept"]


async def test_a_caller_that_gives_up_too_late_breaks_nothing(storage: SqliteStorage) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    async def slow(tx: Transaction) -> None:
        await add(tx, "evt_slow")
        loop.call_soon_threadsafe(begun.set)
        gave_up.wait()

    gave_up = threading.Event()
    async with paused(storage):
        late, other = await submitted(storage.run(SYSTEM, slow), storage.run(SYSTEM, add, "evt_other"))
    await begun.wait()
    late.cancel()
    await asyncio.wait([late])
    gave_up.set()
    assert await other == "evt_other"
    assert late.cancelled()
    assert await stored(storage) == ["evt_other", "evt_slow"]


async def test_work_that_awaits_something_else_is_refused_and_closed(storage: SqliteStorage) -> None:
    closed = []

    async def foreign(tx: Transaction) -> None:
        await add(tx, "evt_1")
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def timed(tx: Transaction) -> None:
        await add(tx, "evt_1")
        await asyncio.sleep(0.01)

    for work in (foreign, timed):
        with pytest.raises(ForeignAwait, match="nothing but its transaction"):
            await storage.run(SYSTEM, work)
    assert closed == [True]
    assert await stored(storage) == []


async def test_reading_work_that_awaits_something_else_is_refused(storage: SqliteStorage) -> None:
    async def foreign(tx: Transaction) -> None:
        await ids(tx)
        await asyncio.sleep(0.01)

    async def nested(tx: Transaction) -> list[str]:
        return await storage.read(SYSTEM, ids)

    with pytest.raises(ForeignAwait):
        await storage.read(SYSTEM, foreign)
    with pytest.raises(ForeignAwait):
        await storage.read(SYSTEM, nested)
    with pytest.raises(ForeignAwait):
        await storage.run(SYSTEM, lambda tx: storage.run(SYSTEM, add, "evt_1"))
    assert await stored(storage) == []


async def test_more_than_can_wait_is_told_to_come_back(storage: SqliteStorage) -> None:
    async with paused(storage):
        tasks = await submitted(*(storage.run(SYSTEM, add, f"evt_{n}") for n in range(MAX_QUEUED + 1)))
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 1
        error = refused[0].exception()
        assert isinstance(error, Overloaded)
        assert error.retry_after
    await asyncio.wait(tasks)
    assert len(await stored(storage)) == MAX_QUEUED


async def test_closing_finishes_what_was_accepted(storage: SqliteStorage, path: Path) -> None:
    async with paused(storage):
        tasks = await submitted(*(storage.run(SYSTEM, add, f"evt_{n}") for n in range(20)))
        closing = asyncio.create_task(storage.close())
        await asyncio.sleep(0)
    await closing
    await asyncio.gather(*tasks)
    for refused in (storage.run(SYSTEM, ids), storage.read(SYSTEM, ids), storage.scan(SYSTEM, ids)):
        with pytest.raises(StorageError, match="closed"):
            await refused
    assert not path.with_name("main.db-wal").exists()
    again = await open_storage(f"sqlite:///{path}")
    assert len(await again.read(SYSTEM, ids)) == 20
    await again.close()


async def test_two_event_loops_write_to_one_database(storage: SqliteStorage) -> None:
    def elsewhere(first: int) -> None:
        async def write() -> None:
            await asyncio.gather(*(storage.run(SYSTEM, add, f"evt_{n}") for n in range(first, first + 50)))

        asyncio.run(write())

    await asyncio.gather(asyncio.to_thread(elsewhere, 1000), asyncio.to_thread(elsewhere, 2000))
    assert len(await stored(storage)) == 100


# --- when the disk or another process is in the way -------------------------------------------------------------------


async def test_a_full_disk_fails_whoever_does_not_fit_and_nobody_else(path: Path) -> None:
    storage = await open_storage(f"sqlite:///{path}?max_pages=110")
    assert isinstance(storage, SqliteStorage)
    await storage.migrate()
    calls: dict[str, int] = {}

    async def counted(tx: Transaction, id: str, text: str) -> str:
        calls[id] = calls.get(id, 0) + 1
        return await add(tx, id, text)

    large = "x" * 2_000_000
    async with paused(storage):
        tasks = await submitted(
            storage.run(SYSTEM, counted, "evt_1", "small"),
            storage.run(SYSTEM, counted, "evt_2", large),
            storage.run(SYSTEM, counted, "evt_3", "small"),
        )
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [str, StorageFull, str]
    assert await stored(storage) == ["evt_1", "evt_3"]
    assert calls["evt_2"] == 1

    for n in range(1000):  # fill it up with rows that fit, until one does not
        try:
            await storage.run(SYSTEM, add, f"evt_fill_{n:04d}", "x" * 3000)
        except StorageFull:
            break
    else:
        pytest.fail("the disk never was full")
    kept = await stored(storage)
    assert f"evt_fill_{n:04d}" not in kept
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    async def free(tx: Transaction) -> None:
        for old in kept:
            await tx.remove(tables.events, ORG, old)

    await storage.run(SYSTEM, free)
    await storage.run(SYSTEM, add, "evt_again", "small")
    assert await stored(storage) == ["evt_again"]
    await storage.close()


async def test_what_was_undone_with_a_full_disk_is_done_again(storage: SqliteStorage) -> None:
    """A full disk may undo the whole batch (sqlite.org/lang_transaction.html): the innocent units are run again."""
    runs: list[str] = []

    async def counted(tx: Transaction, id: str) -> str:
        runs.append(id)
        return await add(tx, id)

    async def unlucky(tx: Transaction) -> None:
        await add(tx, "evt_unlucky")
        writer_of(storage).connection.execute("ROLLBACK")  # what the engine does at its worst
        raise StorageFull

    async with paused(storage):
        tasks = await submitted(
            storage.run(SYSTEM, counted, "evt_1"),
            storage.run(SYSTEM, counted, "evt_2"),
            storage.run(SYSTEM, unlucky),
            storage.run(SYSTEM, counted, "evt_3"),
        )
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [str, str, StorageFull, str]
    assert runs == ["evt_1", "evt_2", "evt_1", "evt_2", "evt_3"]
    assert await stored(storage) == ["evt_1", "evt_2", "evt_3"]


async def outcomes_of_failing_commit(storage: SqliteStorage, code: int, times: int) -> list[type]:
    writer = writer_of(storage)
    writer.connection = FailingCommit(writer.connection, code, times)  # type: ignore[assignment]  # as much as is used
    async with paused(storage):
        tasks = await submitted(*(storage.run(SYSTEM, add, f"evt_{n}") for n in range(3)))
    return [type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)]


async def test_a_batch_that_does_not_fit_is_committed_one_by_one(storage: SqliteStorage) -> None:
    assert await outcomes_of_failing_commit(storage, sqlite3.SQLITE_FULL, 1) == [str, str, str]
    assert await stored(storage) == ["evt_0", "evt_1", "evt_2"]


async def test_a_unit_that_does_not_fit_alone_fails_alone(storage: SqliteStorage) -> None:
    assert await outcomes_of_failing_commit(storage, sqlite3.SQLITE_FULL, 2) == [StorageFull, str, str]
    assert await stored(storage) == ["evt_1", "evt_2"]


async def test_a_commit_that_may_have_reached_the_disk_is_said_to_be_unknown(storage: SqliteStorage) -> None:
    assert await outcomes_of_failing_commit(storage, sqlite3.SQLITE_IOERR_FSYNC, 1) == [OutcomeUnknown] * 3
    await storage.run(SYSTEM, add, "evt_next")
    assert await stored(storage) == ["evt_next"]


async def test_an_error_hidden_by_the_work_still_ends_it(storage: SqliteStorage) -> None:
    async def hide(tx: Transaction) -> str:
        await add(tx, "evt_1")
        try:
            await add(tx, "evt_1")
        except AlreadyExists:
            return "went well"
        return "impossible"

    with pytest.raises(TransactionEnded):
        await storage.run(SYSTEM, hide)
    assert await stored(storage) == []


async def test_another_process_with_the_write_lock_delays_but_does_not_break(
    storage: SqliteStorage, path: Path
) -> None:
    await storage.run(SYSTEM, add, "evt_1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    statements = recorded(storage)
    async with paused(storage):
        tasks = await submitted(*(storage.run(SYSTEM, add, f"evt_busy_{n}") for n in range(10)))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StorageBusy}
    assert statements.count("BEGIN IMMEDIATE") == 1  # ten callers wait for the lock once, not one after the other
    assert await stored(storage) == ["evt_1"]
    other.execute("ROLLBACK")
    other.close()
    await storage.run(SYSTEM, add, "evt_2")
    assert await stored(storage) == ["evt_1", "evt_2"]
