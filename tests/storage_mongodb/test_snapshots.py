"""Reading without transactions, as MongoDB itself is read: what is read, and (there) that it is of one moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orgstead.storage.mongodb.engine import MongoStorage
from orgstead.storage.port import OrgScope, Storage
from orgstead.storage.tables import memberships
from tests.contract import test_access, test_pages, test_units
from tests.contract.work import add_each, do, look, rows_of
from tests.engines import Database
from tests.rows import org_id, sample
from tests.storage_mongodb.work import opened, with_snapshot_reads


@pytest.fixture
async def snapshots(database: Database) -> AsyncIterator[MongoStorage]:
    """The storage as it is opened by default."""
    async with opened(with_snapshot_reads(database.url)) as storage:
        yield storage


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (test_access.test_access_gives_every_part, {}),
        (test_access.test_access_of_nobody, {}),
        (test_access.test_access_sees_the_latest_commit, {}),
        (test_units.test_p01_reading_units_write_nothing, {"how": "read", "verb": "add"}),
        (test_units.test_p03_a_transaction_kept_beyond_its_unit_is_of_no_use, {}),
        (test_pages.test_p07_every_order_is_total, {"order": ("-error", "kind")}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_promise_of_the_contract(snapshots: Storage, check: Any, arguments: dict[str, Any]) -> None:
    await check(storage=snapshots, **arguments)


async def test_what_was_acknowledged_is_read(snapshots: Storage) -> None:
    org = org_id()
    rows = [sample(memberships, org) for _ in range(300)]
    await snapshots.run(OrgScope(org), add_each, memberships, rows[:1])
    assert await rows_of(snapshots, OrgScope(org), memberships) == rows[:1]
    await do(snapshots, OrgScope(org), "add_many", memberships, rows[1:])
    assert len(await rows_of(snapshots, OrgScope(org), memberships)) == 300
    assert (await look(snapshots, OrgScope(org), "aggregate", memberships)) == [{"count": 300}]


@pytest.mark.real_mongodb
@pytest.mark.parametrize("how", ["read", "scan"])
async def test_reads_are_of_one_moment(snapshots: Storage, how: str) -> None:
    await test_units.test_p01_reading_units_see_one_snapshot(snapshots, how)


@pytest.mark.real_mongodb
async def test_access_is_of_one_moment(snapshots: Storage) -> None:
    await test_access.test_access_is_one_snapshot(snapshots)


async def test_a_cancelled_unit_holds_nothing(database: Database) -> None:
    """Cancelled at any await, a unit is rolled back: whoever comes next writes the same row at once."""
    async with opened(database.url) as storage:
        org = org_id()
        row = sample(memberships, org)
        await do(storage, OrgScope(org), "add", memberships, row)
        locked = asyncio.Event()

        async def forever(tx: Any) -> None:
            await tx.lock(memberships, org, row.user_id)
            locked.set()
            await asyncio.Event().wait()

        for _ in range(5):
            locked.clear()
            unit = asyncio.create_task(storage.run(OrgScope(org), forever))
            await locked.wait()
            unit.cancel()
            await asyncio.gather(unit, return_exceptions=True)
            row = await do(storage, OrgScope(org), "replace", memberships, row)
        assert row.version == 6
