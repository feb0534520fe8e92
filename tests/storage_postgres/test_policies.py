"""Row-level security is on for everyone, with settings that end with their transaction."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from orgstead.model import PlacementKind
from orgstead.storage.codec import Kind, codec_of
from orgstead.storage.port import OrgScope, Space, Table
from orgstead.storage.postgres.engine import PostgresStorage
from orgstead.storage.postgres.statements import SCHEMA, within
from orgstead.storage.tables import DIRECTORY, SPACE, TABLES, memberships, records, slugs
from tests.contract.work import do
from tests.engines import Database
from tests.rows import org_id, sample
from tests.storage_postgres.work import SYSTEM, administrator, connected

TARGETS = [pytest.param(table, id=table.name) for table in TABLES]
NAME = "org_with-hyphen"


@pytest.fixture
async def filled(storage: PostgresStorage) -> str:
    """An organization with a row in every table and in a dedicated space; the row of the empty id is a trap."""
    org = org_id()
    space = Space(org, PlacementKind.DEDICATED, NAME, 1)
    await storage.create_space(space)
    for table in DIRECTORY:
        await do(storage, SYSTEM, "add", table, sample(table, org))
        if table.scope and table.scope in table.key:
            await do(storage, SYSTEM, "add", table, sample(table, ""))
    for table in SPACE:
        await do(storage, Space(org, PlacementKind.POOLED, None, 1), "add", table, sample(table, org))
        await do(storage, space, "add", table, sample(table, org))
    return org


async def visible(connection: asyncpg.Connection, schema: str, table: Table[Any]) -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {within(schema, table.name)}"))


@pytest.mark.parametrize("who", ["url", "migration_url"])
async def test_without_a_setting_nothing_is_there(database: Database, filled: str, who: str) -> None:
    """Neither for the application's role nor for the owner, before any setting and after one has ended."""
    async with connected(getattr(database, who)) as connection:
        for _ in range(2):
            for schema, tables in ((SCHEMA, TABLES), (NAME, SPACE)):
                for table in tables:
                    assert await visible(connection, schema, table) == 0, table.name
            async with connection.transaction():  # afterwards both settings are empty texts, not NULL
                await connection.execute("SELECT set_config('app.org_id', $1, true)", filled)
                await connection.execute("SELECT set_config('app.system', 'on', true)")
                assert await visible(connection, SCHEMA, memberships) == 2
            assert await connection.fetchval("SELECT current_setting('app.org_id', true)") == ""


async def test_a_setting_opens_one_organization(database: Database, filled: str) -> None:
    async with connected(database.url) as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.org_id', $1, true)", filled)
        for table in TABLES:
            expected = 0 if table.scope is None else 1
            assert await visible(connection, SCHEMA, table) == expected, table.name
        for value in ("OFF", "true", "1", "On", ""):
            await connection.execute("SELECT set_config('app.system', $1, true)", value)
            assert await visible(connection, SCHEMA, slugs) == 0


@pytest.mark.parametrize("table", [table for table in TABLES if table.scope], ids=lambda table: table.name)
async def test_rows_of_others_are_not_written(database: Database, storage: PostgresStorage, table: Table[Any]) -> None:
    """The policy refuses what the engine's own checks never let through."""
    org, other = org_id(), org_id()
    codec = codec_of(table)
    marks = ", ".join(f"${place}" for place in range(1, len(table.columns) + 1))
    insert = f"INSERT INTO {within(SCHEMA, table.name)} VALUES ({marks})"
    async with connected(database.url) as connection:
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.org_id', $1, true)", org)
            await connection.execute(insert, *codec.encode(sample(table, org)))
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.org_id', $1, true)", other)
            target, scope = within(SCHEMA, table.name), table.scope
            assert await connection.execute(f"UPDATE {target} SET {scope} = {scope}") == "UPDATE 0"
            assert await connection.execute(f"DELETE FROM {target}") == "DELETE 0"
        for statement, values in (
            (insert, codec.encode(sample(table, other))),
            (f"UPDATE {target} SET {scope} = $1", [other]),
        ):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT set_config('app.org_id', $1, true)", org)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement, *values)
            await transaction.rollback()


async def test_the_application_changes_rows_and_nothing_else(database: Database, filled: str) -> None:
    async with connected(database.url) as connection:
        for schema, tables in ((SCHEMA, TABLES), (NAME, SPACE)):
            for table in tables:
                target = within(schema, table.name)
                for statement in (
                    f"TRUNCATE {target}",
                    f"DROP TABLE {target}",
                    f"ALTER TABLE {target} DISABLE ROW LEVEL SECURITY",
                    f"CREATE INDEX ON {target} ({table.key[0]})",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement)
        for statement in ("CREATE SCHEMA org_mine", f"CREATE TABLE {SCHEMA}.mine (id int)", f'DROP SCHEMA "{NAME}"'):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"INSERT INTO {SCHEMA}.schema_migrations VALUES (99, '', '')")


async def test_every_text_is_compared_by_code_point(database: Database, filled: str) -> None:
    async with administrator(database) as connection:
        found = await connection.fetch(
            "SELECT c.relname, a.attname, coll.collname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_collation coll ON coll.oid = a.attcollation"
            " WHERE n.nspname = ANY ($1) AND c.relkind = 'r' AND a.attnum > 0 AND c.relname <> 'schema_migrations'",
            [SCHEMA, NAME],
        )
    texts = sum(
        column.kind in (Kind.TEXT, Kind.JSON) for table in (*TABLES, *SPACE) for column in codec_of(table).columns
    )
    assert len(found) == texts
    assert {row["collname"] for row in found} == {"C"}


async def test_an_id_is_a_value_whatever_is_in_it(storage: PostgresStorage) -> None:
    """The organization's id is part of the message that begins a transaction, so it must not be read as SQL."""
    for org in ("o'; SET app.system = 'on'; --", "back\\slash'", "Ünïcode 👩", "a b", "$$", ""):
        row = sample(memberships, org)
        await do(storage, SYSTEM, "add", memberships, row)
        found = await do(storage, OrgScope(org), "page", memberships, {}, limit=9)
        assert found == ([row] if org else []), org
        space = Space(org or "x", PlacementKind.POOLED, None, 1)
        await storage.create_space(space)
        await do(storage, space, "add", records, sample(records, space.org_id))
