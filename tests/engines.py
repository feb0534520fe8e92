"""The engines that the tests run on. A further one joins by one line in ``ENGINES``.

``ORGSTEAD_TEST_ENGINES=sqlite,…`` selects some of them. An engine whose server cannot be started is skipped with the
reason; ``ORGSTEAD_TEST_REQUIRE=all`` makes every skip a failure.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orgstead.storage import open_storage
from orgstead.storage.port import Storage
from tests import servers
from tests.servers import EngineUnavailable


@dataclass(frozen=True, slots=True)
class Database:
    """A new, empty database of one engine; ``url`` opens it, and ``migration_url`` for its owner where that differs."""

    url: str
    migration_url: str | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What a service's settings say of it."""
        return {"database_url": self.url, **({"migration_url": self.migration_url} if self.migration_url else {})}

    @property
    def variables(self) -> dict[str, str]:
        """``settings`` as environment variables."""
        return {f"ORGSTEAD_{name.upper()}": value for name, value in self.settings.items()}

    @asynccontextmanager
    async def opened(self, *, migrated: bool = True) -> AsyncIterator[Storage]:
        """The database, open until the end of the block."""
        storage = await open_storage(self.url, migration_url=self.migration_url)
        try:
            if migrated:
                await storage.migrate()
                await storage.check()
            yield storage
        finally:
            await storage.close()


Engine = Callable[[], AbstractAsyncContextManager[Database]]
"""Makes a new, empty database and removes it at the end. Raises ``EngineUnavailable``."""


@asynccontextmanager
async def sqlite() -> AsyncIterator[Database]:
    """A file in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="orgstead-") as folder:
        yield Database(f"sqlite:///{Path(folder, 'main.db')}")


@asynccontextmanager
async def postgres() -> AsyncIterator[Database]:
    """A database of its own on the run's PostgreSQL server."""
    async with servers.postgres.new_database() as (url, migration_url):
        yield Database(url, migration_url)


@asynccontextmanager
async def mongodb() -> AsyncIterator[Database]:
    """A database of its own on the run's MongoDB server."""
    async with servers.mongodb.new_database() as url:
        yield Database(url)


ENGINES: dict[str, Engine] = {
    "sqlite": sqlite,
    "postgres": postgres,
    "mongodb": mongodb,
}


def selected() -> list[str]:
    """The names of the engines to test, in the order of ``ENGINES``."""
    wanted = {name.strip() for name in os.environ.get("ORGSTEAD_TEST_ENGINES", "").split(",")} - {""}
    if unknown := wanted - ENGINES.keys():
        raise pytest.UsageError(f"ORGSTEAD_TEST_ENGINES: no engine {sorted(unknown)}; there is {sorted(ENGINES)}")
    return [name for name in ENGINES if not wanted or name in wanted]


@asynccontextmanager
async def new_database(engine: str) -> AsyncIterator[Database]:
    """A new, empty database of the engine; skips the test with the reason where its server cannot be started."""
    manager = ENGINES[engine]()
    try:
        database = await manager.__aenter__()
    except EngineUnavailable as error:
        pytest.skip(f"{engine} cannot be started: {error}")
    try:
        yield database
    finally:
        await manager.__aexit__(None, None, None)
