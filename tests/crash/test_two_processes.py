"""Where several processes may write, one of them is killed and another, which runs all the time, goes on.

An engine that admits one writing process refuses the other one instead; that is tried here, too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from orgstead import organizations, resuming
from orgstead.app import App
from orgstead.errors import DatabaseInUse, NotFound, PlacementMoved, Unavailable
from orgstead.model import Operation
from orgstead.settings import Settings
from orgstead.storage import describe
from tests import apps
from tests.crash.history import History, violations
from tests.crash.processes import program
from tests.crash.test_failpoints import DEDICATED, ONCE, POOLED, Kill, on_engines, run_until, set_up
from tests.engines import Database, empty_database, for_real
from tests.support import EVERYTHING, sample

pytestmark = pytest.mark.anyio

TIMES = 6 if EVERYTHING else 2
STALLS = 6 if EVERYTHING else 1
LINES = 150
PATIENCE = 60
MOMENT = timedelta(milliseconds=1)

LEFT = [kill for kill in ONCE if kill.point not in (None, "create.before_intent", "create.after_activate")]
"""The kills that leave an operation running."""


@dataclass
class Survivor:
    """The process that is not killed: its App, with a clock of its own, and writers to everything that is there."""

    app: App
    history: History
    at: datetime
    stopping: bool = False
    written: asyncio.Condition = field(default_factory=asyncio.Condition)
    count: int = 0

    def clock(self) -> datetime:
        """The time stands still until a test moves it, however slow the machine is."""
        return self.at

    @asynccontextmanager
    async def writing(self, org_id: str | None) -> AsyncIterator[None]:
        """Writers to the organization, if any, for as long as the block takes."""
        if org_id is None:
            yield
            return
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(self._write(org_id, number))
            yield
            self.stopping = True

    async def written_on(self, org_id: str | None) -> None:
        """Wait until some more records were written, where the organization takes any."""
        if org_id is None:
            return
        target = self.count + 6
        async with asyncio.timeout(PATIENCE), self.written:
            await self.written.wait_for(lambda: self.count >= target)

    async def _write(self, org_id: str, writer: int) -> None:
        number = 0
        where = await apps.placement(self.app, org_id)
        while not self.stopping:
            number += 1
            name = f"survivor-{writer}-{number}"
            try:
                await apps.write(self.app, where, name)
                self.history.note("wrote", org_id, name)
            except PlacementMoved:
                try:
                    where = await apps.placement(self.app, org_id)
                except NotFound:
                    return
                await asyncio.sleep(0.01)  # the other process holds it, perhaps for longer than it lives
            async with self.written:
                self.count += 1
                self.written.notify_all()

    async def lease_of_the_dead(self) -> Operation:
        """The one operation that was left behind."""
        (operation,) = await apps.running(self.app)
        return operation


@pytest.mark.parametrize("kill", on_engines(sample("one of two processes killed", LEFT, 4)), ids=str)
async def test_the_other_process_takes_over_when_the_lease_ends(kill: Kill) -> None:
    async with empty_database(kill.engine) as database:
        if not describe(database.url).concurrent:
            await assert_one_process_only(database)
            return
        history = History()
        async with apps.opened(database) as app:
            survivor = Survivor(app, history, app.clock())
            target = await target_of(app, kill, history)
            async with survivor.writing(target if kill.task == "rename" else None):
                await asyncio.to_thread(run_until, kill.point, history, database, kill.task, kill.plan)
                app.clock = survivor.clock
                left = await survivor.lease_of_the_dead()
                assert left.lease_owner != app.owner
                survivor.at = left.lease_until - MOMENT
                assert await resuming.resume_due(app) == 0, "the lease still runs"
                survivor.at = left.lease_until
                async with asyncio.timeout(PATIENCE):
                    assert await resuming.resume_due(app) == 1
                assert await resuming.resume_due(app) == 0
                await survivor.written_on(target if kill.task == "rename" else None)
            assert await violations(app, history) == []


async def target_of(app: App, kill: Kill, history: History) -> str | None:
    """The organization that the task is about, made beforehand; None where the task makes it."""
    if kill.task == "create":
        return None
    await set_up(app, kill.plan, history, indexed=kill.task == "define")
    return await app.storage.read(apps.SCOPE, organizations.resolve, "target")


async def assert_one_process_only(database: Database) -> None:
    async with apps.opened(database):
        with pytest.raises(DatabaseInUse):
            async with apps.opened(database):
                raise AssertionError("two processes write at once")


@pytest.mark.parametrize("engine", for_real())
@pytest.mark.parametrize("plan", [POOLED, DEDICATED])
async def test_of_two_who_want_to_take_over_one_does(engine: str, plan: str) -> None:
    """The survivors race for what the dead one left: it is driven once, and nobody sees it done twice."""
    async with empty_database(engine) as database:
        if not describe(database.url).concurrent:
            await assert_one_process_only(database)
            return
        history = History()
        async with apps.opened(database) as app:
            await asyncio.to_thread(run_until, "create.after_claim", history, database, "create", plan)
            survivor = Survivor(app, history, app.clock())
            app.clock = survivor.clock
            survivor.at = (await survivor.lease_of_the_dead()).lease_until
            async with apps.opened(database, clock=survivor.clock) as other:
                assert other.owner != app.owner
                claimed = await asyncio.gather(*(resuming.resume_due(each) for each in (app, other, app, other)))
            assert sum(claimed) == 1
            assert await violations(app, history) == []


@pytest.mark.parametrize("engine", for_real())
async def test_two_processes_at_work_outlive_each_other(engine: str, seed: int) -> None:
    """Both create, rename and delete; at any instant one is killed, the other goes on until it is killed, too."""
    chance = random.Random(seed)
    history = History()
    async with empty_database(engine) as database:
        if not describe(database.url).concurrent:
            await assert_one_process_only(database)
            return
        async with apps.opened(database):
            pass  # migrated
        for _ in range(TIMES):
            with program(history, database, "churn") as first, program(history, database, "churn") as second:
                await asyncio.to_thread(first.follow, history.lines + chance.randrange(1, LINES))
                first.kill()
                await asyncio.to_thread(second.follow, history.lines + chance.randrange(1, LINES))
                second.kill()
            async with apps.opened(database) as app, asyncio.timeout(PATIENCE):
                await apps.recover(app)
                assert await violations(app, history) == []


@pytest.mark.parametrize("engine", for_real())
async def test_a_stalled_process_that_was_overtaken_changes_nothing_more(engine: str, seed: int) -> None:
    """It is held, not killed: when it wakes up its lease is another's, and what it had begun is done once."""
    chance = random.Random(seed)
    history = History()
    async with empty_database(engine) as database:
        if not describe(database.url).concurrent:
            await assert_one_process_only(database)
            return
        async with apps.opened(database) as app:
            for _ in range(STALLS):
                with program(history, database, "churn") as process:
                    await asyncio.to_thread(process.follow, history.lines + chance.randrange(1, LINES))
                    with process.stopped():
                        await take_over_everything(app)
                    # Where it was overtaken it hears of it soon, and that is the end of it.
                    await asyncio.to_thread(process.goes_on, history.lines + LINES // 2)
                    process.kill()
                async with asyncio.timeout(PATIENCE):
                    await apps.recover(app)
                    assert await violations(app, history) == []


@pytest.mark.parametrize("engine", for_real())
async def test_a_process_that_pauses_at_a_failpoint_goes_on_when_it_is_told_to(engine: str) -> None:
    """Paused in the middle of a creation: others see how far it came. Where they can, they complete it, and it hears of
    that; else it completes it itself."""
    history = History()
    async with empty_database(engine) as database:
        async with apps.opened(database):
            pass  # migrated
        with program(history, database, "create", DEDICATED, failpoint="create.after_claim", action="pause") as process:
            with process.paused():
                async with looking(database) as app:
                    assert [operation.step for operation in await apps.running(app)] == ["space"]
                if overtaken := describe(database.url).concurrent:
                    async with apps.opened(database) as app:
                        await take_over_everything(app)
            assert (await asyncio.to_thread(process.end) == 0) is not overtaken
        async with apps.opened(database) as app:
            assert await violations(app, history) == []
            assert await app.storage.read(apps.SCOPE, organizations.resolve, "created")


@asynccontextmanager
async def looking(database: Database) -> AsyncIterator[App]:
    """An App that may stand beside the one writing process."""
    app = await App.open(Settings.model_validate(database.settings), writable=False)
    yield app
    await app.close()


async def take_over_everything(app: App) -> None:
    """Go on with what others are at, as if their leases had ended."""
    ends = [operation.lease_until for operation in await apps.running(app)]
    clock = app.clock
    app.clock = lambda: max([clock(), *ends])
    try:
        await resuming.resume_due(app)
    except Unavailable:
        pass  # the one that is held holds a lock as well
    finally:
        app.clock = clock
