"""What would switch row-level security off in silence is refused before the service starts, with what mends it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orgstead.errors import ConfigurationError
from orgstead.model import PlacementKind
from orgstead.storage import open_storage
from orgstead.storage.port import Space
from orgstead.storage.postgres import selfcheck
from orgstead.storage.postgres.engine import PostgresStorage
from tests.engines import Database
from tests.rows import org_id
from tests.servers import postgres
from tests.storage_postgres.work import administrator

SPACE = Space("org_a", PlacementKind.DEDICATED, "org_self-check", 1)
PLACES = {"pooled": "orgstead.memberships", "dedicated": '"org_self-check".records'}


async def refused(database: Database, url: str | None = None) -> ConfigurationError:
    """What ``check`` says."""
    storage = await open_storage(url or database.url, migration_url=database.migration_url)
    try:
        with pytest.raises(ConfigurationError) as raised:
            await storage.check()
    finally:
        await storage.close()
    assert raised.value.detail.endswith(".")
    assert ". " not in raised.value.detail, "one sentence"
    assert raised.value.next
    return raised.value


async def test_a_sound_database_is_served(database: Database, storage: PostgresStorage) -> None:
    await storage.create_space(SPACE)
    await storage.check()


async def test_a_superuser_is_refused(database: Database) -> None:
    url = postgres.run().admin_url.rpartition("/")[0] + "/" + database.url.rpartition("/")[2]
    assert "superuser" in (await refused(database, url)).detail


BREAKS: dict[str, tuple[str, str, str]] = {
    "bypassrls": ("ALTER ROLE {role} BYPASSRLS", "BYPASSRLS", "ALTER ROLE {role} NOBYPASSRLS"),
    "not forced": (
        "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        "owner",
        "ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
    ),
    "switched off": (
        "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        "switched off",
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
    ),
    "view": (
        "CREATE VIEW orgstead.everyone AS SELECT * FROM {table}",
        "view",
        "ALTER VIEW orgstead.everyone SET (security_invoker = true)",
    ),
    "definer": (
        "CREATE FUNCTION public.all_of_them() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT count(*) FROM {table}'",
        "SECURITY DEFINER",
        "ALTER FUNCTION public.all_of_them() SECURITY INVOKER",
    ),
    "truncate": ("GRANT TRUNCATE ON {table} TO {role}", "TRUNCATE", "REVOKE TRUNCATE ON {table} FROM {role}"),
    "another policy": (
        "CREATE POLICY lax ON {table} USING (true)",
        "further policy",
        "DROP POLICY lax ON {table}",
    ),
}


@pytest.mark.parametrize("table", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("how", BREAKS)
async def test_what_lets_rows_past_the_policies_is_refused(
    database: Database, storage: PostgresStorage, how: str, table: str
) -> None:
    """One sentence, the command that mends it, and then the service starts again."""
    await storage.create_space(SPACE)
    broken, told, mended = (text.format(role=postgres.run().role, table=table) for text in BREAKS[how])
    async with administrator(database) as connection:
        await connection.execute(broken)
        try:
            error = await refused(database)
            assert told in error.detail
            commands = re.split(r", or ", error.next or "")
            assert any(part.partition(" ")[0] in mended for part in commands)
        finally:
            await connection.execute(mended)
    await storage.check()


POLICIES: dict[str, str] = {
    "dropped": "",
    "open": "(true)",
    "open to the empty setting": "(org_id = current_setting('app.org_id', true) OR"
    " current_setting('app.system', true) = 'on')",
    "always open beside ours": "(org_id = NULLIF(current_setting('app.org_id', true), '') OR"
    " current_setting('app.system', true) = 'on' OR true)",
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
async def test_another_policy_than_ours_is_refused(database: Database, policy: str) -> None:
    async with administrator(database) as connection:
        await connection.execute("DROP POLICY orgstead_scope ON orgstead.memberships")
        if policy:
            await connection.execute(f"CREATE POLICY orgstead_scope ON orgstead.memberships USING {policy}")
    assert "policy" in (await refused(database)).detail


async def test_a_policy_that_reads_more_than_it_writes_is_refused(database: Database) -> None:
    async with administrator(database) as connection:
        await connection.execute("ALTER POLICY orgstead_scope ON orgstead.memberships WITH CHECK (true)")
    assert "policy" in (await refused(database)).detail


async def test_a_role_that_may_become_a_mightier_one_is_refused(database: Database) -> None:
    role = postgres.run().role
    async with administrator(database) as connection:
        for mightier in (await connection.fetchval("SELECT current_user::text"), postgres.run().owner):
            await connection.execute(f"GRANT {mightier} TO {role}")
            try:
                assert "may become" in (await refused(database)).detail
            finally:
                await connection.execute(f"REVOKE {mightier} FROM {role}")


@pytest.mark.parametrize("setting", ["app.system", "app.org_id"])
async def test_a_setting_that_is_always_there_is_refused(database: Database, setting: str) -> None:
    async with administrator(database) as connection:
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(f"ALTER DATABASE {name} SET {setting} = 'on'")
    assert "setting" in (await refused(database)).detail


async def test_a_materialized_view_is_refused(database: Database) -> None:
    async with administrator(database) as connection:
        await connection.execute("CREATE MATERIALIZED VIEW orgstead.copy AS SELECT * FROM orgstead.users")
    assert "materialized view" in (await refused(database)).detail


async def test_what_the_database_is_not_let_into_is_explained(database: Database) -> None:
    wrong = database.url.replace(postgres.run().password, "wrong")
    assert "does not let this role in" in (await refused(database, wrong)).detail
    missing = database.url.rpartition("/")[0] + "/no_such_database"
    assert "no database of this name" in (await refused(database, missing)).detail


async def test_an_owner_alone_can_do_everything_but_dedicated_spaces(database: Database) -> None:
    """For development: one URL, of the owner. ``FORCE`` has the policies hold for it, too."""
    assert database.migration_url
    storage = await open_storage(database.migration_url)
    try:
        await storage.migrate()
        await storage.check()
        await storage.create_space(Space(org_id(), PlacementKind.POOLED, None, 1))
        assert "pooled only" in str((await storage.stats())["placements"])
        dedicated = Space(org_id(), PlacementKind.DEDICATED, "org_x", 1)
        steps: Any = (
            storage.create_space(dedicated),
            storage.rename_space(dedicated, "org_y"),
            storage.drop_space(dedicated),
        )
        for step in steps:
            with pytest.raises(ConfigurationError) as raised:
                await step
            assert "ORGSTEAD_MIGRATION_URL" in (raised.value.next or "")
        await storage.close_space(dedicated)
    finally:
        await storage.close()


async def test_the_application_alone_cannot_migrate(database: Database) -> None:
    async with administrator(database) as connection:
        await connection.execute("DROP SCHEMA orgstead CASCADE")
    storage = await open_storage(database.url)
    try:
        with pytest.raises(ConfigurationError) as raised:
            await storage.migrate()
        assert "ORGSTEAD_MIGRATION_URL" in (raised.value.next or "")
    finally:
        await storage.close()


async def test_a_backup_names_the_command_that_makes_one(storage: PostgresStorage) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await storage.backup("somewhere")
    assert "pg_dump" in (raised.value.next or "")


@pytest.mark.parametrize(
    ("number", "warned"),
    [
        *((150_015, True), (160_011, True), (170_007, True), (180_001, True)),
        *((150_016, False), (160_012, False), (180_004, False), (190_000, False)),
    ],
)
def test_minor_releases_with_known_holes_are_warned_of(number: int, warned: bool) -> None:
    assert bool(selfcheck.version_warning(number)) == warned
