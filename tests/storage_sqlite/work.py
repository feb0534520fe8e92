"""Rows and units of work that the tests share."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from orgstead.kit import now
from orgstead.model import Event
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction
from orgstead.storage.sqlite.engine import SqliteStorage
from orgstead.storage.sqlite.writer import Writer

T = TypeVar("T")
SYSTEM = SystemScope("test")
ORG = "org_test"


def event(id: str, text: str = "") -> Event:
    return Event(org_id=ORG, id=id, type="test", data={"text": text}, created_at=now())


async def add(tx: Transaction, id: str, text: str = "") -> str:
    """Add one event and give back its id."""
    await tx.add(tables.events, event(id, text))
    return id


async def ids(tx: Transaction) -> list[str]:
    """The ids of all events."""
    return [row.id for row in await tx.page(tables.events, limit=100_000)]


async def stored(storage: SqliteStorage) -> list[str]:
    return await storage.read(SYSTEM, ids)


def writer_of(storage: SqliteStorage) -> Writer:
    """The writer inside a writable storage."""
    assert storage._writer is not None
    return storage._writer


class FailingCommit:
    """The writing connection, whose next ``times`` COMMITs fail with an error of SQLite; ``committed`` all the same."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        code: int = sqlite3.SQLITE_IOERR,
        times: int = 1,
        *,
        committed: bool = False,
    ) -> None:
        self._connection = connection
        self._code = code
        self._times = times
        self._committed = committed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, text: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if text != "COMMIT" or not self._times:
            return self._connection.execute(text, values)
        self._times -= 1
        if self._committed:
            self._connection.execute(text)
        error = sqlite3.OperationalError("the text of the engine")
        error.sqlite_errorcode = self._code
        raise error


@asynccontextmanager
async def paused(storage: SqliteStorage) -> AsyncIterator[None]:
    """Hold the writer thread between two transactions, so that what is submitted inside the block waits together."""
    holding, go_on = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        holding.set()
        assert go_on.wait(30)

    held = asyncio.create_task(writer_of(storage).submit(hold, alone=True))
    assert await asyncio.to_thread(holding.wait, 30)
    try:
        yield
    finally:
        go_on.set()
        await held


async def submitted(*units: Coroutine[Any, Any, T]) -> list[asyncio.Task[T]]:
    """Start the units in this order and return once each waits for the writer."""
    tasks = [asyncio.create_task(unit) for unit in units]
    await asyncio.sleep(0)  # each task runs up to its first wait, which is for the writer
    return tasks
