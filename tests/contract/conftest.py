"""One database for each engine and module of tests; tests keep apart by making organizations of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orgstead.storage.port import Storage
from tests.engines import Database, new_database, selected


@pytest.fixture(scope="session", params=selected())
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn: for fixtures only, no test looks at it."""
    return str(request.param)


@pytest.fixture(scope="module")
async def storage(engine: str, anyio_backend: str) -> AsyncIterator[Storage]:
    """The engine's storage, migrated, shared by the tests of a module."""
    async with new_database(engine) as database, database.opened() as opened:
        yield opened


@pytest.fixture
async def fresh(engine: str) -> AsyncIterator[Database]:
    """A new, empty database of the test's own."""
    async with new_database(engine) as database:
        yield database
