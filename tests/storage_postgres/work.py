"""Connections past the storage, and small units of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from orgstead.storage import open_storage
from orgstead.storage.port import Scope, Storage, SystemScope, Transaction
from orgstead.storage.postgres.engine import PostgresStorage
from tests.engines import Database
from tests.servers import postgres

SYSTEM = SystemScope("tests of the engine")

PATIENCE = 30.0
"""Seconds after which what a test waits for is said not to happen."""


def with_parameters(url: str, **parameters: Any) -> str:
    """``url`` with these parameters, beside those that it has."""
    return url + ("&" if "?" in url else "?") + "&".join(f"{name}={value}" for name, value in parameters.items())


@asynccontextmanager
async def connected(url: str | None) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the tests' own."""
    assert url
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def administrator(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The server's superuser, in this database."""
    run = postgres.run()
    name = database.url.rpartition("/")[2].partition("?")[0]
    async with connected(run.admin_url.rpartition("/")[0] + "/" + name) as connection:
        yield connection


@asynccontextmanager
async def opened(database: Database, **parameters: Any) -> AsyncIterator[PostgresStorage]:
    """The database's storage with parameters in its URL."""
    url = with_parameters(database.url, **parameters) if parameters else database.url
    storage = await open_storage(url, migration_url=database.migration_url)
    assert isinstance(storage, PostgresStorage)
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def staying(
    storage: Storage, scope: Scope, work: Callable[[Transaction], Awaitable[object]]
) -> AsyncIterator[asyncio.Event]:
    """A unit that has done ``work`` and stays open until the event is set, or until the block ends."""
    loop = asyncio.get_running_loop()
    entered, leave = loop.create_future(), asyncio.Event()

    async def stay(tx: Transaction) -> None:
        await work(tx)
        if not entered.done():
            entered.set_result(None)
        await leave.wait()

    unit = asyncio.create_task(storage.run(scope, stay))
    try:
        await asyncio.wait([unit, entered], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert unit.done() or entered.done(), f"the unit has not done its work in {PATIENCE} s"
        yield leave
    finally:
        leave.set()
        await unit


async def until_waiting(connection: asyncpg.Connection, count: int) -> None:
    """Wait until so many of the database's connections wait for a lock."""
    await until(connection, f"count(*) >= {count}", "wait_event_type = 'Lock'")


async def until(connection: asyncpg.Connection, true: str, which: str) -> None:
    """Wait until something is true of those of the database's connections that are ``which``; for ``PATIENCE``."""
    there = "FROM pg_stat_activity WHERE datname = current_database()"
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not await connection.fetchval(f"SELECT {true} {there} AND {which}"):
        if asyncio.get_running_loop().time() > deadline:
            found = await connection.fetch(f"SELECT pid, state, wait_event_type, wait_event, query {there}")
            raise AssertionError(f"not {true} where {which} in {PATIENCE} s: {found}")
        await asyncio.sleep(0.005)
