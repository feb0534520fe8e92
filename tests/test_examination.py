"""What ``doctor`` is told of servers: how versions, clocks and connections are judged, and faults on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from orgstead.findings import Finding, Status
from orgstead.storage import examination
from orgstead.storage.mongodb import examine as mongodb
from orgstead.storage.postgres import examine as postgres
from tests.engines import new_database
from tests.servers import postgres as servers

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
OK, WARN, FAIL = Status.OK, Status.WARN, Status.FAIL


# --- judgements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "status"), [(0, OK), (5, OK), (-5, OK), (7, WARN), (-6, WARN), (86_400, WARN), (-86_400, WARN)]
)
def test_a_clock_may_differ_by_seconds(ahead: int, status: Status) -> None:
    """The question took one second."""
    found = examination.clock(NOW + timedelta(seconds=ahead), NOW, NOW + timedelta(seconds=1))
    assert found.status is status
    assert found.detail.startswith("The clocks")


@pytest.mark.parametrize(("wanted", "status"), [(14, OK), (80, OK), (81, WARN), (100, WARN), (101, FAIL)])
def test_a_service_leaves_connections_to_others(wanted: int, status: Status) -> None:
    assert examination.connections(wanted, 100, "do").status is status


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (140_020, WARN, "older"),
        (150_015, WARN, "CVE"),
        (150_016, OK, ""),
        (160_011, WARN, "upgrade it to 16.12"),
        (170_008, OK, ""),
        (180_001, WARN, "18.2"),
        (180_004, OK, ""),
        (190_000, OK, ""),
    ],
)
def test_releases_of_postgres(number: int, status: Status, said: str) -> None:
    facts: Any = {"number": number, "version": "x", "encoding": "UTF8"}
    found = postgres._version(facts)
    assert (found.status, said in f"{found.detail} {found.next}") == (status, True)
    assert postgres._version(facts | {"encoding": "LATIN1"}).status is FAIL


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        ((4, 2, 99), FAIL, "CVE-2025-14847"),
        ((6, 0, 26), FAIL, "CVE-2025-14847"),
        ((6, 0, 27), WARN, "no more fixes"),
        ((7, 0, 27), FAIL, "CVE-2025-14847"),
        ((7, 0, 28), WARN, "7.0.48"),
        ((7, 0, 48), OK, ""),
        ((8, 0, 16), FAIL, "CVE-2025-14847"),
        ((8, 0, 36), WARN, "8.0.37"),
        ((8, 0, 37), OK, ""),
        ((8, 2, 2), FAIL, "CVE-2025-14847"),
        ((8, 2, 11), WARN, "no more fixes"),
        ((9, 0, 7), OK, ""),
        ((9, 1, 0), OK, ""),
    ],
)
def test_releases_of_mongodb(version: tuple[int, ...], status: Status, said: str) -> None:
    found = mongodb._version(version)
    assert (found.status, said in f"{found.detail} {found.next}") == (status, True)


@pytest.mark.parametrize(
    ("hello", "status"),
    [
        ({"isWritablePrimary": True}, FAIL),
        ({"setName": "rs", "isWritablePrimary": False, "hosts": ["a", "b", "c"]}, FAIL),
        ({"setName": "rs", "isWritablePrimary": True, "hosts": ["a"]}, WARN),
        ({"setName": "rs", "isWritablePrimary": True, "hosts": ["a", "b", "c"]}, OK),
        ({"msg": "isdbgrid", "isWritablePrimary": True}, OK),
    ],
)
def test_deployments_of_mongodb(hello: dict[str, Any], status: Status) -> None:
    found = mongodb._deployment(hello)
    assert found.status is status
    assert found.next or status is OK


@pytest.mark.parametrize(("seconds", "status"), [(300, OK), (3600, OK), (299, WARN), (5, WARN)])
def test_a_moment_can_be_read_for_minutes(seconds: int, status: Status) -> None:
    found = mongodb._judged_history(seconds)
    assert found.status is status
    assert ("setParameter" in (found.next or "")) == (status is WARN)


# --- on a real server -------------------------------------------------------------------------------------------------


@pytest.fixture
async def urls(anyio_backend: str) -> AsyncIterator[tuple[str, str]]:
    """A new database without a schema: its URL for the service's role and for its owner."""
    async with new_database("postgres") as database:
        assert database.migration_url is not None
        yield database.url, database.migration_url


async def asked(url: str, *before: str) -> dict[str, Finding]:
    """What is found by whoever the URL lets in, after these statements of theirs."""
    connection = await asyncpg.connect(url)
    try:
        for statement in before:
            await connection.execute(statement)
        return {found.check: found for found in await postgres.examine(connection, connections=10, owner=None)}
    finally:
        await connection.close()


@pytest.mark.anyio
async def test_a_role_with_rights_of_its_own_is_told(urls: tuple[str, str]) -> None:
    assert (await asked(urls[0]))["rights"].status is OK
    assert (await asked(urls[1]))["rights"].status is WARN
    assert (await asked(servers.run().admin_url))["rights"].status in (WARN, FAIL)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "left_out",
    ["ENABLE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY", "CREATE POLICY"],
)
async def test_a_table_of_organizations_without_protection_is_told(urls: tuple[str, str], left_out: str) -> None:
    statements = [
        "CREATE SCHEMA elsewhere",
        "CREATE TABLE elsewhere.notes (org_id text)",
        "ALTER TABLE elsewhere.notes ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE elsewhere.notes FORCE ROW LEVEL SECURITY",
        "CREATE POLICY own ON elsewhere.notes USING (org_id = current_setting('app.org_id'))",
    ]
    found = await asked(urls[1], *(statement for statement in statements if left_out not in statement))
    assert found["isolation"].status is FAIL
    assert "elsewhere.notes" in found["isolation"].detail
    missing = next(statement for statement in statements if left_out in statement)
    assert (await asked(urls[1], missing))["isolation"].status is not FAIL


@pytest.mark.anyio
async def test_commits_that_may_be_lost_are_told(urls: tuple[str, str]) -> None:
    assert (await asked(urls[0], "SET synchronous_commit = off"))["durability"].status is FAIL
    assert (await asked(urls[0], "SET synchronous_commit = local"))["durability"].status is OK
    only_reads = (await asked(urls[0], "SET default_transaction_read_only = on"))["durability"]
    assert (only_reads.status, "RESET" in (only_reads.next or "")) == (FAIL, True)
