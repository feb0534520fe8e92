"""The fence: whoever writes under a placement that is no longer so writes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orgstead import organizations, placements, purging, renaming
from orgstead.app import App
from orgstead.errors import NotFound, PlacementMoved, SpaceMismatch, UnknownPlan
from orgstead.failpoints import arm
from orgstead.model import PlacementKind, PlacementState, Slot, SlotState
from orgstead.renaming import NewName
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from tests import apps
from tests.engines import for_real

pytestmark = pytest.mark.anyio


async def slots(app: App, org_id: str) -> list[Slot]:
    space = placements.space_of(await apps.placement(app, org_id))
    return await app.storage.read(space, _slots)


async def _slots(tx: Transaction) -> list[Slot]:
    return await tx.page(tables.slots, limit=10)


async def close_and_purge(app: App, org_id: str) -> None:
    await app.storage.run(apps.SCOPE, organizations.close, org_id, timedelta(), actor=apps.TESTER, at=app.clock())
    await purging.purge(app, org_id, apps.TESTER)


# --- entering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_write_is_counted_and_bounded(app: App, plan: str) -> None:
    where = (await apps.created(app, "Acme", plan)).placement
    await apps.write(app, where, "one")
    (slot,) = await slots(app, where.org_id)
    assert (slot.records, slot.bytes) == (1, apps.record(where.org_id, "one").bytes)
    space = placements.space_of(where)
    refused = await app.storage.run(space, placements.enter, space, deltas={"records": 1}, at_most={"records": 1})
    assert refused is False
    assert await slots(app, where.org_id) == [slot]


async def test_a_space_that_opens_between_two_looks_is_not_full(damaged: App) -> None:
    """Engines may show a unit what others commit meanwhile: closed for the first attempt, open for the look after."""
    where = (await apps.created(damaged, "Acme")).placement
    space = placements.space_of(where)

    async def write(tx: Transaction) -> bool:
        return await placements.enter(Closed(tx), space, deltas={"records": 1})

    class Closed:
        def __init__(self, tx: Transaction) -> None:
            self._tx = tx
            self._first = True

        def __getattr__(self, verb: str) -> Any:
            return getattr(self._tx, verb)

        async def adjust(self, *args: Any, **kwargs: Any) -> bool:
            first, self._first = self._first, False
            return not first and await self._tx.adjust(*args, **kwargs)

    assert await damaged.storage.run(space, write)
    assert [slot.records for slot in await slots(damaged, where.org_id)] == [1]


@pytest.mark.parametrize("state", [SlotState.CLOSED, SlotState.LOADING])
async def test_a_space_that_is_not_open_takes_no_writes(app: App, state: SlotState) -> None:
    where = (await apps.created(app, "Acme")).placement
    space = placements.space_of(where)
    await app.storage.run(space, _set, state)
    with pytest.raises(PlacementMoved) as caught:
        await apps.write(app, where, "one")
    assert caught.value.retry_after
    assert await apps.records(app, where) == {}


async def _set(tx: Transaction, state: SlotState) -> None:
    (slot,) = await _slots(tx)
    await tx.replace(tables.slots, replace(slot, state=state))


@pytest.mark.parametrize("epoch", [0, 2])
async def test_another_epoch_takes_no_writes(app: App, epoch: int) -> None:
    where = (await apps.created(app, "Acme")).placement
    with pytest.raises(PlacementMoved):
        await apps.write(app, replace(where, epoch=epoch), "one")
    assert await apps.records(app, where) == {}


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_purged_space_takes_no_writes_and_is_not_made_again(app: App, plan: str) -> None:
    stale = (await apps.created(app, "Acme", plan)).placement
    await apps.write(app, stale, "one")
    await close_and_purge(app, stale.org_id)
    with pytest.raises(PlacementMoved):
        await apps.write(app, stale, "two")
    assert await apps.records(app, stale) == {}
    assert await app.storage.spaces() == []


async def test_without_the_fence_a_purged_space_would_be_written_to(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above rests on: it is the fence that refuses."""
    stale = (await apps.created(app, "Acme")).placement
    await close_and_purge(app, stale.org_id)

    async def open_to_all(*_: Any, **__: Any) -> bool:
        return True

    monkeypatch.setattr(placements, "enter", open_to_all)
    await apps.write(app, stale, "two")
    assert await apps.records(app, stale)


