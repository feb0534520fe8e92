"""A SQLite file of its own for each test here: these tests are about the file, not about the promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orgstead.storage import open_storage
from orgstead.storage.sqlite.engine import SqliteStorage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's database is or will be."""
    return tmp_path / "data" / "main.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteStorage]:
    """A migrated database at ``path``."""
    opened = await open_storage(f"sqlite:///{path}?busy_timeout_ms=50")
    assert isinstance(opened, SqliteStorage)
    await opened.migrate()
    yield opened
    await opened.close()
