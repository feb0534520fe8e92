"""Promise 9, the steps that take a name away: rename and drop, and writers who missed them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orgstead.errors import AlreadyExists, NotFound, PlacementMoved, SpaceMismatch
from orgstead.model import PlacementKind, SlotState
from orgstead.storage.port import Space, Storage
from orgstead.storage.tables import collections, records
from tests.contract.work import (
    DEDICATED,
    KINDS,
    POOLED,
    do,
    enter,
    entry,
    listed,
    rows_of,
    space_name,
    space_of,
    states,
    store,
)
from tests.rows import key_of, org_id, sample

every_kind = pytest.mark.parametrize("kind", KINDS)


# --- rename -------------------------------------------------------------------------------------------------------


async def test_p09_rename_moves_everything(storage: Storage) -> None:
    """``rename_space``: the rows and slots are under the new name, nothing under the old. Promise 9: twice is once."""
    old = space_of(org_id(), DEDICATED)
    await storage.create_space(old, slots=2)
    await storage.run(old, store, old, 3)
    rows = await rows_of(storage, old, records)
    await storage.close_space(old)
    new = replace(old, name=space_name())
    assert new.name is not None
    for _ in range(3):
        await storage.rename_space(old, new.name)
        assert await listed(storage, old.org_id, old.name, new.name) == [entry(new)]
        assert await rows_of(storage, new, records) == rows
        assert (await states(storage, new))[1, 0] == (SlotState.CLOSED, 3, 30)
    later = replace(new, epoch=2)
    await storage.open_space(later)
    await storage.run(later, store, later)
    assert len(await rows_of(storage, later, records)) == 4


async def test_p09_rename_back_and_forth(storage: Storage) -> None:
    """A name that was given up is free: the space may come back to it, and constraints come along each time."""
    first = space_of(org_id(), DEDICATED)
    await storage.create_space(first)
    row = sample(records, first.org_id)
    await do(storage, first, "add", records, row)
    name = space_name()
    for here, there in ((first.name, name), (name, first.name), (first.name, name)):
        assert there is not None
        await storage.rename_space(replace(first, name=here), there)
    last = replace(first, name=name)
    assert await rows_of(storage, last, records) == [row]
    with pytest.raises(AlreadyExists) as raised:
        await do(storage, last, "add", records, row)
    assert raised.value.constraint == "records.key"


async def test_p09_rename_where_both_are_there(storage: Storage) -> None:
    """``rename_space``: source and target both there is a ``SpaceMismatch``, and both stay as they are."""
    ours, theirs = (space_of(org_id(), DEDICATED) for _ in range(2))
    for space in (ours, theirs):
        await storage.create_space(space)
        await storage.run(space, store, space)
    before = [await rows_of(storage, space, records) for space in (ours, theirs)]
    assert theirs.name is not None
    for _ in range(2):
        with pytest.raises(SpaceMismatch):
            await storage.rename_space(ours, theirs.name)
    assert [await rows_of(storage, space, records) for space in (ours, theirs)] == before
    assert await listed(storage, ours.org_id, ours.name) == [entry(ours)]


async def test_p09_rename_where_neither_is_there(storage: Storage) -> None:
    """``rename_space``: neither source nor target there is a ``SpaceMismatch``, and none is made."""
    space, name = space_of(org_id(), DEDICATED), space_name()
    with pytest.raises(SpaceMismatch):
        await storage.rename_space(space, name)
    assert await listed(storage, space.org_id, space.name, name) == []


async def test_p09_a_stale_writer_never_makes_the_old_name_again(storage: Storage) -> None:
    """The fence: who was paused with the place of before writes nothing, and the old name stays gone."""
    stale = space_of(org_id(), DEDICATED)
    await storage.create_space(stale)
    await storage.close_space(stale)
    new = replace(stale, name=space_name(), epoch=2)
    assert new.name is not None
    await storage.rename_space(stale, new.name)
    await storage.open_space(new)
    before = await states(storage, new)
    with pytest.raises(PlacementMoved):
        await storage.run(stale, store, stale)
    with pytest.raises(PlacementMoved):
        await do(storage, stale, "add", records, sample(records, stale.org_id))
    rows = [(collections, [sample(collections, stale.org_id)]), (records, [sample(records, stale.org_id)])]
    with pytest.raises(PlacementMoved):
        await do(storage, stale, "add_all", rows)
    with pytest.raises(PlacementMoved):
        await storage.run(replace(stale, name=new.name), store, replace(stale, name=new.name))
    assert await listed(storage, stale.org_id, stale.name, new.name) == [entry(new)]
    assert await states(storage, new) == before
    assert await rows_of(storage, new, records) == []


async def test_p09_a_name_that_is_another_organizations_now(storage: Storage) -> None:
    """Promise 4 in a dedicated space: a stale place whose name was given to another organization opens nothing."""
    stale = space_of(org_id(), DEDICATED)
    await storage.create_space(stale)
    moved = space_name()
    await storage.rename_space(stale, moved)
    heir = Space(org_id(), DEDICATED, stale.name, 1)
    await storage.create_space(heir)
    await storage.run(heir, store, heir)
    [row] = await rows_of(storage, heir, records)
    assert await rows_of(storage, stale, records) == []
    with pytest.raises(NotFound):
        await do(storage, stale, "get", records, *key_of(records, row))
    with pytest.raises(PlacementMoved):
        await storage.run(stale, store, stale)
    for step in (storage.drop_space(stale), storage.open_space(stale), storage.rename_space(stale, space_name())):
        with pytest.raises(SpaceMismatch):
            await step
    await storage.close_space(stale)
    assert await rows_of(storage, heir, records) == [row]
    assert await storage.run(heir, enter, heir) is True


# --- drop ---------------------------------------------------------------------------------------------------------


async def drop(storage: Storage, space: Space, **kwargs: Any) -> list[dict[str, int]]:
    """Call until None; what each call said it removed."""
    calls: list[dict[str, int]] = []
    while (removed := await storage.drop_space(space, **kwargs)) is not None:
        calls.append(removed)
        assert len(calls) < 100, "this drop does not end"
    return calls


@every_kind
async def test_p09_drop_removes_and_counts_everything(storage: Storage, kind: PlacementKind) -> None:
    """``drop_space``: rows removed by table until None; then None for ever. The neighbour keeps its rows."""
    space, neighbour = space_of(org_id(), kind), space_of(org_id(), kind)
    for each in (space, neighbour):
        await storage.create_space(each, slots=3)
        await storage.run(each, store, each, 7)
    calls = await drop(storage, space, batch=3)
    assert sum(call.get("records", 0) for call in calls) == 7
    assert sum(call.get("slots", 0) for call in calls) == 3
    if len(calls) > 1:
        assert max(call.get("records", 0) for call in calls) <= 3
    assert await storage.drop_space(space) is None
    assert await listed(storage, space.org_id, space.name) == []
    assert len(await rows_of(storage, neighbour, records)) == 7
    assert await listed(storage, neighbour.org_id, neighbour.name) == [entry(neighbour)]


async def test_p09_drop_of_a_pooled_space_is_in_batches(storage: Storage) -> None:
    """``drop_space``: a call on a pooled space removes at most ``batch`` rows of a table."""
    space = space_of(org_id(), POOLED)
    await storage.create_space(space)
    await storage.run(space, store, space, 5)
    first = await storage.drop_space(space, batch=2)
    assert first is not None
    assert first.get("records", 0) <= 2
    assert len(await rows_of(storage, space, records)) == 5 - first.get("records", 0)
    assert sum(call.get("records", 0) for call in [first, *await drop(storage, space, batch=2)]) == 5


@every_kind
async def test_p09_a_stale_step_touches_no_later_epoch(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: who resumes with the epoch of before neither drops, reopens nor remakes what came after it."""
    stale = space_of(org_id(), kind)
    await storage.create_space(stale)
    await storage.run(stale, store, stale)
    await storage.close_space(stale)
    later = replace(stale, epoch=2)
    await storage.open_space(later)
    for step in (storage.drop_space(stale), storage.open_space(stale), storage.create_space(stale)):
        with pytest.raises(SpaceMismatch):
            await step
    await storage.close_space(stale)
    assert await states(storage, later) == {(2, 0): (SlotState.OPEN, 1, 10)}
    assert len(await rows_of(storage, later, records)) == 1


@every_kind
async def test_p09_drop_of_what_never_was(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: there is nothing to remove, so the answer is None."""
    space = space_of(org_id(), kind)
    assert await storage.drop_space(space) is None
    assert await listed(storage, space.org_id, space.name) == []


@every_kind
async def test_p09_a_dropped_space_can_be_made_again(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: after a drop the space is as if it had never been: a new one of that name is empty."""
    space = space_of(org_id(), kind)
    for _ in range(2):
        await storage.create_space(space)
        await storage.run(space, store, space)
        assert len(await rows_of(storage, space, records)) == 1
        await drop(storage, space)


@every_kind
async def test_p09_a_stale_writer_never_makes_a_dropped_space_again(storage: Storage, kind: PlacementKind) -> None:
    """The fence: after a drop there is no slot to enter by."""
    space = space_of(org_id(), kind)
    await storage.create_space(space)
    await storage.close_space(space)
    await drop(storage, space)
    with pytest.raises(PlacementMoved):
        await storage.run(space, store, space)
    await storage.close_space(space)
    assert await listed(storage, space.org_id, space.name) == []
