"""Connections past the storage, and small units of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from orgstead.storage import open_storage
from orgstead.storage.port import SystemScope
from orgstead.storage.postgres.engine import PostgresStorage
from tests.engines import Database
from tests.servers import postgres

SYSTEM = SystemScope("tests of the engine")


def with_parameters(url: str, **parameters: Any) -> str:
    """``url`` with these parameters."""
    return url + "?" + "&".join(f"{name}={value}" for name, value in parameters.items())


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


async def until_waiting(connection: asyncpg.Connection, count: int) -> None:
    """Wait until so many of the database's connections wait for a lock."""
    await until(connection, f"count(*) >= {count}", "wait_event_type = 'Lock'")


async def until(connection: asyncpg.Connection, true: str, which: str) -> None:
    """Wait until something is true of those of the database's connections that are ``which``."""
    text = f"SELECT {true} FROM pg_stat_activity WHERE datname = current_database() AND {which}"
    while not await connection.fetchval(text):  # noqa: ASYNC110  # the server has no event to wait for
        await asyncio.sleep(0.005)
