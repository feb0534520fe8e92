"""Promise 9: the steps that make, rename, close, open and drop a space may each be repeated, wherever they stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orgstead.errors import AlreadyExists, NotFound, PlacementMoved, SpaceMismatch
from orgstead.model import PlacementKind, SlotState
from orgstead.storage.port import FoundSpace, Space, Storage, Transaction
from orgstead.storage.tables import records, slots
from tests.contract.work import DEDICATED, KINDS, POOLED, add_all, do, enter, rows_of, slots_of, space_name, space_of
from tests.rows import key_of, org_id, sample

every_kind = pytest.mark.parametrize("kind", KINDS)


async def listed(storage: Storage, org: str, *names: str | None, limit: int = 1000) -> list[FoundSpace]:
    """What ``spaces`` says of the organization, and of these physical names, read page by page."""
    found: list[tuple[str, FoundSpace]] = []
    while page := await storage.spaces(after=found[-1][0] if found else "", limit=limit):
        assert len(page) <= limit
        found += page
    marks = [mark for mark, _ in found]
    assert len(marks) == len(set(marks))
    return [space for _, space in found if space.org_id == org or (space.name and space.name in names)]


def entry(space: Space, *epochs: int) -> FoundSpace:
    return FoundSpace(space.org_id, space.kind, space.name, epochs or (space.epoch,))


async def store(tx: Transaction, space: Space, count: int = 1) -> None:
    """A write as the product makes it: the fence first, then the data."""
    if not await enter(tx, space, records=count, bytes=10 * count):
        raise PlacementMoved
    await add_all(tx, records, [sample(records, space.org_id) for _ in range(count)])


async def states(storage: Storage, space: Space) -> dict[tuple[int, int], tuple[SlotState, int, int]]:
    return {key: (slot.state, slot.records, slot.bytes) for key, slot in (await slots_of(storage, space)).items()}


# --- create -------------------------------------------------------------------------------------------------------


@every_kind
async def test_p09_create_makes_open_slots(storage: Storage, kind: PlacementKind) -> None:
    """``create_space`` makes the tables and the open slots of the epoch, and nothing else."""
    space = space_of(org_id(), kind, epoch=3)
    assert await listed(storage, space.org_id, space.name) == []
    await storage.create_space(space, slots=4)
    assert await listed(storage, space.org_id, space.name) == [entry(space)]
    assert await states(storage, space) == {(3, number): (SlotState.OPEN, 0, 0) for number in range(4)}
    assert all(not slot.tracked for slot in (await slots_of(storage, space)).values())
    assert await rows_of(storage, space, records) == []


@every_kind
async def test_p09_create_repeated(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: repeated, it keeps rows and counters, and adds what a crash had left out."""
    space = space_of(org_id(), kind)
    await storage.create_space(space)
    await storage.run(space, store, space, 2)
    await storage.create_space(space)
    await storage.create_space(space, slots=3)
    await storage.create_space(space, slots=3)
    expected = {(1, 0): (SlotState.OPEN, 2, 20), (1, 1): (SlotState.OPEN, 0, 0), (1, 2): (SlotState.OPEN, 0, 0)}
    assert await states(storage, space) == expected
    assert len(await rows_of(storage, space, records)) == 2
    assert await listed(storage, space.org_id, space.name) == [entry(space)]


