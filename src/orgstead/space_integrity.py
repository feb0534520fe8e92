"""The part of fsck that looks into the spaces: slots, counters and indexes of each organization, in its cell.

On a server nearly all of the time is waiting for it, so several organizations are looked at side by side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orgstead import index_integrity, kit, lifecycle, placements
from orgstead.integrity_findings import Finding
from orgstead.model import Organization, Placement, Slot, SlotState
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction, count_rows

if TYPE_CHECKING:
    from orgstead.app import App

BATCH = 500

AT_ONCE = 8
"""Spaces that are looked into at the same time: nearly all of that is waiting for a server."""

SMALL = 10_000
"""Records of a space that are recounted in passing; more are counted aside, where that holds up nobody."""


async def findings(
    app: App, batch: Sequence[Organization], places: Mapping[str, Placement], *, repair: bool
) -> AsyncIterator[Finding]:
    """What is wrong with the spaces of these organizations, in their order; ``places`` are the placements there are."""
    for begin in range(0, len(batch), AT_ONCE):
        looking = [_in_space(app, o, places.get(o.id), repair) for o in batch[begin : begin + AT_ONCE]]
        for found in await kit.all_of(looking):
            for finding in found:
                yield finding


async def _in_space(app: App, organization: Organization, placement: Placement | None, repair: bool) -> list[Finding]:
    if organization.status in lifecycle.BUSY:
        return []
    org_id = organization.id
    if placement is None:
        return [Finding("I1", org_id, "The organization has no placement.")]
    cell, space = app.cell(placement.cell), placements.space_of(placement)
    slots, off, bare = await cell.read(space, _usage, space, SMALL)
    if off is None:
        slots, off, bare = await cell.scan(space, _usage, space, None)
    found: list[Finding] = []
    there = any(slot.epoch == placement.epoch for slot in slots)
    if not there and organization.operation_id is None:
        found.append(Finding("I1", org_id, "The organization's space is not where its placement says."))
    for slot in slots:
        if slot.epoch > placement.epoch:
            found.append(Finding("I10", org_id, f"A slot is of epoch {slot.epoch}, later than the placement's."))
        if slot.epoch < placement.epoch and slot.state is SlotState.OPEN:
            found.append(Finding("I10", org_id, f"A slot of the former epoch {slot.epoch} is open."))
    if there and organization.operation_id is None and not bare:
        async for drift in index_integrity.drifts(app, placement, repair=repair):
            detail = f"Indexes of {drift.collection} lack {drift.missing} entries and have {drift.excess} too many."
            found.append(Finding("I13", org_id, detail, drift.repaired))
    if off and any(off.values()):
        repaired = repair and there
        if repaired:
            await cell.run(space, _correct, space)
        amounts = ", ".join(f"{column} by {amount:+d}" for column, amount in off.items() if amount)
        found.append(Finding("I6", org_id, f"The usage counters are off: {amounts}.", repaired))
    return found


async def _usage(tx: Transaction, space: Space, at_most: int | None) -> tuple[list[Slot], dict[str, int] | None, bool]:
    """The slots; by how much they are off, None where they count more than ``at_most`` records; is there no index?"""
    slots = await tx.page(tables.slots, {"org_id": space.org_id}, limit=BATCH)
    if at_most is not None and sum(slot.records for slot in slots) > at_most:
        return slots, None, False
    return slots, await _drift(tx, space, slots), await index_integrity.are_none(tx)


async def _drift(tx: Transaction, space: Space, slots: Sequence[Slot]) -> dict[str, int]:
    """By how much the counters say more than a recount does, by column."""
    (counted,) = await tx.aggregate(tables.records, {"org_id": space.org_id}, sums=("bytes",))
    collections = await count_rows(tx, tables.collections, {"org_id": space.org_id})
    last = await tx.page(tables.record_events, order=("-seq",), limit=1)
    return {
        "records": sum(slot.records for slot in slots) - counted["count"],
        "bytes": sum(slot.bytes for slot in slots) - counted["bytes"],
        "collections": sum(slot.collections for slot in slots) - collections,
        "seq": min(0, max((slot.seq for slot in slots), default=0) - (last[0].seq if last else 0)),
    }


async def _correct(tx: Transaction, space: Space) -> None:
    """Recount under the lock of the slot that every writer passes, and put the difference into it."""
    await tx.lock(tables.slots, space.org_id, space.epoch, 0)
    slots = await tx.page(tables.slots, {"org_id": space.org_id}, limit=BATCH)
    off = await _drift(tx, space, slots)
    await tx.adjust(tables.slots, space.org_id, space.epoch, 0, deltas={k: -v for k, v in off.items()})
