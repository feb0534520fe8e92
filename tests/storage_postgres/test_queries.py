"""What PostgreSQL does with our statements: indexes are used, nothing is sorted that an index has in order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from orgstead.kit import now
from orgstead.model import OperationState, OrganizationStatus, PlacementKind, Role
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Scope, Space, Table, Transaction
from orgstead.storage.postgres import policies
from orgstead.storage.postgres.transaction import PostgresTransaction
from tests.engines import Database
from tests.storage_postgres.work import SYSTEM, connected

ORG = "org_a"
POOLED = Space(ORG, PlacementKind.POOLED, None, 1)
AT = now()


class Explained(PostgresTransaction):
    """A unit that asks for the plans of its statements instead of running them."""

    plans: list[str]

    def __init__(self, connection: asyncpg.Connection, scope: Scope) -> None:
        super().__init__(connection, scope, writable=True)
        self.plans = []

    async def rows(self, text: str, values: Any) -> list[Any]:
        lines = await self._connection.fetch(f"EXPLAIN (COSTS OFF) {text}", *values)
        self.plans.append("\n".join(line for (line,) in lines))
        return []

    async def count(self, text: str, values: Any, *tables: Any) -> int:
        await self.rows(text, values)
        return 1


async def plans(database: Database, scope: Scope, work: Any) -> list[str]:
    """The plans of the statements of ``work``, where reading a whole table is no cheaper than using an index."""
    async with connected(database.url) as connection:
        await connection.execute(policies.begin(scope, ""))
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        tx = Explained(connection, scope)
        await work(tx)
        assert tx.plans
        return tx.plans


PAGES: list[tuple[Scope, Table[Any], dict[str, Any], tuple[str, ...], tuple[Any, ...]]] = [
    (SYSTEM, tables.organizations, {}, (), ("org_a",)),
    (SYSTEM, tables.organizations, {}, ("-id",), ("org_a",)),
    (SYSTEM, tables.organizations, {"status": OrganizationStatus.CLOSED}, ("purge_at",), (AT, "org_a")),
    (SYSTEM, tables.organizations, {"status": OrganizationStatus.CLOSED}, ("-purge_at",), (AT, "org_a")),
    (SYSTEM, tables.organizations, {"status": OrganizationStatus.CLOSED}, ("purge_at",), (None, "org_a")),
    (SYSTEM, tables.slugs, {"org_id": ORG}, (), ("a-slug",)),
    (SYSTEM, tables.memberships, {"user_id": "usr_a"}, ("org_id",), ("org_a", "usr_a")),
    (OrgScope(ORG), tables.memberships, {"role": Role.OWNER}, ("user_id",), ("usr_a", ORG)),
    (SYSTEM, tables.sessions, {"user_id": "usr_a"}, ("-created_at",), (AT, "ses_a")),
    (SYSTEM, tables.sessions, {}, ("expires_at",), (AT, "ses_a")),
    (SYSTEM, tables.operations, {"state": OperationState.RUNNING}, ("updated_at",), (AT, "org_a", "op_a")),
    (SYSTEM, tables.operations, {}, ("-id", "-org_id"), ("op_a", "org_a")),
    (OrgScope(ORG), tables.audit_entries, {}, ("-seq",), (7, ORG)),
    (OrgScope(ORG), tables.events, {}, (), (ORG, "evt_a")),
    (POOLED, tables.records, {"collection": "c"}, ("id",), ("rec_a", ORG, "c")),
    (POOLED, tables.records, {}, ("-collection", "-id"), ("c", "rec_a", ORG)),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page[1].name}-{'.'.join(page[3])}")
async def test_pages_come_out_of_an_index(database: Database, page: Any) -> None:
    """From the first row on: what follows a mark is where the index is entered, not what is filtered from its start."""
    scope, table, where, order, after = page

    async def work(tx: Transaction) -> None:
        await tx.page(table, where, order=order, limit=10)
        await tx.page(table, where, order=order, after=after, limit=10)

    first, following = await plans(database, scope, work)
    assert "Index" in first
    assert "Sort" not in first
    scans = following.count("Index Scan") + following.count("Index Only Scan")
    assert "Seq Scan" not in following
    nodes = [line.split("->")[-1].split()[0] for line in following.splitlines() if "->" in line or line == "Limit"]
    assert ("Sort", "Index") not in set(pairwise(nodes)), following  # only what a limit let through is sorted
    assert following.count("Index Cond") == scans, following


async def test_work_is_claimed_by_index(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        where = {"state": OperationState.RUNNING}
        await tx.claim(tables.operations, where, due=AT, until=AT, owner="me", limit=10)

    (plan,) = await plans(database, SYSTEM, work)
    assert "Seq Scan" not in plan
    assert "lease_until <=" in "".join(line for line in plan.splitlines() if "Index Cond" in line)


async def test_one_row_is_found_by_its_key(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        await tx.find(tables.users, email_key="a")
        await tx.find(tables.memberships, org_id="a", user_id="b")
        await tx.find_many(tables.memberships, [("a", "b"), ("c", "d")])
        await tx.find_many(tables.users, [("a",), ("b",)])
        await tx.take(tables.slugs, slug="a")
        await tx.adjust(tables.audit_heads, "a", deltas={"seq": 1}, at_most={"seq": 5})

    for plan in await plans(database, SYSTEM, work):
        assert "Index Cond" in plan, plan
        assert "Seq Scan" not in plan, plan