# --- while the space is renamed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point",
    ["rename.after_close", "rename.after_rename", "rename.after_flip", "rename.before_open"],
)
async def test_a_writer_that_was_paused_over_a_rename_writes_nothing(app: App, point: str) -> None:
    """It wakes up at any step of the rename, with the placement of before: nothing is written, nothing is made."""
    stale = (await apps.created(app, "Acme", "enterprise")).placement
    await apps.write(app, stale, "before")

    async def wake_up() -> None:
        with pytest.raises(PlacementMoved):
            await apps.write(app, stale, "stale")

    with arm(point, wake_up):
        await renaming.rename(app, stale.org_id, NewName(name="Acme Labs"), apps.TESTER)
    await wake_up()
    now = await apps.placement(app, stale.org_id)
    assert (now.space, now.previous, now.epoch, now.state) == ("org_acme-labs", "org_acme", 2, PlacementState.STABLE)
    assert await apps.space_names(app) == {"org_acme-labs"}
    assert set(await apps.records(app, now)) == {"before"}
    await apps.write(app, now, "after")


async def test_without_the_fence_a_paused_writer_would_write(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = (await apps.created(app, "Acme", "enterprise")).placement

    async def open_to_all(*_: Any, **__: Any) -> bool:
        return True

    async def wake_up() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(placements, "enter", open_to_all)
            await apps.write(app, stale, "stale")

    with arm("rename.after_close", wake_up):
        await renaming.rename(app, stale.org_id, NewName(name="Acme Labs"), apps.TESTER)
    assert [finding.id for finding in await apps.findings(app, repair=True)] == ["I6"]


@pytest.mark.parametrize("database", for_real(), indirect=True)  # the stand-in copies what it renames
async def test_writers_during_renames_lose_nothing_that_was_acknowledged(app: App) -> None:
    org_id = (await apps.created(app, "Acme 0", "enterprise")).organization.id
    acknowledged: set[str] = set()
    done = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            try:
                await apps.write(app, await apps.placement(app, org_id), f"{writer}-{number}")
            except PlacementMoved:
                await asyncio.sleep(0)
            else:
                acknowledged.add(f"{writer}-{number}")
                number += 1

    writers = [asyncio.create_task(write(number)) for number in range(4)]
    for number in range(1, 11):
        await renaming.rename(app, org_id, NewName(name=f"Acme {number}"), apps.TESTER)
    done.set()
    await asyncio.gather(*writers)
    assert set(await apps.records(app, await apps.placement(app, org_id))) == acknowledged
    assert await apps.space_names(app) == {"org_acme-10"}


# --- plans and names --------------------------------------------------------------------------------------------------


async def test_the_plan_decides_where_the_data_lives(app: App) -> None:
    assert (await apps.created(app, "Small")).placement.kind is PlacementKind.POOLED
    large = (await apps.created(app, "Large", "enterprise")).placement
    assert (large.kind, large.space) == (PlacementKind.DEDICATED, "org_large")
    with pytest.raises(UnknownPlan):
        await apps.created(app, "Other", "nonsense")


async def test_a_space_named_by_id_stays_where_it_is(database: Any) -> None:
    async with apps.opened(database, placement={"naming": "id"}) as app:
        before = (await apps.created(app, "Acme", "enterprise")).placement
        await renaming.rename(app, before.org_id, NewName(name="Acme Labs"), apps.TESTER)
        assert await apps.placement(app, before.org_id) == before
        assert await apps.space_names(app) == {before.space}
        await apps.assert_clean(app)


async def test_a_space_that_another_organization_left_is_never_adopted(app: App) -> None:
    """The creation is undone, the name is free again, and the other space is as it was."""
    foreign = placements.space_of((await apps.created(app, "Other", "enterprise")).placement)
    await app.storage.rename_space(foreign, "org_acme")
    with pytest.raises(SpaceMismatch):
        await apps.created(app, "Acme", "enterprise")
    assert {o.slug for o in await apps.rows(app, tables.organizations)} == {"other"}
    assert {claim.slug for claim in await apps.rows(app, tables.slugs)} == {"other"}
    await app.storage.rename_space(replace(foreign, name="org_acme"), "org_other")
    await apps.created(app, "Acme", "enterprise")


async def test_a_placement_of_nobody_is_not_found(app: App) -> None:
    with pytest.raises(NotFound):
        await apps.placement(app, "org_nobody")
