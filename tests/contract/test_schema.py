"""Promise 11: ``migrate`` may be repeated and raced; an unknown schema is refused with the command that fixes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from orgstead.errors import ConfigurationError, DatabaseInUse, SchemaOutdated, SchemaTooNew
from orgstead.storage import migrations
from orgstead.storage.port import OrgScope, Storage, Table
from orgstead.storage.tables import memberships
from tests.contract.work import DEDICATED, POOLED, do, rows_of, space_of
from tests.engines import Database
from tests.rows import org_id, sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A row of a table that a later version declares."""

    org_id: str
    id: str


badges = Table("badges", Badge, key=("org_id", "id"), scope="org_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedBadge:
    """The same row, of a version that is later still."""

    org_id: str
    id: str
    points: int = 7


counted = Table("badges", CountedBadge, key=("org_id", "id"), scope="org_id")


def a_version_ahead(patch: pytest.MonkeyPatch, *adds: migrations.Column) -> None:
    """Make the code one version newer: it knows one more table, or some more columns."""
    creates = () if adds else (badges,)
    later = migrations.Migration(migrations.SCHEMA_VERSION + 1, "badges", creates, adds)
    patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, later))
    patch.setattr(migrations, "SCHEMA_VERSION", later.version)


async def test_p11_an_empty_database_is_refused(fresh: Database) -> None:
    """Promise 11: code refuses a database without a schema, and names the command."""
    async with fresh.opened(migrated=False) as storage:
        with pytest.raises(SchemaOutdated) as raised:
            await storage.check()
        assert "orgstead db upgrade" in (raised.value.next or "")
        assert await storage.migrate() == migrations.SCHEMA_VERSION
        await storage.check()


async def test_p11_migrate_repeated(fresh: Database) -> None:
    """Promise 11: repeated, now and after a restart, it changes nothing and gives the same number."""
    org = org_id()
    row = sample(memberships, org)
    for _ in range(2):
        async with fresh.opened(migrated=False) as storage:
            assert [await storage.migrate() for _ in range(3)] == [migrations.SCHEMA_VERSION] * 3
            await storage.check()
            if not await rows_of(storage, OrgScope(org), memberships):
                await do(storage, OrgScope(org), "add", memberships, row)
            assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def test_p11_migrate_raced_in_one_process(fresh: Database) -> None:
    """Promise 11: several at once leave one schema, and each has its number."""
    async with fresh.opened(migrated=False) as storage:
        numbers = await asyncio.gather(*(storage.migrate() for _ in range(6)))
        assert set(numbers) == {migrations.SCHEMA_VERSION}
        await storage.check()
        await do(storage, OrgScope("org"), "add", memberships, sample(memberships, "org"))


async def test_p11_migrate_raced_by_several(fresh: Database) -> None:
    """Promise 11: of several that open an empty database at once each migrates it or is told that it is in use."""

    async def upgrade() -> int:
        async with fresh.opened(migrated=False) as storage:
            return await storage.migrate()

    outcomes = await asyncio.gather(*(upgrade() for _ in range(4)), return_exceptions=True)
    assert migrations.SCHEMA_VERSION in outcomes
    for outcome in outcomes:
        assert outcome == migrations.SCHEMA_VERSION or isinstance(outcome, DatabaseInUse), outcome
    async with fresh.opened(migrated=False) as storage:
        await storage.check()


