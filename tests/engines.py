"""The engines that the tests run on. A further one joins by one line in ``ENGINES``.

``ORGSTEAD_TEST_ENGINES=sqlite,…`` selects some of them. An engine whose server cannot be started is skipped with the
reason; ``ORGSTEAD_TEST_REQUIRE=all`` makes every skip a failure.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orgstead.storage import open_storage
from orgstead.storage.port import Storage
from tests import servers
from tests.servers import EngineUnavailable
from tests.support import HAS_MONGOD


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


@dataclass(frozen=True, slots=True)
class Reuse:
    """How databases are used again where making one takes long. ``empty`` keeps the schema."""

    create: Callable[[], Awaitable[Database]]
    empty: Callable[[Database], Awaitable[None]]
    drop: Callable[[Database], Awaitable[None]]


async def _new_on_postgres() -> Database:
    return Database(*await servers.postgres.create_database())


async def _new_on_mongodb() -> Database:
    return Database(servers.mongodb.create_database())


REUSED: dict[str, Reuse] = {
    "postgres": Reuse(
        _new_on_postgres,
        lambda database: servers.postgres.empty(database.migration_url or database.url),
        lambda database: servers.postgres.drop_database(database.url),
    ),
    "mongodb": Reuse(
        _new_on_mongodb,
        lambda database: servers.mongodb.empty(database.url),
        lambda database: servers.mongodb.drop_database(database.url),
    ),
}


def at_most(engine: str, there: int) -> int:
    """How many rows of a list of ``there`` a test can write on the engine in its time: all, but on a stand-in, which
    reads whole collections where MongoDB searches, a few hundred."""
    return min(there, 300) if engine == "mongodb" and not HAS_MONGOD else there


def cuts_answers(engine: str) -> bool:
    """Is what one answer of the engine's server takes of memory bounded? Not by a stand-in, which gives all at once
    where MongoDB ends an answer after 16 MiB."""
    return engine != "mongodb" or HAS_MONGOD


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
    with _skipping(engine):
        database = await manager.__aenter__()
    try:
        yield database
    finally:
        await manager.__aexit__(None, None, None)


@asynccontextmanager
async def empty_database(engine: str) -> AsyncIterator[Database]:
    """An empty database for a test that migrates it: a new one, or one that another test has left and that was emptied.

    Skips as ``new_database``.
    """
    reuse = REUSED.get(engine)
    if reuse is None:
        async with new_database(engine) as database:
            yield database
        return
    left = _left.setdefault(engine, [])
    with _skipping(engine):
        database = left.pop() if left else await reuse.create()
    try:
        yield database
        await reuse.empty(database)
    except BaseException:
        await reuse.drop(database)
        raise
    left.append(database)


@contextmanager
def _skipping(engine: str) -> Iterator[None]:
    try:
        yield
    except EngineUnavailable as error:
        pytest.skip(f"{engine} cannot be started: {error}")


_left: dict[str, list[Database]] = {}
"""The databases that no test uses at the moment."""


async def drop_what_is_left() -> None:
    """Remove the databases that no test uses any more, at the end of a run."""
    for engine, left in _left.items():
        while left:
            await REUSED[engine].drop(left.pop())
