"""What would switch row-level security off in silence is refused before the service starts, with what mends it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from orgstead.errors import ConfigurationError
from orgstead.findings import Finding, Status
from orgstead.model import PlacementKind
from orgstead.storage import open_storage
from orgstead.storage.port import Space, Storage
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


async def sound(database: Database) -> None:
    """``check`` finds nothing."""
    storage = await open_storage(database.url)
    try:
        await storage.check()
    finally:
        await storage.close()


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


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
async def test_a_view_elsewhere_is_refused_where_the_service_may_read_it(database: Database, kind: str) -> None:
    role = postgres.run().role
    async with administrator(database) as connection:
        await connection.execute(f"CREATE {kind} public.copy AS SELECT * FROM orgstead.memberships")
        await sound(database)
        await connection.execute(f"GRANT SELECT ON public.copy TO {role}")
        error = await refused(database)
        assert "view elsewhere" in error.detail
        assert "public.copy" in (error.next or "")
        if kind == "VIEW":
            await connection.execute("ALTER VIEW public.copy SET (security_invoker = true)")
        else:
            await connection.execute(f"REVOKE SELECT ON public.copy FROM {role}")
        await sound(database)


async def test_a_materialized_view_is_refused(database: Database) -> None:
    async with administrator(database) as connection:
        await connection.execute("CREATE MATERIALIZED VIEW orgstead.copy AS SELECT * FROM orgstead.users")
    assert "materialized view" in (await refused(database)).detail


ASKED: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "check": lambda storage: storage.check(),
    "stats": lambda storage: storage.stats(),
    "examine": lambda storage: storage.examine(processes=1),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
async def test_what_the_service_is_not_let_into_is_explained(
    database: Database, ask: Callable[[Storage], Awaitable[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the driver looks for certificates
    wrong = {
        database.url.replace(postgres.run().password, "wrong"): "does not accept the role or its password",
        database.url.rpartition("/")[0] + "/no_such_database": "no database of the name",
        database.url + "?sslmode=require&deadline_ms=100": "no TLS",
        database.url + "?sslmode=verify-full": "nothing to check it against",
    }
    for url, said in wrong.items():
        storage = await open_storage(url)
        with pytest.raises(ConfigurationError) as raised:
            await ask(storage)
        assert said in raised.value.detail
        assert "ORGSTEAD_DATABASE_URL" in raised.value.detail
        assert raised.value.next
        await storage.close()


async def test_a_migration_says_which_of_the_two_urls_is_wrong(database: Database) -> None:
    assert database.migration_url
    password = postgres.run().password
    for urls, name in (
        ((database.url, database.migration_url.replace(password, "wrong")), "ORGSTEAD_MIGRATION_URL"),
        ((database.url.replace(f"{postgres.run().role}:{password}@", ""), database.migration_url), "DATABASE_URL"),
    ):
        storage = await open_storage(urls[0], migration_url=urls[1])
        with pytest.raises(ConfigurationError) as raised:
            await storage.migrate()
        assert name in raised.value.detail
        await storage.close()


async def test_a_migration_names_the_role_that_is_missing_and_what_makes_it(database: Database) -> None:
    """Nothing is done before that, and once the role is there it all is."""
    run = postgres.run()
    role = f'{run.prefix} it\'s "odd"'
    storage = await open_storage(
        database.url.replace(run.role, quote(role)).replace(run.password, "p%2F%40%23"),
        migration_url=database.migration_url,
    )
    async with administrator(database) as connection:
        await connection.execute("DROP SCHEMA orgstead CASCADE")
        with pytest.raises(ConfigurationError) as raised:
            await storage.migrate()
        assert role in raised.value.detail
        assert not await connection.fetchval("SELECT to_regnamespace('orgstead') IS NOT NULL")
        command = re.search(r"CREATE ROLE .*?;", raised.value.next or "")
        assert command
        await connection.execute(command[0].replace("…", "p/@#"))
        try:
            await storage.migrate()
            await storage.check()
            await storage.close()
        finally:
            name = '"' + role.replace('"', '""') + '"'
            await connection.execute(f"DROP OWNED BY {name}")
            await connection.execute(f"DROP ROLE {name}")


async def placements_found(url: str, migration_url: str | None) -> Finding:
    storage = await open_storage(url, migration_url=migration_url)
    try:
        (found,) = (found for found in await storage.examine(processes=1) if found.check == "placements")
    finally:
        await storage.close()
    return found


async def test_an_owner_s_url_that_leads_elsewhere_is_told(database: Database) -> None:
    """Before the first dedicated organization finds it out."""
    run, good = postgres.run(), database.migration_url
    assert good
    assert (await placements_found(database.url, good)).status is Status.OK
    assert (await placements_found(database.url, None)).status is Status.WARN
    wrong = {
        good.replace(run.password, "wrong"): "password",
        good.rpartition("/")[0] + "/postgres": "two different databases",
        database.url: "may not make schemas",
    }
    for url, said in wrong.items():
        found = await placements_found(database.url, url)
        assert found.status is Status.FAIL
        assert said in found.detail
        assert found.next


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


async def test_a_backup_names_the_command_and_the_role_that_make_one(
    database: Database, storage: PostgresStorage, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await storage.backup("somewhere")
    command, _, roles = (raised.value.next or "").partition(", ")
    run = postgres.run()
    if run.server is None:
        pytest.skip("pg_dump of the server's own version is at hand for the tests' own server only")
    role = f"{run.prefix}_dump"
    made = [right for right in ("BYPASSRLS", "pg_read_all_data") if right in roles]
    async with administrator(database) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{run.password}'")
        await connection.execute(f"ALTER ROLE {role} {made[0]}")
        await connection.execute(f"GRANT {made[1]} TO {role}")
    name = database.url.rpartition("/")[2]
    for url, code in ((run.url(run.owner, name), 1), (run.url(role, name), 0)):
        words = command.replace("FILE", str(tmp_path / "dump")).replace("URL", url).split()
        words[0] = str(run.server.programs / words[0])
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=False)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("number", "warned"),
    [
        *((150_015, True), (160_011, True), (170_007, True), (180_001, True)),
        *((150_016, False), (160_012, False), (180_004, False), (190_000, False)),
    ],
)
def test_minor_releases_with_known_holes_are_warned_of(number: int, warned: bool) -> None:
    assert bool(selfcheck.version_warning(number)) == warned
