"""A task that is cancelled at any of its awaits leaves nothing half done, and a connection that the next one can use.

Each action is cancelled at its first, second, … question to the server, before it is sent, while it is under way and
once it is answered, until it has no further one. There is one connection, so the next user gets the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from orgstead.model import PlacementKind, SlotState
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Space, Transaction
from orgstead.storage.postgres.connections import Pool
from orgstead.storage.postgres.engine import PostgresStorage
from tests.engines import new_database, selected
from tests.rows import org_id, sample
from tests.servers import postgres as servers
from tests.storage_postgres.interruption import Interruption, Moment, count_questions
from tests.storage_postgres.work import SYSTEM, staying

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("postgres" not in selected(), reason="postgres is not among ORGSTEAD_TEST_ENGINES"),
]

ROWS = 3
MOST = 40
"""More questions than any action asks."""


@dataclass
class World:
    """A database with a single connection for each purpose, and somebody who watches it from outside."""

    storage: PostgresStorage
    watcher: Any
    database: str

    async def assert_quiet(self) -> None:
        """No transaction is open on any connection of ours, nothing is locked, nothing is set."""
        for pool in self.storage._here().all:
            while pool._tasks:
                await asyncio.wait(pool._tasks)
            assert not pool._places.locked(), "a place in the pool is lost"
        # A connection that was given up ends when its server process notices.
        async with asyncio.timeout(10):
            while busy := await self.watcher.fetch(BUSY, self.database):
                assert all(backend["pid"] not in self.kept() for backend in busy), busy
        assert await self.storage._outside(_settings) == (None, None)

    def kept(self) -> set[int]:
        """The server processes behind the connections that the pools hand on."""
        idle: list[Any] = [connection for pool in self.storage._here().all for connection in pool._idle]
        return {connection.get_server_pid() for connection in idle}


BUSY = """SELECT pid, state, query FROM pg_stat_activity a WHERE datname = $1 AND pid <> pg_backend_pid()
  AND backend_type = 'client backend'
  AND (state <> 'idle' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype <> 'virtualxid'))"""
"""The lock on its own transaction says nothing: an idle process that catches up with changes of the schema has one."""


async def _settings(connection: Any) -> tuple[str | None, str | None]:
    row = await connection.fetchrow(
        "SELECT NULLIF(current_setting('app.org_id', true), ''), NULLIF(current_setting('app.system', true), '')"
    )
    return row[0], row[1]


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    init = Pool.__init__

    def sized(self: Pool, connect: Any, size: int, wait: float) -> None:
        init(self, connect, 1, wait)

    with pytest.MonkeyPatch.context() as patch:
        count_questions(patch)
        patch.setattr(Pool, "__init__", sized)
        async with new_database("postgres") as database, database.opened() as storage:
            assert isinstance(storage, PostgresStorage)
            watcher = await asyncpg.connect(servers.run().admin_url)
            yield World(storage, watcher, database.url.rpartition("/")[2])
            await watcher.close()


@pytest.fixture(scope="module")
async def world(anyio_backend: str) -> AsyncIterator[World]:
    async with new_world() as found:
        yield found


# --- what is cancelled ------------------------------------------------------------------------------------------------


@dataclass
class Action:
    """Something to do and, once it was cancelled, how much of it is done: 0.0 to 1.0."""

    do: Callable[[], Awaitable[Any]]
    done: Callable[[], Awaitable[float]]
    again: bool = False
    """Repeating it brings it to its end (promise 9)."""


async def run_(storage: PostgresStorage) -> Action:
    org = org_id()

    async def work(tx: Transaction) -> None:
        for _ in range(ROWS):
            await tx.add(tables.events, sample(tables.events, org))

    async def done() -> float:
        return len(await storage.read(OrgScope(org), _page, tables.events)) / ROWS

    return Action(lambda: storage.run(OrgScope(org), work), done)


async def connecting(storage: PostgresStorage) -> Action:
    """``run`` where there is no connection yet."""
    for pool in storage._here().all:
        while pool._idle:
            connection: Any = pool._idle.pop()
            await connection.close()
            pool.open -= 1
    return await run_(storage)


async def raising(storage: PostgresStorage) -> Action:
    org = org_id()

    async def work(tx: Transaction) -> None:
        await tx.add(tables.events, sample(tables.events, org))
        raise ZeroDivisionError

    async def do() -> None:
        with pytest.raises(ZeroDivisionError):
            await storage.run(OrgScope(org), work)

    async def done() -> float:
        return len(await storage.read(OrgScope(org), _page, tables.events))

    return Action(do, done)


async def read(storage: PostgresStorage) -> Action:
    return Action(lambda: storage.read(OrgScope("org_nobody"), _page, tables.events), _nothing)


async def scan(storage: PostgresStorage) -> Action:
    return Action(lambda: storage.scan(OrgScope("org_nobody"), _page, tables.events), _nothing)


async def access(storage: PostgresStorage) -> Action:
    # What is asked for all who wait: those who leave do not end it, but the end of its loop does.
    return Action(lambda: storage._accesses(storage._here().units, [("org_nobody", "usr", "ses")]), _nothing)


async def create_pooled(storage: PostgresStorage) -> Action:
    space = Space(org_id(), PlacementKind.POOLED, None, 1)
    return Action(lambda: storage.create_space(space, slots=2), lambda: _slots(storage, space, 2), again=True)


async def create_dedicated(storage: PostgresStorage) -> Action:
    org = org_id()
    space = Space(org, PlacementKind.DEDICATED, f"org_{org[-12:]}", 1)
    return Action(lambda: storage.create_space(space, slots=2), lambda: _slots(storage, space, 2), again=True)


async def rename(storage: PostgresStorage) -> Action:
    space = await _dedicated(storage)
    name = f"{space.name}-new"

    async def done() -> float:
        there = {found.name for _, found in await storage.spaces()} & {space.name, name}
        return {frozenset({space.name}): 0.0, frozenset({name}): 1.0}.get(frozenset(there), 0.5)

    return Action(lambda: storage.rename_space(space, name), done, again=True)


async def close(storage: PostgresStorage) -> Action:
    space = await _dedicated(storage)

    async def done() -> float:
        states = [slot.state for slot in await storage.read(space, _page, tables.slots)]
        return states.count(SlotState.CLOSED) / len(states)

    return Action(lambda: storage.close_space(space), done, again=True)


async def open_(storage: PostgresStorage) -> Action:
    space = await _dedicated(storage)
    await storage.close_space(space)
    later = Space(space.org_id, space.kind, space.name, 2)

    async def done() -> float:
        slots = await storage.read(space, _page, tables.slots)
        return len([slot for slot in slots if slot.state is SlotState.OPEN and slot.epoch == 2]) / len(slots)

    return Action(lambda: storage.open_space(later), done, again=True)


async def drop(storage: PostgresStorage) -> Action:
    space = await _dedicated(storage)

    async def done() -> float:
        return 1 - await _slots(storage, space, 2)

    return Action(lambda: storage.drop_space(space), done, again=True)


async def migrate(storage: PostgresStorage) -> Action:
    return Action(storage.migrate, _nothing, again=True)


async def _dedicated(storage: PostgresStorage) -> Space:
    org = org_id()
    space = Space(org, PlacementKind.DEDICATED, f"org_{org[-12:]}", 1)
    await storage.create_space(space, slots=2)
    return space


async def _slots(storage: PostgresStorage, space: Space, slots: int) -> float:
    return len(await storage.read(space, _page, tables.slots)) / slots


async def _page(tx: Transaction, table: Any) -> list[Any]:
    return await tx.page(table, limit=1000)


async def _nothing() -> float:
    return 0.0


ACTIONS = [
    *(run_, connecting, raising, read, scan, access, migrate),
    *(create_pooled, create_dedicated, rename, close, open_, drop),
]


# --- and what then ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name.lower())
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__.strip("_"))
async def test_a_task_cancelled_at_any_await_leaves_a_clean_connection(
    world: World, action: Callable[[PostgresStorage], Awaitable[Action]], moment: Moment
) -> None:
    for at in range(1, MOST):
        one = await action(world.storage)
        plan = Interruption(at, moment)
        outcome = await outcome_of(one.do, plan)
        await world.assert_quiet()
        if not plan.hit:
            assert outcome is None
            assert at > 1
            return
        assert isinstance(outcome, asyncio.CancelledError), f"{outcome!r} at {plan.asked}"
        done = await one.done()
        assert done in (0, 1), f"half done after {plan.asked}"
        reached_commit = plan.asked[-1] == "COMMIT"
        assert done == 0 or reached_commit, f"done after {plan.asked}"
        if reached_commit and moment is Moment.ANSWERED and one.again:
            assert done == 1 or one.done is _nothing
        if one.again:
            await one.do()
            assert one.done is _nothing or await one.done() == 1
    raise AssertionError("an action asks more than that")


async def outcome_of(do: Callable[[], Awaitable[Any]], plan: Interruption) -> BaseException | None:
    async def whole() -> None:
        with plan.planned():
            await do()

    (outcome,) = await asyncio.gather(asyncio.create_task(whole()), return_exceptions=True)
    return outcome


async def test_a_task_cancelled_while_it_waits_for_a_connection_takes_no_place(world: World) -> None:
    async with staying(world.storage, SYSTEM, lambda tx: tx.page(tables.events, limit=1)) as leave:
        waiting = [asyncio.create_task(world.storage.read(SYSTEM, _page, tables.events)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        leave.set()
        waiting[2].cancel()
        await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [True, False, True]
    await world.assert_quiet()


async def test_without_mending_the_next_user_meets_an_open_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite can fail: a pool that hands on what comes back is found out."""

    def release(pool: Pool, connection: Any, **_: Any) -> None:
        pool._idle.append(connection)
        pool._places.release()

    async with new_world() as world:
        action = await run_(world.storage)
        await world.assert_quiet()
        monkeypatch.setattr(Pool, "release", release)
        await outcome_of(action.do, Interruption(3, Moment.ANSWERED))
        with pytest.raises(AssertionError):
            await world.assert_quiet()
