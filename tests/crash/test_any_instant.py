"""The process is killed, or its files are copied, at any instant of many creations, renames and deletions."""

from __future__ import annotations

import asyncio
import random
import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from orgstead.storage import describe
from tests import apps
from tests.crash.history import History, violations
from tests.crash.processes import program
from tests.engines import Database, empty_database, for_real
from tests.support import EVERYTHING

pytestmark = pytest.mark.anyio

TIMES = 12 if EVERYTHING else 3
LINES = 300
"""How many lines the program tells at most before it dies."""


@pytest.mark.parametrize("engine", for_real())
async def test_one_database_outlives_death_after_death(engine: str, seed: int) -> None:
    chance, history = random.Random(seed), History()
    async with empty_database(engine) as database:
        async with apps.opened(database):
            pass  # migrated
        for _ in range(TIMES):
            with program(history, database, "churn") as process:
                await asyncio.to_thread(process.follow, history.lines + chance.randrange(1, LINES))
                process.kill()
            assert await after_recovery(database, history) == []


@pytest.mark.parametrize("engine", for_real())
async def test_files_copied_at_any_instant_open_and_hold_what_was_acknowledged(
    engine: str, seed: int, tmp_path: Path
) -> None:
    chance, history = random.Random(seed), History()
    async with empty_database(engine) as database:
        place = describe(database.url)
        if place.folder is None:
            return  # a server keeps the files
        async with apps.opened(database):
            pass  # migrated
        copies: list[tuple[Path, History]] = []
        with program(history, database, "churn") as process:
            for number in range(TIMES):
                process.follow(history.lines + chance.randrange(1, LINES))
                copy = tmp_path / str(number)
                with process.stopped():
                    shutil.copytree(place.folder, copy)
                    copies.append((copy, deepcopy(history)))
        for copy, told in copies:
            url = database.url.replace(str(place.folder), str(copy))
            assert await after_recovery(Database(url), told) == []


async def after_recovery(database: Database, history: History) -> list[str]:
    async with apps.opened(database) as app:
        await apps.recover(app)
        return await violations(app, history)
