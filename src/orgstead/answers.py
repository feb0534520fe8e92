"""Forgetting the answers that are kept in spaces for requests with an Idempotency-Key (``idempotency``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orgstead import feed, idempotency, placements
from orgstead.storage import tables

if TYPE_CHECKING:
    from orgstead.app import App

BATCH = 200


async def forget_expired(app: App) -> int:
    """Remove the answers past their time from every space; returns how many."""
    at, table = app.clock(), tables.space_responses
    removed = 0
    async for placement in feed.settled_placements(app):
        space, cell = placements.space_of(placement), app.cell(placement.cell)
        if await cell.read(space, idempotency.any_expired, at, table):
            while batch := await cell.run(space, idempotency.forget_expired, at, BATCH, table):
                removed += batch
    return removed
