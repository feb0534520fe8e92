"""A database of each test's own on the run's MongoDB server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orgstead.storage.mongodb.engine import MongoStorage
from tests.engines import Database, empty_database, selected
from tests.storage_mongodb.work import Commands, opened


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    """An empty, migrated database."""
    if "mongodb" not in selected():
        pytest.skip("ORGSTEAD_TEST_ENGINES leaves mongodb out")
    async with empty_database("mongodb") as database:
        async with database.opened():
            pass
        yield database


@pytest.fixture
def commands() -> Commands:
    """The commands that ``storage`` sends."""
    return Commands()


@pytest.fixture
async def storage(database: Database, commands: Commands) -> AsyncIterator[MongoStorage]:
    """Its storage, heard by ``commands``."""
    async with opened(database.url, commands) as storage:
        yield storage
