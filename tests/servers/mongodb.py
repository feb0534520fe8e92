"""A MongoDB server for the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.servers.unavailable import EngineUnavailable


@asynccontextmanager
async def new_database() -> AsyncIterator[str]:
    """The URL of a new, empty database."""
    raise EngineUnavailable("not there yet")
    yield ""
