"""Nobody gets a connection with an open transaction, or with what another organization's transaction had set."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from orgstead.errors import NotFound, Overloaded
from orgstead.model import PlacementKind
from orgstead.storage import open_storage
from orgstead.storage.port import OrgScope, Space, Transaction
from orgstead.storage.postgres.connections import Connection, single
from orgstead.storage.postgres.engine import PostgresStorage
from orgstead.storage.tables import memberships
from tests.contract.work import add_each, do, rows_of
from tests.engines import Database
from tests.rows import key_of, org_id, sample
from tests.storage_postgres.proxy import is_cancel_request, proxied
from tests.storage_postgres.work import (
    PATIENCE,
    SYSTEM,
    administrator,
    connected,
    opened,
    staying,
    until,
    until_waiting,
    with_parameters,
)


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
            await add_each(tx, memberships, [sample(memberships, org) for _ in range(2)])
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


async def test_cancelled_while_it_waits_for_a_lock(database: Database) -> None:
    """The statement is cancelled on the server, too: nobody waits any more while the row is still held."""
    patient = int(2 * PATIENCE * 1000)
    async with opened(database, pool=3, deadline_ms=patient, statement_timeout_ms=patient) as storage:
        org = org_id()
        row = sample(memberships, org)
        key = key_of(memberships, row)
        await do(storage, OrgScope(org), "add", memberships, row)
        async with (
            administrator(database) as watcher,
            staying(storage, OrgScope(org), lambda tx: tx.lock(memberships, *key)),
        ):
            waiters = [asyncio.create_task(do(storage, OrgScope(org), "remove", memberships, *key)) for _ in range(2)]
            await until_waiting(watcher, 2)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
            assert await state(storage) == CLEAN
            await until(watcher, "count(*) = 0", "wait_event_type = 'Lock'")
        assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def test_a_statement_whose_cancel_request_is_lost_ends_all_the_same(database: Database) -> None:
    """The server looks after its client: a connection that is given up is no process that waits on for a lock."""
    async with proxied(database.url) as proxy, administrator(database) as watcher, opened(database) as holder:
        patient = int(2 * PATIENCE * 1000)
        url = with_parameters(proxy.url(database.url), deadline_ms=patient, statement_timeout_ms=patient)
        storage = await open_storage(url)
        org = org_id()
        row = sample(memberships, org)
        key = key_of(memberships, row)
        await do(holder, OrgScope(org), "add", memberships, row)
        async with staying(holder, OrgScope(org), lambda tx: tx.lock(memberships, *key)):
            waiter = asyncio.create_task(do(storage, OrgScope(org), "remove", memberships, *key))
            await until_waiting(watcher, 1)
            proxy.before = is_cancel_request
            waiter.cancel()
            await asyncio.wait([waiter])
            await until(watcher, "count(*) = 0", "wait_event_type = 'Lock'")
            assert proxy.cuts == 1
        await storage.close()


async def test_a_server_that_cannot_look_after_its_clients_is_served_without(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows the server refuses the setting."""
    connect, refused = asyncpg.connect, []

    async def on_windows(*args: Any, server_settings: dict[str, str], **options: Any) -> Any:
        if "client_connection_check_interval" in server_settings:
            refused.append(server_settings)
            raise asyncpg.InvalidParameterValueError
        return await connect(*args, server_settings=server_settings, **options)

    monkeypatch.setattr(asyncpg, "connect", on_windows)
    async with opened(database) as storage:
        await storage.check()
    assert refused


async def test_interleaved_organizations_see_their_own_rows(database: Database) -> None:
    """Two connections, many organizations, units that fail and callers that go away: no foreign row."""
    async with opened(database, pool=2) as storage:
        orgs = [org_id() for _ in range(10)]
        for org in orgs:
            await storage.run(OrgScope(org), add_each, memberships, [sample(memberships, org, user_id=org)])

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
        async with staying(storage, SYSTEM, lambda tx: tx.page(memberships, limit=1)):
            with pytest.raises(Overloaded) as raised:
                await storage.access("org", "usr", "ses")
            assert raised.value.retry_after
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


async def test_closing_waits_for_connections_that_are_being_mended(database: Database) -> None:
    """Also where the server says nothing any more: they are given up, and no task is left to be destroyed."""
    async with proxied(database.url) as proxy:
        storage = await open_storage(proxy.url(database.url))
        entered = asyncio.Event()

        async def stay(tx: Transaction) -> None:
            await tx.page(memberships, limit=1)
            entered.set()
            await asyncio.Event().wait()

        unit = asyncio.create_task(storage.run(SYSTEM, stay))
        async with asyncio.timeout(PATIENCE):
            await entered.wait()
            proxy.deaf = True
            unit.cancel()
            await asyncio.wait([unit])
            assert running() & MENDING
            await storage.close()
        assert not running() & MENDING


MENDING = {"Pool._mend", "Connection._cancel"}


def running() -> set[str]:
    """The names of what the loop's tasks do."""
    return {task.get_coro().__qualname__ for task in asyncio.all_tasks() if not task.done()}  # type: ignore[union-attr]
