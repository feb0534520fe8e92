"""The server crashes, restarts, refuses: nothing acknowledged is lost, and what callers hear meanwhile is a 503.

Eight writers create organizations, write records and rename, all over one storage that is never reopened: it recovers
by itself. What they were told is kept in the history that the crash suite checks.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest

from orgstead import creation, renaming
from orgstead.app import App
from orgstead.creation import NewOrganization
from orgstead.errors import Conflict, OutcomeUnknown, Overloaded, PlacementMoved, StorageReadOnly, Unavailable
from orgstead.renaming import NewName
from tests import apps
from tests.crash.history import History, violations
from tests.engines import Database, selected
from tests.servers import EngineUnavailable
from tests.servers.postgres import LocalServer, Run, new_server
from tests.support import EVERYTHING

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("postgres" not in selected(), reason="postgres is not among ORGSTEAD_TEST_ENGINES"),
    pytest.mark.timeout(600),
]

CRASHES = 12 if EVERYTHING else 3
WRITERS = 8
LINES = 150
"""How many lines of history there are at most between two crashes."""

RECORDS = 4
PATIENCE = 60


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server of these tests' own, which may be crashed."""
    try:
        found = new_server()
    except EngineUnavailable as error:
        pytest.skip(f"postgres cannot be started: {error}")
    yield found
    found.remove()


@dataclass
class Place:
    """A database on the server, and its administrator."""

    run: Run
    name: str

    @property
    def database(self) -> Database:
        return Database(self.run.url(self.run.role, self.name), self.run.url(self.run.owner, self.name))

    async def execute(self, *statements: str) -> None:
        await self.run.execute(*(statement.format(name=self.name, role=self.run.role) for statement in statements))

    async def send_everybody_home(self) -> None:
        """End every connection to the database, so that what is asked next connects anew."""
        await self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


@pytest.fixture
async def place(server: LocalServer) -> AsyncIterator[Place]:
    run = Run(server.url, server, f"crash_{secrets.token_hex(4)}", secrets.token_hex(12))
    await run.make_roles()
    name = f"{run.prefix}_db"
    await run.execute(f'CREATE DATABASE "{name}" OWNER "{run.owner}" TEMPLATE template0 STRATEGY WAL_LOG')
    yield Place(run, name)
    await run.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# --- writers ----------------------------------------------------------------------------------------------------------


