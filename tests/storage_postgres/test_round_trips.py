"""How often the server is asked: a round trip costs more than a row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from orgstead.errors import StorageError
from orgstead.model import Access, OrganizationStatus, PlacementKind, SlotState
from orgstead.storage import open_storage
from orgstead.storage.port import OrgScope, Space, Storage, Transaction
from orgstead.storage.postgres import access
from orgstead.storage.tables import memberships, organizations, records, slots, slugs, users
from tests.contract.work import look
from tests.engines import Database
from tests.rows import MORNING, org_id, sample
from tests.storage_postgres.proxy import Proxy, proxied
from tests.storage_postgres.work import SYSTEM

AROUND = 2
"""BEGIN with the scope's settings in one message, and COMMIT."""


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    async with proxied(database.url) as proxy:
        yield proxy


@pytest.fixture
async def counted(database: Database, proxy: Proxy) -> AsyncIterator[Storage]:
    """A storage behind the proxy, with one connection."""
    url = proxy.url(database.url + "?pool=1")
    storage = await open_storage(url, migration_url=database.migration_url)
    yield storage
    await storage.close()


async def trips(proxy: Proxy, ask: Callable[[], Awaitable[Any]]) -> int:
    """The round trips of the second time: the first one connects and prepares."""
    await ask()
    before = proxy.round_trips
    await ask()
    return proxy.round_trips - before


async def test_access_is_one(counted: Storage, proxy: Proxy) -> None:
    assert await trips(proxy, lambda: counted.access("org", "usr", "ses")) == 1


async def test_access_of_all_who_ask_at_once_is_one(counted: Storage, proxy: Proxy) -> None:
    async def ask() -> None:
        await asyncio.gather(*(counted.access(org_id(), "usr", "ses") for _ in range(100)))

    assert await trips(proxy, ask) == 1


async def test_who_comes_while_the_questions_are_on_their_way_is_asked_for_together(
    counted: Storage, proxy: Proxy
) -> None:
    """Two questions are on their way at most, so that the third one is that of all the others."""

    async def ask() -> None:
        proxy.tells.clear()
        asking = []
        for _ in range(100):
            asking.append(asyncio.create_task(counted.access(org_id(), "usr", "ses")))
            await asyncio.sleep(0)
        proxy.tells.set()
        await asyncio.gather(*asking)

    assert await trips(proxy, ask) == 3


async def test_a_question_that_fails_is_told_to_all_who_asked_it_and_to_nobody_else(
    counted: Storage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> list[Access | BaseException]:
        return await asyncio.gather(*(counted.access(org_id(), "usr", "ses") for _ in range(5)), return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(access, "CALL", "SELECT no_such_column")
        assert [type(answer) for answer in await ask()] == [StorageError] * 5
    assert await ask() == [Access(None, None, None, None, None)] * 5


async def test_a_row_that_cannot_be_read_fails_its_own_caller_only(database: Database, counted: Storage) -> None:
    """A newer version may have written it, while processes of both are at work."""
    rows = [sample(organizations, org_id()) for _ in range(2)]
    await counted.run(SYSTEM, lambda tx: tx.add_many(organizations, rows))
    connection = await asyncpg.connect(database.url)
    await connection.execute("SELECT set_config('app.system', 'on', false)")
    await connection.execute("UPDATE orgstead.organizations SET status = 'weird' WHERE id = $1", rows[0].id)
    await connection.close()
    weird, sound = await asyncio.gather(*(counted.access(row.id, "usr", "ses") for row in rows), return_exceptions=True)
    assert isinstance(weird, Exception)
    assert sound == Access(rows[1], None, None, None, None)


async def test_a_read_is_one_for_each_verb(counted: Storage, proxy: Proxy) -> None:
    assert await trips(proxy, lambda: look(counted, SYSTEM, "find", users, id="none")) == AROUND + 1
    keys = [(f"usr_{number}",) for number in range(1000)]
    assert await trips(proxy, lambda: look(counted, SYSTEM, "find_many", users, keys)) == AROUND + 1
    page = {"order": ("-purge_at",), "after": (MORNING, "org"), "limit": 10}
    assert (
        await trips(
            proxy, lambda: look(counted, SYSTEM, "page", organizations, {"status": OrganizationStatus.CLOSED}, **page)
        )
        == 3
    )


async def test_a_write_is_one_for_each_verb(counted: Storage, proxy: Proxy) -> None:
    space = Space(org_id(), PlacementKind.POOLED, None, 1)
    await counted.create_space(space)

    async def put(tx: Transaction) -> None:
        assert await tx.adjust(slots, space.org_id, 1, 0, deltas={"records": 1}, where={"state": SlotState.OPEN})
        row = sample(records, space.org_id)
        await tx.add(records, row)
        row = await tx.replace(records, row)
        await tx.take(records, org_id=space.org_id, collection=row.collection, id=row.id)

    assert await trips(proxy, lambda: counted.run(space, put)) == AROUND + 4


async def test_many_rows_are_one_for_each_thousand(counted: Storage, proxy: Proxy) -> None:
    org = org_id()
    for rows, expected in ((1, 1), (1000, 1), (1001, 2)):

        async def write(tx: Transaction, rows: int = rows) -> None:
            added = [sample(memberships, org) for _ in range(rows)]
            await tx.add_many(memberships, added)
            await tx.replace_many(memberships, [replace(row, role=row.role) for row in added])

        assert await trips(proxy, lambda: counted.run(OrgScope(org), write)) == AROUND + 2 * expected


async def test_rows_of_several_tables_are_one(counted: Storage, proxy: Proxy) -> None:
    for many, expected in ((1, 1), (2, 1), (1000, 1), (1001, 2)):

        async def write(tx: Transaction, many: int = many) -> None:
            org = org_id()
            members = [sample(memberships, org) for _ in range(many)]
            person, claim = sample(users), sample(slugs)
            await tx.add_all([(users, [person]), (memberships, members), (organizations, []), (slugs, [claim])])

        assert await trips(proxy, lambda: counted.run(SYSTEM, write)) == AROUND + expected


async def test_many_spaces_are_one(counted: Storage, proxy: Proxy) -> None:
    async def create() -> None:
        await counted.create_spaces([Space(org_id(), PlacementKind.POOLED, None, 1) for _ in range(500)])

    assert await trips(proxy, create) == AROUND + 1