async def test_p11_an_older_schema_is_refused_until_it_is_migrated(
    fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 11: what an older version made is refused with the command, and ``migrate`` keeps its rows."""
    org = org_id()
    row, badge = sample(memberships, org), sample(badges, org)
    async with fresh.opened() as storage:
        before = await storage.migrate()
        await do(storage, OrgScope(org), "add", memberships, row)
    a_version_ahead(monkeypatch)
    async with fresh.opened(migrated=False) as storage:
        with pytest.raises(SchemaOutdated) as raised:
            await storage.check()
        assert "orgstead db upgrade" in (raised.value.next or "")
        assert await storage.migrate() == before + 1
        await storage.check()
        assert await rows_of(storage, OrgScope(org), memberships) == [row]
        await do(storage, OrgScope(org), "add", badges, badge)
        assert await rows_of(storage, OrgScope(org), badges) == [badge]


async def test_p11_a_column_that_is_added_has_its_default_in_old_rows(
    fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 11: and from then on it is one like any other; migrating again leaves what was written into it."""
    org = org_id()
    old, new = sample(badges, org), sample(counted, org, points=1)
    a_version_ahead(monkeypatch)
    async with fresh.opened() as storage:
        await do(storage, OrgScope(org), "add", badges, old)
    a_version_ahead(monkeypatch, migrations.Column(counted, "points"))
    async with fresh.opened(migrated=False) as storage:
        with pytest.raises(SchemaOutdated):
            await storage.check()
        await asyncio.gather(*(storage.migrate() for _ in range(3)))
        await do(storage, OrgScope(org), "add", counted, new)
        given = CountedBadge(org_id=org, id=old.id)
        assert {row.id: row.points for row in await rows_of(storage, OrgScope(org), counted)} == {old.id: 7, new.id: 1}
        late = sample(badges, org)  # of a process that still runs the older version
        await do(storage, OrgScope(org), "add", badges, late)
        assert (await do(storage, OrgScope(org), "get", counted, org, late.id)).points == 7
        await do(storage, OrgScope(org), "adjust", counted, org, old.id, deltas={"points": 5})
        await storage.migrate()
        assert await do(storage, OrgScope(org), "get", counted, org, old.id) == replace(given, points=12)


async def test_p11_a_new_database_has_added_columns_from_the_beginning(
    fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 11: its tables are made as they are declared now, and adding what is there does nothing."""
    later = migrations.Migration(migrations.SCHEMA_VERSION + 1, "badges", (counted,))
    column = migrations.Column(counted, "points")
    again = migrations.Migration(later.version + 1, "points", (), (column,))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, later, again))
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", again.version)
    org = org_id()
    row = sample(counted, org)
    async with fresh.opened() as storage:
        await storage.check()
        await do(storage, OrgScope(org), "add", counted, row)
        assert await rows_of(storage, OrgScope(org), counted) == [row]


async def test_p11_what_migrate_would_apply_is_said_and_nothing_is_changed(
    fresh: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 11: ``pending`` names the versions that are missing, in order, and leaves it at that."""
    everything = [(migration.version, migration.title) for migration in migrations.MIGRATIONS]
    async with fresh.opened(migrated=False) as storage:
        for _ in range(2):
            assert await storage.pending() == everything
            with pytest.raises(SchemaOutdated):
                await storage.check()
        await storage.migrate()
        assert await storage.pending() == []
    a_version_ahead(monkeypatch)
    for missing in ([(migrations.SCHEMA_VERSION, "badges")], []):
        async with fresh.opened(migrated=False) as storage:
            assert await storage.pending() == missing
            assert await storage.pending() == missing
            await storage.migrate()


async def test_p11_a_newer_schema_is_refused(fresh: Database) -> None:
    """Promise 11: what a newer version made is neither served nor migrated, and the refusal says what to do."""
    with pytest.MonkeyPatch.context() as patch:
        a_version_ahead(patch)
        async with fresh.opened() as storage:
            pass
    async with fresh.opened(migrated=False) as storage:
        for refused in (storage.check, storage.migrate, storage.pending):
            with pytest.raises(SchemaTooNew) as raised:
                await refused()
            assert raised.value.next
            assert isinstance(raised.value, ConfigurationError)


async def test_facts_about_the_database(storage: Storage) -> None:
    """``stats`` counts what is there; ``url`` names the place without credentials."""
    before = await storage.stats()
    assert before["schema_version"] == migrations.SCHEMA_VERSION
    assert int(before["bytes"]) > 0
    assert before["server"]
    await storage.create_space(space_of(org_id(), POOLED))
    await storage.create_space(space_of(org_id(), DEDICATED))
    assert (await storage.stats())["dedicated_spaces"] == int(before["dedicated_spaces"]) + 1
    assert "@" not in storage.url
