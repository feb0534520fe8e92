"""Schemas that are not ours, or not only ours, are neither taken over nor dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orgstead.errors import PlacementMoved, SpaceMismatch
from orgstead.model import PlacementKind
from orgstead.storage.port import FoundSpace, Space, Storage, Transaction
from orgstead.storage.postgres import spaces_found
from orgstead.storage.tables import records, slots
from tests.contract.work import do, listed, rows_of
from tests.engines import Database
from tests.rows import org_id, sample
from tests.storage_postgres.work import administrator, connected


def dedicated(name: str) -> Space:
    return Space(org_id(), PlacementKind.DEDICATED, name, 1)


@pytest.mark.parametrize("content", ["TABLE {}.slots (id int)", "TABLE {}.others (id int)", "SEQUENCE {}.numbers"])
async def test_a_schema_of_somebody_else(database: Database, storage: Storage, content: str) -> None:
    space, target = dedicated("org_foreign"), dedicated("org_target")
    await storage.create_space(target)
    async with administrator(database) as other:
        await other.execute("CREATE SCHEMA org_foreign")
        await other.execute(f"CREATE {content.format('org_foreign')}")
        for step in (
            storage.create_space(space),
            storage.drop_space(space),
            storage.open_space(space),
            storage.rename_space(space, "org_mine"),
            storage.rename_space(target, "org_foreign"),
        ):
            with pytest.raises(SpaceMismatch):
                await step
        await storage.close_space(space)
        assert await other.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'org_foreign'") == 1
    assert await listed(storage, space.org_id, space.name) == []


async def test_what_somebody_put_into_a_space_keeps_it_from_being_dropped(database: Database, storage: Storage) -> None:
    space = dedicated("org_shared")
    await storage.create_space(space)
    async with connected(database.migration_url) as owner:
        await owner.execute("CREATE TABLE org_shared.notes (text text)")
        with pytest.raises(SpaceMismatch):
            await storage.drop_space(space)
        await owner.execute("DROP TABLE org_shared.notes")
    removed = await storage.drop_space(space)
    assert removed is not None
    assert sum(removed.values()) == removed["slots"] == 1


async def test_an_empty_schema_is_taken(database: Database, storage: Storage) -> None:
    space = dedicated("org_empty")
    async with connected(database.migration_url) as owner:
        await owner.execute("CREATE SCHEMA org_empty")
    await storage.create_space(space)
    await do(storage, space, "add", records, sample(records, space.org_id))


async def test_a_rename_between_two_verbs(storage: Storage) -> None:
    """Who wrote before the name went away does not get half of its unit committed, and does not read on elsewhere."""
    space = dedicated("org_before")
    await storage.create_space(space)

    async def write(tx: Transaction) -> None:
        await tx.add(records, sample(records, space.org_id))
        await storage.rename_space(space, "org_after")
        await tx.adjust(slots, space.org_id, 1, 0, deltas={"records": 1})

    with pytest.raises(PlacementMoved):
        await storage.run(space, write)
    renamed = replace(space, name="org_after")
    assert await rows_of(storage, renamed, records) == []

    async def look(tx: Transaction) -> None:
        await tx.page(records, limit=1)
        await storage.rename_space(renamed, "org_last")
        await tx.page(slots, limit=1)

    with pytest.raises(PlacementMoved):
        await storage.read(renamed, look)


async def test_few_schemas_are_read_at_once(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the list is shorter then, so that the server's table of locks has room for others."""
    monkeypatch.setattr(spaces_found, "_AT_ONCE", 2)
    made = [dedicated(f"org_page-{number}") for number in range(5)]
    made += [Space(org_id(), PlacementKind.POOLED, None, 1) for _ in range(2)]
    await storage.create_spaces(made)
    pages: list[list[tuple[str, FoundSpace]]] = []
    while page := await storage.spaces(after=pages[-1][-1][0] if pages else ""):
        pages.append(page)
    assert [len(page) for page in pages] == [2, 2, 3]
    found = [space.org_id for page in pages for _, space in page]
    assert found == [space.org_id for space in made[:5]] + sorted(space.org_id for space in made[5:])


async def test_another_role_gets_its_rights_by_migrating_again(database: Database, storage: Storage) -> None:
    """Spaces that were made for the application's former role are open to its next one."""
    space = dedicated("org_of-before")
    await storage.create_space(space)
    async with administrator(database) as admin:
        role = await admin.fetchval("SELECT 'next_' || md5(random()::text)")
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'next'")
        try:
            place = database.url.rpartition("@")[2]
            async with Database(f"postgresql://{role}:next@{place}", database.migration_url).opened() as following:
                await do(following, space, "add", records, sample(records, space.org_id))
                assert len(await listed(following, space.org_id)) == 1
        finally:
            await admin.execute(f"DROP OWNED BY {role}")
            await admin.execute(f"DROP ROLE {role}")
