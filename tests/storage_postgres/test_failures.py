"""What may pass is done again until the deadline; what is not known is said to be unknown; nothing is a bug of ours."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from orgstead.api import management
from orgstead.app import App
from orgstead.errors import (
    InvalidValue,
    OrgsteadError,
    OutcomeUnknown,
    Overloaded,
    SchemaOutdated,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageReadOnly,
    Unavailable,
)
from orgstead.model import PlacementKind
from orgstead.settings import Settings
from orgstead.storage import open_storage
from orgstead.storage.port import OrgScope, Space, Storage, Transaction
from orgstead.storage.postgres import failures
from orgstead.storage.tables import memberships, slots
from tests.contract.work import do, rows_of
from tests.engines import Database
from tests.rows import key_of, org_id, sample
from tests.servers import postgres
from tests.storage_postgres.proxy import Proxy, proxied
from tests.storage_postgres.work import (
    SYSTEM,
    administrator,
    connected,
    opened,
    staying,
    until_waiting,
    with_parameters,
)


@asynccontextmanager
async def behind(database: Database, **parameters: Any) -> AsyncIterator[tuple[Storage, Proxy]]:
    """The storage behind a proxy."""
    async with proxied(database.url) as proxy:
        url = proxy.url(with_parameters(database.url, **parameters) if parameters else database.url)
        storage = await open_storage(url, migration_url=database.migration_url)
        try:
            yield storage, proxy
        finally:
            await storage.close()


async def terminate(connection: asyncpg.Connection) -> int:
    """End all connections of the application's role to this database; how many there were."""
    return int(
        await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = $1",
            postgres.run().role,
        )
    )


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_a_deadlock_is_done_again(storage: Storage) -> None:
    """Two units lock two rows in opposite orders; the one that is chosen to fail is repeated, and both are done."""
    org = org_id()
    rows = [sample(memberships, org) for _ in range(2)]
    await storage.run(OrgScope(org), _add, rows)
    attempts = [0, 0]
    both = asyncio.Barrier(2)

    async def work(tx: Transaction, number: int) -> None:
        attempts[number] += 1
        first = await tx.lock(memberships, *key_of(memberships, rows[number]))
        if attempts[number] == 1:
            await both.wait()
        second = await tx.lock(memberships, *key_of(memberships, rows[1 - number]))
        for row in (first, second):
            await tx.replace(memberships, row)

    await asyncio.gather(*(storage.run(OrgScope(org), work, number) for number in range(2)))
    assert sorted(attempts) == [1, 2]
    assert [row.version for row in await rows_of(storage, OrgScope(org), memberships)] == [3, 3]


async def _add(tx: Transaction, rows: list[Any]) -> None:
    await tx.add_many(memberships, rows)


async def test_a_lock_that_is_never_given_up(database: Database) -> None:
    """The wait is bounded by the deadline, and then it is the kind of error that clients come back after."""
    async with opened(database, deadline_ms=100) as storage, connected(database.url) as holder:
        org = org_id()
        row = sample(memberships, org)
        await do(storage, OrgScope(org), "add", memberships, row)
        async with holder.transaction():
            await holder.execute("SELECT set_config('app.system', 'on', true)")
            await holder.execute("SELECT FROM orgstead.memberships FOR UPDATE")
            for verb, args in (
                ("lock", key_of(memberships, row)),
                ("replace", (row,)),
                ("remove", key_of(memberships, row)),
            ):
                with pytest.raises(StorageBusy) as raised:
                    await do(storage, OrgScope(org), verb, memberships, *args)
                assert raised.value.retry_after
        assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def test_a_statement_that_takes_too_long(database: Database) -> None:
    async with opened(database, statement_timeout_ms=50) as storage, connected(database.url) as holder:
        row = sample(memberships, "org_a")
        await do(storage, SYSTEM, "add", memberships, row)
        async with holder.transaction():
            await holder.execute("SELECT set_config('app.system', 'on', true)")
            await holder.execute("SELECT FROM orgstead.memberships FOR UPDATE")
            with pytest.raises(StorageError) as raised:
                await do(storage, SYSTEM, "lock", memberships, *key_of(memberships, row))
            assert "too long" in raised.value.detail


