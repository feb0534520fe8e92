"""``--dry-run``: what a command would do is what it does without it, and the database is the same before and after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orgstead.storage import open_storage, tables
from orgstead.storage.port import Home, SystemScope
from tests.cli.conftest import Run
from tests.engines import Database, new_database, selected

SCOPE = SystemScope("tests")


@pytest.fixture(params=selected())
async def database(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Database]:
    """An empty database of each engine in turn."""
    async with new_database(request.param) as database:
        yield database


@pytest.fixture
def on(cli: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands on that database."""
    for name, value in database.variables.items():
        monkeypatch.setenv(name, value)
    return cli


def test_what_an_upgrade_would_apply_is_what_it_applies(on: Run, database: Database) -> None:
    before = content(database)
    said = [on("db", "upgrade", "--dry-run", "--json") for _ in range(2)]
    assert [result.code for result in said] == [3, 3]
    assert said[0].out == said[1].out
    assert [version["version"] for version in json.loads(said[0].out)] == [1, 2]
    assert "nothing was changed" in said[0].err
    assert content(database) == before
    assert on("db", "check").code != 0

    assert json.loads(on("db", "upgrade", "--json").out)["schema_version"] == 2
    result = on("db", "upgrade", "--dry-run", "--json")
    assert (result.code, result.out) == (0, "[]\n")
    assert "nothing to do" in result.err
    assert on("db", "upgrade", "--dry-run", "--quiet").err == ""


def test_an_upgrade_that_would_be_refused_is_refused(cli: Run, folder: Path) -> None:
    (folder / "other.db").write_bytes(b"another program's" * 100)
    before = content(Database(f"sqlite:///{folder / 'other.db'}"))
    for args in ((), ("--dry-run",)):
        result = cli("db", "upgrade", *args, "--database-url", "sqlite:///other.db")
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("error configuration.invalid: ")
    assert content(Database(f"sqlite:///{folder / 'other.db'}")) == before


def content(database: Database) -> object:
    """Everything that a command could have changed: the files of an embedded database, or what a server answers."""
    if database.url.startswith("sqlite:"):
        folder = Path(database.url.removeprefix("sqlite:///")).parent
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.stat().st_size}
    return asyncio.run(_content(database))


async def _content(database: Database) -> object:
    storage = await open_storage(database.url, migration_url=database.migration_url, writable=False)
    try:
        pending = await storage.pending()
        if pending:
            return pending
        directory = [table for table in tables.TABLES if table.home is Home.DIRECTORY]
        return [await storage.digest(SCOPE, table) for table in directory]
    finally:
        await storage.close()