@dataclass
class Writers:
    """Tasks that work on organizations of their own, and note what they began and what was acknowledged."""

    app: App
    history: History
    names: Iterator[int] = field(default_factory=count)
    stopping: bool = False
    met: list[BaseException] = field(default_factory=list)
    told: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They write for as long as the block takes, and end what they are at."""
        self.stopping = False
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self._work())
            yield
            self.stopping = True

    async def follow(self, lines: int) -> None:
        """Wait until so many more lines of history have been noted."""
        target = self.history.lines + lines
        async with asyncio.timeout(PATIENCE), self.told:
            await self.told.wait_for(lambda: self.history.lines >= target)

    async def _note(self, what: str, *about: str) -> None:
        self.history.note(what, *about)
        async with self.told:
            self.told.notify_all()

    async def _work(self) -> None:
        while not self.stopping:
            try:
                await self._one_organization()
            except Unavailable as error:  # any other error is a fault, and ends the test
                self.met.append(error)

    async def _one_organization(self) -> None:
        number = next(self.names)
        name, plan = f"Tenant {number}", "enterprise" if number % 3 == 0 else "free"
        await self._note("creating", name)
        new = NewOrganization(name=name, plan=plan, owner=apps.person(self.app), owner_is_new=True)
        found = await creation.create(self.app, new, apps.TESTER)
        org_id = found.organization.id
        await self._note("created", name, org_id, found.organization.slug)
        await self._write(org_id, "before")
        await self._note("renaming", org_id, f"Renamed {number}")
        try:
            renamed, running = await renaming.rename(self.app, org_id, NewName(name=f"Renamed {number}"), apps.TESTER)
        except Conflict as error:
            # The creation was acknowledged after its operation had outlived this request.
            self.met.append(error)
            return
        if running is not None:  # it took longer than a request waits: answered, but not yet done
            return
        await self._note("renamed", org_id, renamed.organization.slug)
        await self._write(org_id, "after")

    async def _write(self, org_id: str, when: str) -> None:
        for number in range(RECORDS):
            try:
                await apps.write(self.app, await apps.placement(self.app, org_id), f"{when}-{number}")
            except PlacementMoved as error:
                self.met.append(error)
                return
            await self._note("wrote", org_id, f"{when}-{number}")


async def assert_recovered(app: App, history: History) -> None:
    async with asyncio.timeout(PATIENCE):
        await apps.recover(app)
        assert await violations(app, history) == []


# --- the server goes away ---------------------------------------------------------------------------------------------


async def test_a_server_that_crashes_again_and_again_loses_nothing_acknowledged(
    server: LocalServer, place: Place, seed: int
) -> None:
    chance = random.Random(seed)
    async with apps.opened(place.database) as app:
        writers = Writers(app, History())
        for _ in range(CRASHES):
            async with writers.at_work():
                await writers.follow(chance.randrange(1, LINES))
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                await asyncio.to_thread(server.start)
                await writers.follow(1)
            await assert_recovered(app, writers.history)
        assert len(writers.history.slugs) > CRASHES
    async with apps.opened(place.database) as app:
        await assert_recovered(app, writers.history)


async def test_a_server_that_restarts_in_order_is_waited_for(server: LocalServer, place: Place) -> None:
    async with apps.opened(place.database) as app:
        writers = Writers(app, History())
        async with writers.at_work():
            await writers.follow(2 * WRITERS)
            await asyncio.to_thread(server.stop, signal.SIGINT)
            await asyncio.to_thread(server.start)
            await writers.follow(2 * WRITERS)
        await assert_recovered(app, writers.history)


async def test_what_was_acknowledged_falsely_is_found(server: LocalServer, place: Place) -> None:
    """The suite can fail: with ``synchronous_commit = off`` the server says "done" before it is."""
    async with apps.opened(place.database):
        pass  # migrated, and that is durable
    await place.execute('ALTER DATABASE "{name}" SET synchronous_commit = off')
    await place.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # or a slow machine gets it done in time
    await place.execute("SELECT pg_reload_conf()")
    async with apps.opened(place.database) as app:
        located = await apps.created(app, "Acme")
        where = located.placement
        history = History()
        history.note("created", "Acme", where.org_id, located.organization.slug)
        for number in count():
            await apps.write(app, where, f"fast-{number}")
            history.note("wrote", where.org_id, f"fast-{number}")
            if number == 100:
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                break
        await asyncio.to_thread(server.start)
        assert await violations(app, history)


async def test_while_the_server_is_away_callers_hear_a_503_within_the_deadline(
    server: LocalServer, place: Place
) -> None:
    hasty = Database(f"{place.database.url}?deadline_ms=200", place.database.migration_url)
    async with apps.opened(hasty) as app:
        where = (await apps.created(app, "Acme")).placement
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        try:
            for ask in (
                lambda: apps.write(app, where, "one"),
                lambda: apps.placement(app, where.org_id),
                lambda: apps.records(app, where),
                lambda: app.storage.access("org", "usr", "ses"),
                lambda: apps.created(app, "Other", "enterprise"),
                app.storage.check,
            ):
                with pytest.raises(Unavailable) as caught:
                    await ask()
                assert caught.value.retry_after
                assert not isinstance(caught.value, OutcomeUnknown)
        finally:
            await asyncio.to_thread(server.start)
        await apps.write(app, where, "two")
        assert (await apps.records(app, where)).keys() == {"two"}
        await apps.assert_clean(app)


# --- the server refuses -----------------------------------------------------------------------------------------------


async def test_a_database_that_only_reads_is_said_to_be_so_and_recovered_from(place: Place) -> None:
    async with apps.opened(place.database) as app:
        where = (await apps.created(app, "Acme")).placement
        await place.execute('ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await place.send_everybody_home()
        for number in range(3):
            with pytest.raises(StorageReadOnly):
                await apps.write(app, where, f"refused-{number}")
            assert await apps.placement(app, where.org_id) == where
        await place.execute('ALTER DATABASE "{name}" RESET default_transaction_read_only')
        refused = 0
        while refused < 10:  # connections that were made meanwhile are found out one by one
            try:
                await apps.write(app, where, "kept")
                break
            except StorageReadOnly:
                refused += 1
        assert (await apps.records(app, where)).keys() == {"kept"}
        await apps.assert_clean(app)


@pytest.mark.parametrize("limited", ['ROLE "{role}"', 'DATABASE "{name}"'])
async def test_a_server_without_a_connection_left_is_overloaded_and_recovered_from(place: Place, limited: str) -> None:
    hasty = Database(f"{place.database.url}?deadline_ms=200", place.database.migration_url)
    async with apps.opened(hasty) as app:
        where = (await apps.created(app, "Acme")).placement
        await place.execute(f"ALTER {limited} CONNECTION LIMIT 0")
        await place.send_everybody_home()
        for _ in range(3):
            with pytest.raises(Overloaded) as caught:
                await apps.write(app, where, "refused")
            assert caught.value.retry_after
        await place.execute(f"ALTER {limited} CONNECTION LIMIT -1")
        await apps.write(app, where, "kept")
        assert (await apps.records(app, where)).keys() == {"kept"}
        await apps.assert_clean(app)


async def test_connections_that_an_operator_ends_are_made_anew(place: Place) -> None:
    async with apps.opened(place.database) as app:
        writers = Writers(app, History())
        async with writers.at_work():
            for _ in range(5):
                await writers.follow(WRITERS)
                await place.send_everybody_home()
            await writers.follow(WRITERS)
        await assert_recovered(app, writers.history)
