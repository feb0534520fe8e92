"""Isolation: what organizations do side by side over few connections never reaches another's rows.

The same suite is run on databases and pools that lack one safeguard each, and must find every one of them out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from orgstead.storage.port import Storage, Table
from orgstead.storage.postgres import policies
from orgstead.storage.postgres.connections import Connection, Pool
from orgstead.storage.postgres.policies import ORG_SETTING, POLICY
from orgstead.storage.tables import SPACE
from tests.engines import Database, new_database, selected
from tests.rows import SCOPED_TABLES
from tests.storage_postgres import isolation
from tests.storage_postgres.interruption import count_questions
from tests.storage_postgres.tenants import Tenant
from tests.support import EVERYTHING, sample, sampled

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("postgres" not in selected(), reason="postgres is not among ORGSTEAD_TEST_ENGINES"),
]

WHOLE, SAMPLE = 10_000, 1_000
REQUESTS = WHOLE if EVERYTHING else SAMPLE
if not EVERYTHING:
    sampled["requests of the isolation suite"] = (SAMPLE, WHOLE)

BROKEN = 3_000
"""Requests in which a fault must have been found; the first evidence ends the run."""


@asynccontextmanager
async def opened(database: Database, *, as_owner: bool) -> AsyncIterator[tuple[Storage, list[Tenant]]]:
    """The database with its organizations, over two connections: as the application's role, or the owner alone."""
    role, owner = database.url, database.migration_url or ""
    where = Database((owner if as_owner else role) + isolation.URL_PARAMETERS, owner)
    async with where.opened() as storage:
        yield storage, await isolation.populated(storage)


@pytest.fixture(autouse=True)
def interruptible(monkeypatch: pytest.MonkeyPatch) -> None:
    count_questions(monkeypatch)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("as_owner", [False, True], ids=["as the application", "as the owner"])
async def test_no_organization_reaches_the_rows_of_another(seed: int, as_owner: bool) -> None:
    async with new_database("postgres") as database, opened(database, as_owner=as_owner) as (storage, tenants):
        assert await isolation.violations(storage, tenants, requests=REQUESTS, seed=seed) == []


# --- the suite can fail -----------------------------------------------------------------------------------------------

TABLES = [
    *((table, "orgstead") for table in SCOPED_TABLES),
    *((table, "org_01") for table in SPACE),
]
Alter = Callable[[Table[Any], str], Iterator[str]]


def no_force(table: Table[Any], target: str) -> Iterator[str]:
    yield f"ALTER TABLE {target} NO FORCE ROW LEVEL SECURITY"


def disabled(table: Table[Any], target: str) -> Iterator[str]:
    yield f"ALTER TABLE {target} DISABLE ROW LEVEL SECURITY"


def another_policy(seen: str, kept: str) -> Alter:
    def alter(table: Table[Any], target: str) -> Iterator[str]:
        names = {"condition": policies.condition(table), "plain": without_nullif(table)}
        yield f'DROP POLICY "{POLICY}" ON {target}'
        yield (
            f'CREATE POLICY "{POLICY}" ON {target} USING ({seen.format_map(names)})'
            f" WITH CHECK ({kept.format_map(names)})"
        )

    return alter


def without_nullif(table: Table[Any]) -> str:
    setting = f"current_setting('{ORG_SETTING}', true)"
    found = policies.condition(table)
    assert f"NULLIF({setting}, '')" in found
    return found.replace(f"NULLIF({setting}, '')", setting)


@dataclass(frozen=True)
class Fault:
    """One safeguard of the database less; ``as_owner`` where only the owner is held by it."""

    alter: Alter
    as_owner: bool = False


FAULTS = {
    "no force": Fault(no_force, as_owner=True),
    "no row-level security": Fault(disabled),
    "every row is open": Fault(another_policy("true", "true")),
    "any row may be written": Fault(another_policy("{condition}", "true")),
    "every row may be seen": Fault(another_policy("true", "{condition}")),
    "no NULLIF": Fault(another_policy("{plain}", "{plain}")),
}


async def found_out(database: Database, fault: Fault, targets: list[tuple[Table[Any], str]], seed: int) -> list[str]:
    async with opened(database, as_owner=fault.as_owner) as (storage, tenants):
        owner = await asyncpg.connect(database.migration_url)
        for table, schema in targets:
            for statement in fault.alter(table, f'"{schema}"."{table.name}"'):
                await owner.execute(statement)
        await owner.close()
        return await isolation.violations(storage, tenants, requests=BROKEN, seed=seed)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_the_suite_finds_a_fault_of_every_table(seed: int, fault: Fault) -> None:
    async with new_database("postgres") as database:
        assert isolation.reached(await found_out(database, fault, TABLES, seed))


@pytest.mark.parametrize(
    ("table", "schema"),
    sample("tables without protection", TABLES, 4),
    ids=lambda part: getattr(part, "name", part),
)
async def test_the_suite_finds_a_single_table_without_protection(seed: int, table: Table[Any], schema: str) -> None:
    async with new_database("postgres") as database:
        problems = await found_out(database, FAULTS["no row-level security"], [(table, schema)], seed)
        assert isolation.reached(problems)


def settings_of_the_session(patch: pytest.MonkeyPatch) -> None:
    """What opens an organization's rows outlives its transaction."""
    begin = policies.begin
    patch.setattr(policies, "begin", lambda *args: begin(*args).replace(", true)", ", false)"))


def no_settings_at_the_beginning(patch: pytest.MonkeyPatch) -> None:
    """A unit sees what the one before it saw."""
    begin = policies.begin
    patch.setattr(policies, "begin", lambda scope, *rest: begin(scope, *rest).partition(";")[0])
    settings_of_the_session(patch)


def everything_is_the_systems(patch: pytest.MonkeyPatch) -> None:
    """Every transaction opens all rows."""
    patch.setattr(policies, "settings", lambda _: {policies.ORG_SETTING: "", policies.SYSTEM_SETTING: "on"})


def no_mending(patch: pytest.MonkeyPatch) -> None:
    """The pool hands on connections as they come back, open transactions and all."""

    def release(pool: Pool, connection: Connection, **_: Any) -> None:
        if connection.is_closed():
            pool._drop(connection)
            return
        pool._idle.append(connection)
        pool._places.release()

    patch.setattr(Pool, "release", release)


@pytest.mark.parametrize(
    "break_it",
    [settings_of_the_session, no_settings_at_the_beginning, everything_is_the_systems, no_mending],
    ids=lambda function: function.__name__,
)
async def test_the_suite_finds_a_fault_of_the_engine(
    seed: int, break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_database("postgres") as database, opened(database, as_owner=False) as (storage, tenants):
        with monkeypatch.context() as patch:
            break_it(patch)
            assert await isolation.violations(storage, tenants, requests=BROKEN, seed=seed)
