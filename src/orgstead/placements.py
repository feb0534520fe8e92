"""Where an organization's data lives: plans decide the kind, the directory records it, slots fence the writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orgstead import names
from orgstead.errors import BudgetExhausted, NotFound, PlacementMoved, UnknownPlan
from orgstead.model import Cell, Organization, Placement, PlacementKind, Slot, SlotState
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.settings import Settings

FIRST_CELL = "main"
"""The cell that is the directory's own database server."""


def kind_of(settings: Settings, plan: str) -> PlacementKind:
    """Where the plan keeps data. Raises ``UnknownPlan``, naming the plans there are."""
    rule = settings.plans.get(plan)
    if rule is None:
        raise UnknownPlan(f"There is no plan of that name; the plans are {', '.join(sorted(settings.plans))}.")
    return PlacementKind(rule.placement)


def planned(settings: Settings, org_id: str, slug: str, plan: str) -> Placement:
    """The placement of a new organization on this plan."""
    kind = kind_of(settings, plan)
    space = names.space_name(slug, org_id, settings.placement.naming) if kind is PlacementKind.DEDICATED else None
    return Placement(org_id=org_id, cell=FIRST_CELL, kind=kind, space=space)


async def get(tx: Transaction, org_id: str) -> Placement:
    """Raises ``NotFound``."""
    return await tx.get(tables.placements, org_id)


async def get_many(tx: Transaction, org_ids: Sequence[str]) -> list[Placement]:
    """The placements of these organizations, in no promised order; at most 1,000."""
    return await tx.find_many(tables.placements, [(org_id,) for org_id in org_ids])


def space_of(placement: Placement) -> Space:
    """The space in its cell, as the placement has it now."""
    return Space(placement.org_id, placement.kind, placement.space, placement.epoch)


def is_named_by_slug(placement: Placement, organization: Organization) -> bool:
    """Must the space be renamed with the organization?"""
    return placement.space is not None and placement.space == names.space_name(
        organization.slug, organization.id, "slug"
    )


async def promise_space(tx: Transaction, placement: Placement, budget: int) -> None:
    """Count a dedicated space against its cell's budget, never beyond it. Raises ``BudgetExhausted``."""
    if placement.kind is PlacementKind.DEDICATED and await promise_spaces(tx, placement.cell, 1, budget) < 1:
        raise BudgetExhausted


async def promise_spaces(tx: Transaction, cell: str, wanted: int, budget: int) -> int:
    """Count up to ``wanted`` dedicated spaces against the cell's budget, never beyond it; returns how many."""
    if await tx.find(tables.cells, name=cell) is None:
        await tx.add(tables.cells, Cell(name=cell))
    if await tx.adjust(tables.cells, cell, deltas={"dedicated": wanted}, at_most={"dedicated": budget}):
        return wanted
    left = budget - (await tx.lock(tables.cells, cell)).dedicated
    if left < 1:
        return 0
    promised = min(left, wanted)
    await tx.adjust(tables.cells, cell, deltas={"dedicated": promised})
    return promised


async def release_space(tx: Transaction, placement: Placement) -> None:
    """Give a dedicated space's place in the budget back."""
    if placement.kind is PlacementKind.DEDICATED:
        await release_spaces(tx, placement.cell, 1)


async def release_spaces(tx: Transaction, cell: str, count: int) -> None:
    """Give places in the cell's budget back."""
    if count:
        await tx.adjust(tables.cells, cell, deltas={"dedicated": -count})


async def enter(
    tx: Transaction, space: Space, *, deltas: Mapping[str, int], at_most: Mapping[str, int] | None = None
) -> bool:
    """The fence: how every write to a space begins, in the transaction of the data.

    One conditional write to a slot proves that the caller's placement is current, counts the usage, and keeps it at
    or below ``at_most`` (columns of ``Slot``). Returns False where only the limit was in the way. Raises
    ``PlacementMoved`` when the space is closed, renamed, moved or gone: nothing may be written under this placement.
    """
    key = (space.org_id, space.epoch, 0)
    where = {"state": SlotState.OPEN}
    if await tx.adjust(tables.slots, *key, deltas=deltas, where=where, at_most=at_most):
        return True
    try:
        slot = await tx.lock(tables.slots, *key)
    except NotFound:
        raise PlacementMoved(retry_after=1) from None
    if slot.state is not SlotState.OPEN:
        raise PlacementMoved(retry_after=1)
    # Held now: either the limit is in the way, or the slot was opened since the first attempt.
    return await tx.adjust(tables.slots, *key, deltas=deltas, where=where, at_most=at_most)


async def hold(tx: Transaction, space: Space) -> Slot:
    """The space's slot, locked: until this transaction ends nobody else writes to the space, closes or moves it.

    For writes that must know before they ``enter`` what is there: the last event's number, the usage, what they
    replace. Raises ``PlacementMoved`` as ``enter`` does.
    """
    try:
        slot = await tx.lock(tables.slots, space.org_id, space.epoch, 0)
    except NotFound:
        raise PlacementMoved(retry_after=1) from None
    if slot.state is not SlotState.OPEN:
        raise PlacementMoved(retry_after=1)
    return slot


def renamed(placement: Placement, space: str) -> Placement:
    """The placement under the space's new physical name, in a new epoch."""
    return replace(placement, space=space, epoch=placement.epoch + 1, previous=placement.space)
