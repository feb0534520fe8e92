"""The engines that the tests run on. A further one joins by one line in ``ENGINES``.

``ORGSTEAD_TEST_ENGINES=sqlite,…`` selects some of them. An engine whose server cannot be started is skipped with the
reason; ``ORGSTEAD_TEST_REQUIRE=all`` makes every skip a failure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orgstead.storage import open_storage
from orgstead.storage.port import Storage
from tests import servers
from tests.servers import EngineUnavailable
from tests.support import EVERYTHING, HAS_MONGOD


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


@dataclass(frozen=True, slots=True)
class Engine:
    """How databases of one engine are made and removed. ``create`` raises ``EngineUnavailable``.

    ``empty`` leaves a database with its schema and nothing else, for the next test, where that is quicker than a new
    one; None where it is not.
    """

    create: Callable[[], Awaitable[Database]]
    drop: Callable[[Database], Awaitable[None]]
    empty: Callable[[Database], Awaitable[None]] | None = None


async def _new_sqlite() -> Database:
    folder = tempfile.mkdtemp(prefix="orgstead-")
    return Database(f"sqlite:///{Path(folder, 'main.db')}")


async def _drop_sqlite(database: Database) -> None:
    shutil.rmtree(Path(database.url.removeprefix("sqlite:///")).parent)


async def _new_postgres() -> Database:
    return Database(*await servers.postgres.create_database())


async def _new_mongodb() -> Database:
    return Database(servers.mongodb.create_database())


ENGINES: dict[str, Engine] = {
    "sqlite": Engine(_new_sqlite, _drop_sqlite),
    "postgres": Engine(
        _new_postgres,
        lambda database: servers.postgres.drop_database(database.url),
        lambda database: servers.postgres.empty(database.migration_url or database.url),
    ),
    "mongodb": Engine(
        _new_mongodb,
        lambda database: servers.mongodb.drop_database(database.url),
        lambda database: servers.mongodb.empty(database.url),
    ),
}


def at_most(engine: str, there: int) -> int:
    """How many rows of a list of ``there`` a test writes: under ``make test-all`` all, else at most 3,000.

    On a stand-in, which reads whole collections where MongoDB searches, it is fewer.
    """
    if engine == "mongodb" and not HAS_MONGOD:
        return min(there, 150)
    return there if EVERYTHING else min(there, 3000)


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


def for_real() -> list[pytest.ParameterSet]:
    """``selected()`` as the parameters of a test that the stand-in for MongoDB cannot do in its time."""
    return [with_real(engine, engine) for engine in selected()]


def with_real(engine: str, value: object) -> pytest.ParameterSet:
    """``value`` as the parameter of such a test on ``engine``: on MongoDB it is marked ``real_mongodb``."""
    return pytest.param(value, marks=[pytest.mark.real_mongodb] if engine == "mongodb" else [])


@asynccontextmanager
async def new_database(engine: str) -> AsyncIterator[Database]:
    """A new, empty database of the engine; skips the test with the reason where its server cannot be started."""
    with _skipping(engine):
        database = await ENGINES[engine].create()
    try:
        yield database
    finally:
        await ENGINES[engine].drop(database)


@asynccontextmanager
async def empty_database(engine: str) -> AsyncIterator[Database]:
    """An empty database for a test that migrates it: a new one, or one that another test has left and that was emptied.

    Skips as ``new_database``.
    """
    this = ENGINES[engine]
    left = _left.setdefault(engine, [])
    with _skipping(engine):
        database = left.pop() if left else await this.create()
    try:
        yield database
        if this.empty is not None:
            await this.empty(database)
            left.append(database)
            return
    except BaseException:
        await this.drop(database)
        raise
    await this.drop(database)


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
            await ENGINES[engine].drop(left.pop())
