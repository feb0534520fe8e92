"""A rehearsal says what work would come to, changes nothing, and knows what its units until then would have left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from orgstead.app import App
from orgstead.errors import AlreadyExists, NotFound, StaleRow, StorageReadOnly, TransactionEnded
from orgstead.model import Cell, SlugClaim, SlugState
from orgstead.placements import space_of
from orgstead.rehearsal import rehearsal_of
from orgstead.storage import tables
from orgstead.storage.port import Storage, Transaction
from tests import apps
from tests.apps import SCOPE

pytestmark = pytest.mark.anyio

ACME = SlugClaim(slug="acme", org_id="org_1", state=SlugState.CURRENT)


@pytest.fixture
async def rehearsal(app: App) -> Storage:
    return rehearsal_of(app.storage)


async def do(storage: Storage, verb: str, *args: Any, **options: Any) -> Any:
    """One verb as a unit of its own."""

    async def work(tx: Transaction) -> Any:
        return await getattr(tx, verb)(*args, **options)

    return await storage.run(SCOPE, work)


async def test_a_unit_is_rolled_back_and_its_result_is_returned(app: App, rehearsal: Storage) -> None:
    async def work(tx: Transaction, number: int, *, more: int) -> tuple[int, SlugClaim]:
        await tx.add(tables.slugs, ACME)
        return number + more, await tx.get(tables.slugs, "acme")

    assert await rehearsal.run(SCOPE, work, 1, more=2) == (3, ACME)
    assert await apps.rows(app, tables.slugs) == []
    assert await rehearsal.read(SCOPE, lambda tx: tx.find(tables.slugs, slug="acme")) is None


async def test_what_the_unit_raises_is_raised_and_is_no_part_of_it(rehearsal: Storage) -> None:
    async def work(tx: Transaction) -> None:
        await tx.add(tables.slugs, ACME)
        raise NotFound

    with pytest.raises(NotFound):
        await rehearsal.run(SCOPE, work)
    assert await do(rehearsal, "find", tables.slugs, slug="acme") is None


async def test_an_error_that_the_unit_hid_ends_it(rehearsal: Storage) -> None:
    async def work(tx: Transaction) -> None:
        try:
            await tx.get(tables.slugs, "acme")
        except NotFound:
            return

    with pytest.raises(TransactionEnded):
        await rehearsal.run(SCOPE, work)


async def test_later_units_meet_what_earlier_ones_would_have_left(app: App, rehearsal: Storage) -> None:
    there = (await apps.created(app, "There")).organization
    other = replace(there, id="org_other", slug="other", external_id="x-1", version=1)
    await do(rehearsal, "add", tables.organizations, other)
    assert await do(rehearsal, "find", tables.organizations, external_id="x-1") == other
    assert await do(rehearsal, "find", tables.organizations, external_id="x-2") is None
    assert await do(rehearsal, "find_many", tables.organizations, [("x-1",)], unique="organizations.external_id") == [
        other
    ]
    with pytest.raises(AlreadyExists) as taken:
        await do(rehearsal, "add", tables.organizations, replace(other, id="org_third"))
    assert taken.value.constraint == "organizations.external_id"

    changed = await do(rehearsal, "replace", tables.organizations, replace(there, name="Changed", external_id="x-3"))
    assert await do(rehearsal, "get", tables.organizations, there.id) == changed
    assert await do(rehearsal, "lock", tables.organizations, there.id) == changed
    with pytest.raises(StaleRow):
        await do(rehearsal, "replace", tables.organizations, there)
    with pytest.raises(AlreadyExists):
        await do(rehearsal, "replace", tables.organizations, replace(changed, external_id="x-1"))
    assert (await do(rehearsal, "replace", tables.organizations, replace(other, name="More"))).version == 2
    assert (await do(rehearsal, "get", tables.organizations, "org_other")).name == "More"
    assert [row.name for row in await apps.rows(app, tables.organizations)] == ["There"]


async def test_counters_go_on_within_their_bounds(app: App, rehearsal: Storage) -> None:
    placement = (await apps.created(app, "There")).placement
    space, key = space_of(placement), (placement.org_id, placement.epoch, 0)

    async def grow(tx: Transaction) -> bool:
        return await tx.adjust(tables.slots, *key, deltas={"records": 2}, at_most={"records": 5})

    async def locked(tx: Transaction) -> int:
        return (await tx.lock(tables.slots, *key)).records

    assert [await rehearsal.run(space, grow) for _ in range(4)] == [True, True, False, False]
    assert await rehearsal.run(space, locked) == 4
    assert await app.storage.run(space, locked) == 0
    await do(rehearsal, "add", tables.cells, Cell(name="second", dedicated=1))
    grown = {"deltas": {"dedicated": 1}, "at_most": {"dedicated": 3}}
    assert [await do(rehearsal, "adjust", tables.cells, "second", **grown) for _ in range(3)] == [True, True, False]


async def test_units_of_one_organization_take_turns(app: App, rehearsal: Storage) -> None:
    placement = (await apps.created(app, "There")).placement

    async def grow(tx: Transaction) -> bool:
        key = (placement.org_id, placement.epoch, 0)
        return await tx.adjust(tables.slots, *key, deltas={"records": 1}, at_most={"records": 3})

    grown = await asyncio.gather(*(rehearsal.run(space_of(placement), grow) for _ in range(8)))
    assert sum(grown) == 3


async def test_a_list_that_would_miss_an_earlier_unit_is_refused(rehearsal: Storage) -> None:
    assert await do(rehearsal, "page", tables.slugs, limit=1) == []
    await do(rehearsal, "add", tables.slugs, ACME)
    for verb, args in (("page", {"limit": 1}), ("aggregate", {})):
        with pytest.raises(NotImplementedError):
            await do(rehearsal, verb, tables.slugs, **args)


async def test_what_cannot_be_rolled_back_is_refused(app: App, rehearsal: Storage) -> None:
    there = space_of((await apps.created(app, "There")).placement)
    refused: list[tuple[str, tuple[Any, ...]]] = [
        ("create_space", (there,)),
        ("create_spaces", ([there],)),
        ("rename_space", (there, "org_other")),
        ("close_space", (there,)),
        ("open_space", (there,)),
        ("drop_space", (there,)),
        ("migrate", ()),
        ("backup", ("copy.db",)),
    ]
    for name, args in refused:
        with pytest.raises(StorageReadOnly):
            await getattr(rehearsal, name)(*args)
    await rehearsal.check()
    assert (await rehearsal.stats())["schema_version"]
