"""What SQLite does with our statements: indexes are used, nothing is sorted that an index has in order."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from orgstead.kit import now
from orgstead.model import (
    Membership,
    OperationState,
    Organization,
    OrganizationStatus,
    PlacementKind,
    Role,
    Session,
    User,
)
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Scope, Space, Table, Transaction
from orgstead.storage.sqlite import access
from orgstead.storage.sqlite.engine import SqliteStorage
from tests.storage_sqlite.work import ORG, SYSTEM, writer_of

pytestmark = pytest.mark.anyio

POOLED = Space(ORG, PlacementKind.POOLED, None, 1)
AT = now()


async def plans(storage: SqliteStorage, scope: Scope, work: Any) -> list[str]:
    """The query plans of the statements with a condition that ``work`` runs."""
    statements: list[str] = []
    connection = writer_of(storage).connection
    connection.set_trace_callback(statements.append)
    await storage.run(scope, work)
    connection.set_trace_callback(None)
    found = [text for text in statements if " WHERE " in text]
    assert found
    return [_plan(connection, text) for text in found]


def _plan(connection: sqlite3.Connection, text: str) -> str:
    return "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}"))


PAGES: list[tuple[Scope, Table[Any], dict[str, Any], tuple[str, ...], tuple[Any, ...]]] = [
    (SYSTEM, tables.organizations, {}, (), ("org_a",)),
    (SYSTEM, tables.organizations, {}, ("-id",), ("org_a",)),
    (SYSTEM, tables.organizations, {"status": OrganizationStatus.CLOSED}, ("purge_at",), (AT, "org_a")),
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
async def test_pages_come_out_of_an_index(storage: SqliteStorage, page: Any) -> None:
    scope, table, where, order, after = page

    async def work(tx: Transaction) -> None:
        await tx.page(table, where, order=order, limit=10)
        await tx.page(table, where, order=order, after=after, limit=10)

    first, *following = await plans(storage, scope, work)
    assert "TEMP B-TREE" not in first
    for plan in following:
        assert plan.startswith("SEARCH"), plan
        assert "TEMP B-TREE" not in plan


async def test_a_page_between_empty_values_comes_out_of_an_index(storage: SqliteStorage) -> None:
    async def work(tx: Transaction) -> None:
        where = {"status": OrganizationStatus.CLOSED}
        for order, at in (("purge_at", None), ("purge_at", AT), ("-purge_at", AT)):
            await tx.page(tables.organizations, where, order=[order], after=(at, "org_a"), limit=10)

    for plan in await plans(storage, SYSTEM, work):
        assert plan.startswith("SEARCH"), plan
        assert "TEMP B-TREE" not in plan


async def test_work_is_claimed_by_index(storage: SqliteStorage) -> None:
    async def work(tx: Transaction) -> None:
        where = {"state": OperationState.RUNNING}
        await tx.claim(tables.operations, where, due=AT, until=AT, owner="me", limit=10)

    for plan in await plans(storage, SYSTEM, work):
        assert plan.startswith("SEARCH"), plan
        assert "TEMP B-TREE" not in plan


async def test_one_row_is_found_by_its_key(storage: SqliteStorage) -> None:
    async def work(tx: Transaction) -> None:
        await tx.find(tables.users, email_key="a")
        await tx.find(tables.memberships, org_id="a", user_id="b")
        await tx.find_many(tables.memberships, [("a", "b"), ("c", "d")])
        await tx.find_many(tables.users, [("a",), ("b",)])
        await tx.take(tables.slugs, slug="a")
        await tx.adjust(tables.audit_heads, "a", deltas={"seq": 1}, at_most={"seq": 5})

    for plan in await plans(storage, SYSTEM, work):
        assert "SEARCH" in plan
        assert not {"SCAN users", "SCAN memberships", "SCAN slugs", "SCAN audit_heads"} & set(plan.split("; ")), plan


@pytest.mark.parametrize("statement", [access._WITH_SESSION, access._WITH_API_KEY], ids=["session", "API key"])
async def test_the_hot_read_is_five_searches_by_primary_key(storage: SqliteStorage, statement: str) -> None:
    connection = writer_of(storage).connection
    steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", ("a", "b", "c"))]
    searches = [step for step in steps if step.startswith("SEARCH")]
    assert len(searches) == 5
    assert all("PRIMARY KEY" in step for step in searches)


async def test_access_sees_the_last_commit_while_others_write(storage: SqliteStorage) -> None:
    organization = Organization(
        id=ORG, name="0", slug="a", plan="free", status=OrganizationStatus.ACTIVE, created_at=AT, updated_at=AT
    )
    user = User(id="usr", email="a@b", email_key="a@b", password_hash="x", created_at=AT, updated_at=AT)
    membership = Membership(org_id=ORG, user_id="usr", role=Role.OWNER, created_at=AT, updated_at=AT)
    session = Session(
        id="ses", user_id="usr", org_id=ORG, user_epoch=1, seed="s", rotated_at=AT, created_at=AT, expires_at=AT
    )

    async def make(tx: Transaction) -> None:
        await tx.add(tables.organizations, organization)
        await tx.add(tables.users, user)
        await tx.add(tables.memberships, membership)
        await tx.add(tables.sessions, session)

    async def rename(tx: Transaction, name: str) -> None:
        row = await tx.get(tables.organizations, ORG)
        await tx.replace(tables.organizations, replace(row, name=name))

    async def swap(tx: Transaction, role: Role) -> None:  # a row of the same key and version, with another value
        await tx.remove(tables.memberships, ORG, "usr")
        await tx.add(tables.memberships, replace(membership, role=role))

    assert (await storage.access(ORG, "usr", "ses")).organization is None
    await storage.run(SYSTEM, make)
    busy = asyncio.create_task(_keep_writing(storage))
    for n in range(50):
        await storage.run(SYSTEM, rename, str(n))
        role = (Role.VIEWER, Role.ADMIN)[n % 2]
        await storage.run(SYSTEM, swap, role)
        seen = await storage.access(ORG, "usr", "ses")
        assert seen.organization is not None
        assert seen.membership is not None
        assert (seen.organization.name, seen.membership.role) == (str(n), role)
        assert seen.session == session
    busy.cancel()
    await asyncio.wait([busy])


async def _keep_writing(storage: SqliteStorage) -> None:
    for n in range(10**9):
        await storage.run(SYSTEM, _heads, f"org_{n}")


async def _heads(tx: Transaction, org_id: str) -> None:
    await tx.adjust(tables.audit_heads, org_id, deltas={"seq": 1})
