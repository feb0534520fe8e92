"""A database of each test's own on the run's PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orgstead.storage import open_storage
from orgstead.storage.postgres.engine import PostgresStorage
from tests.engines import Database, new_database, selected


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    """A new, migrated database."""
    if "postgres" not in selected():
        pytest.skip("ORGSTEAD_TEST_ENGINES leaves postgres out")
    async with new_database("postgres") as database:
        async with database.opened():
            pass
        yield database


@pytest.fixture
async def storage(database: Database) -> AsyncIterator[PostgresStorage]:
    """Its storage."""
    opened = await open_storage(database.url, migration_url=database.migration_url)
    assert isinstance(opened, PostgresStorage)
    yield opened
    await opened.close()