async def test_closing_a_space_waits_for_its_writer(database: Database, storage: Storage) -> None:
    org = org_id()
    space = Space(org, PlacementKind.DEDICATED, "org_closing", 1)
    await storage.create_space(space)

    async with (
        administrator(database) as watcher,
        staying(storage, space, lambda tx: tx.adjust(slots, org, 1, 0, deltas={"records": 1})),
    ):
        closing = asyncio.create_task(storage.close_space(space))
        await until_waiting(watcher, 1)
        assert not closing.done()
    await closing
    (slot,) = await rows_of(storage, space, slots)
    assert (slot.state.value, slot.records) == ("closed", 1)


async def test_where_no_server_is_the_primary_it_is_waited_for(database: Database) -> None:
    """As during a failover: no server of the URL has what it asks for, for now."""
    async with opened(database, target_session_attrs="standby", deadline_ms=50) as storage:
        with pytest.raises(StorageError) as raised:
            await storage.access("org", "usr", "ses")
        assert raised.value.retry_after


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_connection_lost_before_commit_is_nothing_happened(database: Database, storage: Storage) -> None:
    """The work is done again on another connection, and its effect is there once."""
    org = org_id()
    row = sample(memberships, org)
    attempts = 0
    async with administrator(database) as killer:

        async def work(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            await tx.add(memberships, row)
            if attempts == 1:
                assert await terminate(killer) == 1
            await tx.find(memberships, org_id=org, user_id=row.user_id)

        await storage.run(OrgScope(org), work)
        assert attempts == 2
        assert await rows_of(storage, OrgScope(org), memberships) == [row]
        assert await terminate(killer) >= 1  # while nobody uses them
        assert await rows_of(storage, OrgScope(org), memberships) == [row]
        assert await terminate(killer) >= 1
        assert (await storage.access(org, "usr", "ses")).organization is None


async def test_an_error_that_the_work_hides_is_seen_all_the_same(database: Database, storage: Storage) -> None:
    """Work that swallows the loss of its connection is done again, too."""
    org = org_id()
    attempts = 0
    async with administrator(database) as killer:

        async def work(tx: Transaction) -> int:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                await terminate(killer)
                with pytest.raises(StorageError):
                    await tx.page(memberships, limit=1)
                return attempts
            await tx.add(memberships, sample(memberships, org))
            return attempts

        assert await storage.run(OrgScope(org), work) == 2
    assert len(await rows_of(storage, OrgScope(org), memberships)) == 1


def _is_commit(message: bytes) -> bool:
    return message[:1] == b"Q" and message[5:].startswith(b"COMMIT")


@pytest.mark.parametrize("done", [False, True])
async def test_a_connection_lost_during_commit_is_unknown(database: Database, done: bool) -> None:
    """Whether the server committed or not, it is said to be unknown, and never done again."""
    org = org_id()
    row = sample(memberships, org)
    attempts = 0

    async def work(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await tx.add(memberships, row)

    async with behind(database) as (storage, proxy):
        setattr(proxy, "after" if done else "before", _is_commit)
        with pytest.raises(OutcomeUnknown):
            await storage.run(OrgScope(org), work)
        proxy.before = proxy.after = lambda message: False
        assert (attempts, proxy.cuts) == (1, 1)
        assert await rows_of(storage, OrgScope(org), memberships) == ([row] if done else [])


@pytest.mark.parametrize("kind", [PlacementKind.POOLED, PlacementKind.DEDICATED])
async def test_a_space_whose_commit_is_unknown_can_be_made_again(database: Database, kind: PlacementKind) -> None:
    space = Space(org_id(), kind, "org_unknown" if kind is PlacementKind.DEDICATED else None, 1)
    assert database.migration_url
    for side in ("before", "after"):
        async with proxied(database.url) as proxy:
            storage = await open_storage(proxy.url(database.url), migration_url=proxy.url(database.migration_url))
            setattr(proxy, side, _is_commit)
            with pytest.raises(OutcomeUnknown):
                await storage.create_space(space)
            await storage.close()
    async with opened(database) as storage:
        await storage.create_space(space)
        assert len(await rows_of(storage, space, slots)) == 1


@pytest.mark.parametrize("part", [b"BEGIN", b"orgstead", b"access"])
async def test_a_connection_lost_anywhere_else_is_not_noticed(database: Database, part: bytes) -> None:
    """Where nothing can have been done, the caller hears nothing of it."""
    org = org_id()
    async with behind(database) as (storage, proxy):

        def once(message: bytes) -> bool:
            return part in message and proxy.cuts == 0

        proxy.before = once
        await do(storage, OrgScope(org), "add", memberships, sample(memberships, org))
        assert (await storage.access(org, "usr", "ses")).organization is None
        assert proxy.cuts == 1


async def test_a_server_without_a_connection_left(database: Database) -> None:
    """Refused until the deadline: 503; once there is one again, the next attempt gets it."""
    role = postgres.run().role
    async with administrator(database) as ruler:
        await ruler.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
        try:
            async with connected(database.url) as hog:
                async with opened(database, deadline_ms=100) as storage:
                    for ask in (storage.access("o", "u", "s"), rows_of(storage, SYSTEM, memberships)):
                        with pytest.raises(Overloaded) as raised:
                            await ask
                        assert raised.value.retry_after
                async with opened(database) as patient:
                    asking = asyncio.create_task(patient.access("o", "u", "s"))
                    await asyncio.sleep(0.05)
                    assert not asking.done()
                    hog.terminate()
                    assert (await asking).organization is None
        finally:
            await ruler.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")


async def test_a_server_that_only_reads(database: Database) -> None:
    async with administrator(database) as ruler, opened(database, pool=1) as storage:
        name = await ruler.fetchval("SELECT quote_ident(current_database())")
        await ruler.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        row = sample(memberships, "org_a")
        with pytest.raises(StorageReadOnly):
            await do(storage, SYSTEM, "add", memberships, row)
        assert await rows_of(storage, SYSTEM, memberships) == []
        with pytest.raises(StorageReadOnly):
            await storage.create_space(Space("org_a", PlacementKind.POOLED, None, 1))
        assert await rows_of(storage, SYSTEM, memberships) == []
        await ruler.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        with pytest.raises(StorageReadOnly):
            await do(storage, SYSTEM, "add", memberships, row)  # no connection is kept that ever said so
        await do(storage, SYSTEM, "add", memberships, row)


async def test_a_server_that_only_reads_is_not_ready(database: Database) -> None:
    """And ready again when it takes writes, although none has met the connection that said it does not."""
    async with administrator(database) as ruler:
        name = await ruler.fetchval("SELECT quote_ident(current_database())")
        await ruler.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with opened(database, pool=1) as storage:
            with pytest.raises(StorageReadOnly) as raised:
                await storage.check()
            assert "default_transaction_read_only" in (raised.value.next or "")
            assert await management.unready(App(Settings(), storage)) == "storage.read_only"
            reader = await open_storage(database.url, writable=False)
            await reader.check()
            await reader.close()
            await ruler.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await storage.check()


async def test_a_standby_can_be_read_and_is_not_ready() -> None:
    server = await asyncio.to_thread(postgres.new_server)
    try:
        run = postgres.Run(server.url, server, "standby", "secret")
        await run.make_roles()
        await run.execute(f'CREATE DATABASE standby OWNER "{run.owner}"')
        database = Database(run.url(run.role, "standby"), run.url(run.owner, "standby"))
        async with database.opened() as storage:
            await storage.check()
        await asyncio.to_thread(server.stop, signal.SIGINT)
        (server.folder / "data" / "standby.signal").touch()
        await asyncio.to_thread(server.start)
        async with opened(database) as storage:
            assert await rows_of(storage, SYSTEM, memberships) == []
            with pytest.raises(StorageReadOnly, match="standby") as raised:
                await storage.check()
            assert "primary" in (raised.value.next or "")
    finally:
        await asyncio.to_thread(server.remove)


async def test_opened_for_reading_only(database: Database) -> None:
    storage = await open_storage(database.url, migration_url=database.migration_url, writable=False)
    await storage.check()
    assert await rows_of(storage, SYSTEM, memberships) == []
    space = Space("org_a", PlacementKind.POOLED, None, 1)
    for refused in (
        do(storage, SYSTEM, "add", memberships, sample(memberships)),
        storage.migrate(),
        storage.create_space(space),
        storage.close_space(space),
        storage.drop_space(space),
    ):
        with pytest.raises(StorageReadOnly):
            await refused
    await storage.close()


async def test_a_server_that_is_not_there_crashes_and_comes_back() -> None:
    """503 while it is away; a unit that was at work when it crashed is done once, after the restart."""
    server = await asyncio.to_thread(postgres.new_server)
    try:
        run = postgres.Run(server.url, server, "crash", "secret")
        await run.make_roles()
        await run.execute(f'CREATE DATABASE crash OWNER "{run.owner}"')
        database = Database(run.url(run.role, "crash"), run.url(run.owner, "crash"))
        org = org_id()
        row = sample(memberships, org)
        async with database.opened() as storage, opened(database, deadline_ms=100) as hasty:
            attempts = 0

            async def work(tx: Transaction) -> None:
                nonlocal attempts
                attempts += 1
                await tx.add(memberships, row)
                if attempts == 1:
                    server.stop()
                    for ask in (
                        hasty.access(org, "usr", "ses"),
                        do(hasty, SYSTEM, "add", memberships, sample(memberships)),
                        hasty.check(),
                        hasty.stats(),
                    ):
                        with pytest.raises(Unavailable) as raised:
                            await ask
                        assert raised.value.retry_after
                    server.start()
                await tx.find(memberships, org_id=org, user_id=row.user_id)

            await storage.run(OrgScope(org), work)
            assert attempts == 2
            assert await rows_of(storage, OrgScope(org), memberships) == [row]
            assert (await hasty.access(org, "usr", "ses")).organization is None
    finally:
        server.remove()


# --- the table --------------------------------------------------------------------------------------------------------

STATES: dict[str, tuple[type[OrgsteadError], bool]] = {
    "40001": (StorageBusy, True),
    "40P01": (StorageBusy, True),
    "55P03": (StorageBusy, True),
    "53300": (Overloaded, True),
    "57P01": (StorageError, True),
    "57P02": (StorageError, True),
    "57P03": (StorageError, True),
    "08006": (StorageError, True),
    "25P03": (StorageError, True),
    "53100": (StorageFull, False),
    "25006": (StorageReadOnly, False),
    "57014": (StorageError, False),
    "42501": (StorageError, False),
    "XX001": (StorageError, False),
    "XX000": (StorageError, False),
    "58030": (StorageError, False),
    "53200": (StorageError, False),
    "42P01": (SchemaOutdated, False),
    "3F000": (SchemaOutdated, False),
    "22003": (InvalidValue, False),
    "22021": (InvalidValue, False),
    "23502": (InvalidValue, False),
    "54000": (InvalidValue, False),
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_an_error_of_ours(state: str) -> None:
    """Without a word of the server's."""
    error = asyncpg.PostgresError.new({"C": state, "M": "relation secret_table", "S": "ERROR"})
    expected, passing = STATES[state]
    ours = failures.translated(error)
    assert type(ours) is expected
    assert failures.is_passing(error) == passing
    assert "secret_table" not in str(ours)
    assert failures.translated(failures.Passing(error)).__class__ is expected


def test_errors_of_the_network_pass_and_others_are_left_alone() -> None:
    for error in (ConnectionRefusedError(), ConnectionResetError(), TimeoutError()):
        assert failures.is_passing(error)
        assert type(failures.translated(error)) is StorageError
    bug = KeyError("x")
    assert failures.translated(bug) is bug
    assert not failures.is_passing(bug)
