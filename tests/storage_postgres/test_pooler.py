"""Behind PgBouncer, which gives a server's connection for one transaction at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from orgstead.errors import ConfigurationError, NotFound
from orgstead.model import PlacementKind
from orgstead.storage import open_storage
from orgstead.storage.port import OrgScope, Space, Storage, Transaction
from orgstead.storage.tables import memberships, records
from tests.contract import test_access, test_concurrency, test_digests, test_spaces, test_spaces_renamed, test_units
from tests.contract.work import DEDICATED, POOLED, add_each, do, rows_of
from tests.engines import Database
from tests.rows import org_id, sample
from tests.servers import postgres
from tests.storage_postgres.pooler import SERVER_CONNECTIONS, pooled
from tests.storage_postgres.work import SYSTEM, administrator


@pytest.fixture
async def behind(database: Database) -> AsyncIterator[Database]:
    """The database behind a pooler."""
    async with pooled(database) as place:
        yield place


@pytest.fixture
async def storage(behind: Database) -> AsyncIterator[Storage]:
    """Its storage, told of the pooler."""
    suffix = "?pooler=transaction&sslmode=disable"
    opened = await open_storage(behind.url + suffix, migration_url=f"{behind.migration_url}{suffix}")
    yield opened
    await opened.close()


async def test_a_url_that_does_not_say_so(behind: Database) -> None:
    storage = await open_storage(behind.url, migration_url=behind.migration_url)
    with pytest.raises(ConfigurationError) as raised:
        await storage.check()
    assert "pooler=transaction" in (raised.value.next or "")
    await storage.close()


async def test_what_the_pooler_refuses_is_explained(behind: Database) -> None:
    for url in (
        behind.url.replace(postgres.run().password, "wrong"),
        behind.url.rpartition("/")[0] + "/no_such_database",
    ):
        storage = await open_storage(url + "?pooler=transaction&sslmode=disable&deadline_ms=100")
        with pytest.raises(ConfigurationError) as raised:
            await storage.check()
        assert "ORGSTEAD_DATABASE_URL" in raised.value.detail
        await storage.close()


CONTRACT: list[tuple[Any, dict[str, Any]]] = [
    (test_access.test_access_gives_every_part, {}),
    (test_access.test_access_sees_the_latest_commit, {}),
    (test_access.test_access_is_one_snapshot, {}),
    (test_units.test_p01_work_that_raises_leaves_nothing, {}),
    (test_units.test_p01_a_cancelled_caller_leaves_all_or_nothing, {}),
    (test_units.test_p01_reading_units_see_one_snapshot, {"how": "read"}),
    (test_units.test_p03_a_caught_error_still_ends_the_transaction, {}),
    (test_concurrency.test_race_of_units_on_one_row_adds_up, {}),
    (test_concurrency.test_race_for_a_unique_value_has_one_winner, {}),
    (test_concurrency.test_race_to_claim_gives_each_row_to_one, {}),
    (test_concurrency.test_race_for_a_quota_never_exceeds_it, {"kind": DEDICATED}),
    (test_concurrency.test_race_of_writers_with_a_closing_space, {"kind": DEDICATED}),
    (test_digests.test_p10_equal_rows_in_both_kinds_of_space, {}),
    (test_spaces.test_p09_a_space_that_is_not_there, {}),
    (test_spaces.test_p09_open_under_the_next_epoch, {"kind": POOLED}),
    (test_spaces_renamed.test_p09_rename_back_and_forth, {}),
    (test_spaces_renamed.test_p09_drop_removes_and_counts_everything, {"kind": POOLED}),
]


@pytest.mark.parametrize(("check", "arguments"), CONTRACT, ids=[check.__name__ for check, _ in CONTRACT])
async def test_the_contract_holds(storage: Storage, check: Any, arguments: dict[str, Any]) -> None:
    await storage.migrate()
    await storage.check()
    await check(storage=storage, **arguments)


async def test_many_organizations_share_two_connections(database: Database, storage: Storage) -> None:
    """Every one sees its own rows, whatever became of the unit before on the same connection."""
    orgs = [org_id() for _ in range(20)]
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
            for _ in range(number % 13):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and not isinstance(task.exception(), NotFound):
            assert task.result() == {org}

    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(visit(number))
    async with administrator(database) as watcher:
        used = await watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE '%_app'"
        )
    assert used <= SERVER_CONNECTIONS


async def test_a_server_connection_that_is_taken_away(database: Database, storage: Storage) -> None:
    org = org_id()
    space = Space(org, PlacementKind.DEDICATED, "org_pooled", 1)
    await storage.create_space(space)
    row = sample(records, org)
    attempts = 0
    async with administrator(database) as killer:

        async def work(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            await tx.add(records, row)
            if attempts == 1:
                await killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await tx.find(records, org_id=org, collection=row.collection, id=row.id)

        await storage.run(space, work)
    assert attempts == 2
    assert await rows_of(storage, replace(space), records) == [row]
    await do(storage, SYSTEM, "add", memberships, sample(memberships, org))