@every_kind
async def test_p09_create_goes_on_after_a_crash(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: a space whose slots are not all there is completed."""
    space = space_of(org_id(), kind)
    await storage.create_space(space, slots=3)
    await do(storage, space, "remove", slots, space.org_id, 1, 0)
    await do(storage, space, "remove", slots, space.org_id, 1, 2)
    await storage.create_space(space, slots=3)
    assert await states(storage, space) == {(1, number): (SlotState.OPEN, 0, 0) for number in range(3)}


@every_kind
async def test_p09_create_leaves_a_closed_space_closed(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: a late repetition does not open what was closed since."""
    space = space_of(org_id(), kind)
    await storage.create_space(space)
    await storage.close_space(space)
    await storage.create_space(space)
    assert await states(storage, space) == {(1, 0): (SlotState.CLOSED, 0, 0)}


async def test_p09_create_where_another_organization_is(storage: Storage) -> None:
    """``create_space`` never adopts what is another organization's: ``SpaceMismatch``, and theirs is as it was."""
    theirs = space_of(org_id(), DEDICATED)
    await storage.create_space(theirs)
    await storage.run(theirs, store, theirs)
    ours = replace(theirs, org_id=org_id())
    with pytest.raises(SpaceMismatch):
        await storage.create_space(ours)
    assert await listed(storage, ours.org_id, ours.name) == [entry(theirs)]
    assert len(await rows_of(storage, theirs, records)) == 1


async def test_p09_a_space_that_is_not_there(storage: Storage) -> None:
    """A place that is stale or was never made: readers find nothing, writers are turned away, nothing is made."""
    space = space_of(org_id(), DEDICATED)
    row = sample(records, space.org_id)
    key = key_of(records, row)
    assert await rows_of(storage, space, records) == []
    for verb, args, answer in (
        ("find", {"org_id": key[0], "collection": key[1], "id": key[2]}, None),
        ("take", {"org_id": key[0], "collection": key[1], "id": key[2]}, None),
        ("aggregate", {"sums": ["bytes"]}, [{"count": 0, "bytes": 0}]),
    ):
        assert await do(storage, space, verb, records, **args) == answer
    for verb in ("get", "lock", "remove"):
        with pytest.raises(NotFound):
            await do(storage, space, verb, records, *key)
    with pytest.raises(NotFound):
        await do(storage, space, "replace", records, row)
    with pytest.raises(PlacementMoved):
        await do(storage, space, "add", records, row)
    assert await storage.run(space, enter, space) is False
    assert (await storage.digest(space, records)).count == 0
    await storage.close_space(space)
    assert await listed(storage, space.org_id, space.name) == []


# --- close and open -----------------------------------------------------------------------------------------------


@every_kind
async def test_p09_close_keeps_every_writer_out(storage: Storage, kind: PlacementKind) -> None:
    """``close_space``: no writer of the epoch can come; readers read on. Promise 9: repeated, nothing changes."""
    space = space_of(org_id(), kind)
    await storage.create_space(space, slots=3)
    await storage.run(space, store, space)
    for _ in range(2):
        await storage.close_space(space)
        assert {state for state, _, _ in (await states(storage, space)).values()} == {SlotState.CLOSED}
        for number in range(3):
            assert await storage.run(space, enter, space, slot=number) is False
        with pytest.raises(PlacementMoved):
            await storage.run(space, store, space)
    assert len(await rows_of(storage, space, records)) == 1
    assert (await states(storage, space))[1, 0] == (SlotState.CLOSED, 1, 10)


@every_kind
async def test_p09_close_goes_on_after_a_crash(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: some slots closed, some not: closed again, all are."""
    space = space_of(org_id(), kind)
    await storage.create_space(space, slots=3)
    half = (await slots_of(storage, space))[1, 1]
    await do(storage, space, "replace", slots, replace(half, state=SlotState.CLOSED))
    await storage.close_space(space)
    assert {state for state, _, _ in (await states(storage, space)).values()} == {SlotState.CLOSED}


@every_kind
async def test_p09_close_leaves_other_epochs_and_organizations(storage: Storage, kind: PlacementKind) -> None:
    """``close_space`` closes the slots of its epoch and no others."""
    space, other = space_of(org_id(), kind), space_of(org_id(), kind)
    await storage.create_space(space)
    await storage.create_space(other)
    await storage.close_space(replace(space, epoch=2))
    assert await storage.run(space, enter, space) is True
    await storage.close_space(space)
    assert await storage.run(other, enter, other) is True


@every_kind
async def test_p09_open_again(storage: Storage, kind: PlacementKind) -> None:
    """``open_space`` of the same epoch reopens its slots with what they counted. Promise 9: twice is once."""
    space = space_of(org_id(), kind)
    await storage.create_space(space, slots=2)
    await storage.run(space, store, space)
    await storage.close_space(space)
    for _ in range(2):
        await storage.open_space(space)
        assert await states(storage, space) == {(1, 0): (SlotState.OPEN, 1, 10), (1, 1): (SlotState.OPEN, 0, 0)}
    await storage.run(space, store, space)
    assert (await states(storage, space))[1, 0] == (SlotState.OPEN, 2, 20)


@every_kind
async def test_p09_open_under_the_next_epoch(storage: Storage, kind: PlacementKind) -> None:
    """``open_space`` of a later epoch carries the counters over and removes the earlier epoch's slots, once."""
    space = space_of(org_id(), kind)
    await storage.create_space(space, slots=3)
    await storage.run(space, store, space, 2)
    assert await storage.run(space, enter, space, slot=2, records=5, bytes=50)
    await storage.close_space(space)
    later = replace(space, epoch=4)
    for _ in range(3):
        await storage.open_space(later)
        found = await slots_of(storage, later)
        assert {epoch for epoch, _ in found} == {4}
        assert {slot.state for slot in found.values()} == {SlotState.OPEN}
        assert sum(slot.records for slot in found.values()) == 7
        assert sum(slot.bytes for slot in found.values()) == 70
    assert await listed(storage, space.org_id, space.name) == [entry(later)]
    with pytest.raises(PlacementMoved):
        await storage.run(space, store, space)
    await storage.close_space(space)
    await storage.run(later, store, later)


@every_kind
async def test_p09_a_space_without_slots_cannot_be_opened(storage: Storage, kind: PlacementKind) -> None:
    """``open_space`` makes no slots out of nothing: where there were none the space is not what it should be."""
    space = space_of(org_id(), kind)
    with pytest.raises(SpaceMismatch):
        await storage.open_space(space)
    assert await listed(storage, space.org_id, space.name) == []


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
    await storage.close_space(stale)
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
        await storage.create_space(each, slots=2)
        await storage.run(each, store, each, 7)
    calls = await drop(storage, space, batch=3)
    assert sum(call.get("records", 0) for call in calls) == 7
    assert sum(call.get("slots", 0) for call in calls) == 2
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


# --- list ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_p09_spaces_lists_what_is_there(storage: Storage, limit: int) -> None:
    """``spaces`` gives each space once, of each kind, whatever the page's size."""
    org = org_id()
    pooled, dedicated = space_of(org, POOLED, 1), space_of(org, DEDICATED, 2)
    await storage.create_space(pooled)
    await storage.create_space(dedicated, slots=3)
    found = await listed(storage, org, limit=limit)
    assert sorted(found, key=repr) == sorted([entry(pooled), entry(dedicated)], key=repr)


async def test_p09_spaces_names_a_space_that_is_empty(storage: Storage) -> None:
    """``spaces``: a dedicated space without slots belongs to nobody, but it is there. Several epochs are all named."""
    space = space_of(org_id(), DEDICATED)
    await storage.create_space(space)
    await do(storage, space, "add", slots, sample(slots, space.org_id, epoch=5, slot=0))
    assert await listed(storage, space.org_id) == [entry(space, 1, 5)]
    for epoch in (1, 5):
        await do(storage, space, "remove", slots, space.org_id, epoch, 0)
    assert await listed(storage, space.org_id, space.name) == [FoundSpace(None, DEDICATED, space.name, ())]
