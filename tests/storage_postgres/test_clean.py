"""Nobody gets a connection with an open transaction, or with what another organization's transaction had set."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orgstead.errors import NotFound, Overloaded
from orgstead.model import PlacementKind
from orgstead.storage.port import OrgScope, Space, Transaction
from orgstead.storage.postgres.connections import Connection, single
from orgstead.storage.postgres.engine import PostgresStorage
from orgstead.storage.tables import memberships
from tests.contract.work import add_all, do, rows_of
from tests.engines import Database
from tests.rows import org_id, sample
from tests.storage_postgres.work import SYSTEM, connected, opened, until


async def state(storage: PostgresStorage) -> tuple[Any, ...]:
    """What the next one finds on each connection: transaction, organization, system."""

    async def ask(connection: Connection) -> tuple[Any, ...]:
        begun = [await connection.fetchval("SELECT now()") for _ in range(2)]  # a transaction's time stands still
        settings = await single(
            connection,
            "SELECT coalesce(current_setting('app.org_id', true), ''),"
            " coalesce(current_setting('app.system', true), '')",
        )
        return begun[0] < begun[1], *settings

    return await storage._outside(ask)


CLEAN = (True, "", "")


async def test_after_units_of_every_end(database: Database) -> None:
    async with opened(database, pool=1) as storage:
        org = org_id()

        async def fails(tx: Transaction) -> None:
            await tx.add(memberships, sample(memberships, org))
            raise LookupError

        for _ in range(3):
            await do(storage, OrgScope(org), "add", memberships, sample(memberships, org))
            assert await state(storage) == CLEAN
            with pytest.raises(LookupError):
                await storage.run(OrgScope(org), fails)
            assert await state(storage) == CLEAN
            with pytest.raises(NotFound):
                await do(storage, SYSTEM, "get", memberships, "none", "none")
            assert await state(storage) == CLEAN
            await storage.access(org, "usr", "ses")
            assert await state(storage) == CLEAN
            assert storage._here().units.open == 1, "the connection is the same one"


@pytest.mark.parametrize("how", ["run", "read", "access", "create_space"])
async def test_cancelled_at_every_await(database: Database, how: str) -> None:
    """Whatever turn of the loop a caller is cancelled at, the connection is clean for the next, and none is lost."""
    async with opened(database, pool=1) as storage:
        org = org_id()

        async def write(tx: Transaction) -> None:
            await add_all(tx, memberships, [sample(memberships, org) for _ in range(2)])
            await tx.page(memberships, limit=5)

        async def look(tx: Transaction) -> None:
            for _ in range(3):
                await tx.page(memberships, limit=5)

        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "run": lambda: storage.run(OrgScope(org), write),
            "read": lambda: storage.read(OrgScope(org), look),
            "access": lambda: storage.access(org, "usr", "ses"),
            "create_space": lambda: storage.create_space(Space(org, PlacementKind.POOLED, None, 1)),
        }
        finished = 0
        for turns in itertools.count():
            task = asyncio.create_task(calls[how]())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            finished += not task.cancelled()
            assert await state(storage) == CLEAN, f"cancelled after {turns} turns"
            assert len(await rows_of(storage, OrgScope(org), memberships)) % 2 == 0
            if finished == 3 or turns == 400:
                break
        assert storage._here().units.open == 1


async def test_interleaved_organizations_see_their_own_rows(database: Database) -> None:
    """Two connections, many organizations, units that fail and callers that go away: no foreign row."""
    async with opened(database, pool=2) as storage:
        orgs = [org_id() for _ in range(10)]
        for org in orgs:
            await storage.run(OrgScope(org), add_all, memberships, [sample(memberships, org, user_id=org)])

        async def look(tx: Transaction, fails: bool) -> set[str]:
            found = {row.org_id for row in await tx.page(memberships, limit=100)}
            if fails:
                await tx.get(memberships, "none", "none")
            return found

        async def visit(number: int) -> None:
            org = orgs[number % len(orgs)]
            task = asyncio.create_task(storage.read(OrgScope(org), look, number % 7 == 0))
            if number % 5 == 0:
                for _ in range(number % 11):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                assert task.result() == {org}

        for start in range(0, 400, 40):
            async with asyncio.TaskGroup() as group:
                for number in range(start, start + 40):
                    group.create_task(visit(number))
        assert await state(storage) == CLEAN


async def test_who_finds_no_connection_free_is_told(database: Database) -> None:
    async with opened(database, pool=1, deadline_ms=50) as storage:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def stay(tx: Transaction) -> None:
            entered.set()
            await leave.wait()

        staying = asyncio.create_task(storage.run(SYSTEM, stay))
        await entered.wait()
        with pytest.raises(Overloaded) as raised:
            await storage.access("org", "usr", "ses")
        assert raised.value.retry_after
        leave.set()
        await staying
        await storage.access("org", "usr", "ses")


async def test_several_loops_may_use_one_storage(database: Database, storage: PostgresStorage) -> None:
    """Each has connections of its own; those of a loop that has ended are forgotten."""
    org = org_id()
    row = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, row)

    def elsewhere() -> list[Any]:
        return asyncio.run(rows_of(storage, OrgScope(org), memberships))

    for _ in range(2):
        assert await asyncio.to_thread(elsewhere) == [row]
    assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def test_closing_leaves_no_connection(database: Database) -> None:
    async with opened(database) as storage:
        await asyncio.gather(*(storage.access("org", "usr", "ses") for _ in range(20)))
        await storage.stats()
        await storage.create_space(Space("org", PlacementKind.DEDICATED, "org_x", 1))
    async with connected(database.url) as connection:
        await until(connection, "count(*) = 0", "pid <> pg_backend_pid() AND backend_type = 'client backend'")
