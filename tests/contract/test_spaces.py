"""Promise 9: the steps that make, rename, close, open and drop a space may each be repeated, wherever they stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orgstead.errors import NotFound, PlacementMoved, SpaceMismatch
from orgstead.model import PlacementKind, SlotState
from orgstead.storage.port import FoundSpace, Storage
from orgstead.storage.tables import record_events, records, slots
from tests.contract.work import (
    DEDICATED,
    KINDS,
    POOLED,
    do,
    enter,
    entry,
    listed,
    rows_of,
    slots_of,
    space_of,
    states,
    store,
)
from tests.rows import key_of, org_id, sample

every_kind = pytest.mark.parametrize("kind", KINDS)


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


async def test_p09_create_many_is_all_or_none(storage: Storage) -> None:
    """``create_spaces`` makes each space as ``create_space`` would, again too; where one cannot be made, none is."""
    wanted = [space_of(org_id(), DEDICATED), space_of(org_id(), POOLED), space_of(org_id(), DEDICATED)]
    theirs = replace(wanted[2], org_id=org_id())
    await storage.create_space(theirs)
    with pytest.raises(SpaceMismatch):
        await storage.create_spaces(wanted)
    assert [await listed(storage, space.org_id, space.name) for space in wanted] == [[], [], [entry(theirs)]]
    for _ in range(2):
        await storage.create_spaces(wanted[:2])
        for space in wanted[:2]:
            assert await listed(storage, space.org_id, space.name) == [entry(space)]
            assert await states(storage, space) == {(1, 0): (SlotState.OPEN, 0, 0)}
    await storage.create_spaces([])


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
    with pytest.raises(PlacementMoved):
        await do(storage, space, "add_all", [(records, [row]), (record_events, [sample(record_events, row.org_id)])])
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
