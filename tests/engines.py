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


class EngineUnavailable(Exception):
    """The engine's server cannot be started here; the text says why."""


@dataclass(frozen=True, slots=True)
class Database:
    """A new, empty database of one engine; ``url`` opens it."""

    url: str

    @asynccontextmanager
    async def opened(self, *, migrated: bool = True) -> AsyncIterator[Storage]:
        """The database, open until the end of the block."""
        storage = await open_storage(self.url)
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


ENGINES: dict[str, Engine] = {
    "sqlite": sqlite,
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
