"""Use cases run on every engine, and leave it in order: each test ends with ``fsck``."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from orgstead.app import App
from tests import apps
from tests.engines import Database, empty_database, selected
from tests.use_cases.accounts import World
from tests.use_cases.watch import Watch


@pytest.fixture(params=selected())
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A new, empty database of each engine."""
    async with empty_database(request.param) as database:
        yield database


@pytest.fixture
async def clock() -> apps.Clock:
    return apps.Clock()


@pytest.fixture
async def app(database: Database, clock: apps.Clock) -> AsyncIterator[App]:
    """An App over a new database, which must be in order when the test ends."""
    async with apps.opened(database, clock=clock) as app:
        yield app
        await apps.assert_clean(app)


@pytest.fixture
async def damaged(database: Database, clock: apps.Clock) -> AsyncIterator[App]:
    """An App for tests that leave disorder on purpose."""
    async with apps.opened(database, clock=clock) as app:
        yield app


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """People and organizations over a new database, and a clock of the test's own."""
    watch = Watch()
    async with apps.opened(database, clock=watch, secret_key=secrets.token_urlsafe(48)) as app:
        yield World(app, watch)
