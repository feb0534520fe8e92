"""The change feed: what happened to an organization's records and collections, in the order of the commits.

Each change writes its events in its own transaction, numbered without gaps by the slot that it holds until it has
committed: whoever has seen number n has seen all before it, and a reader that goes on after n misses nothing. Events
say which record changed, not what it holds: read it for that. They are kept for some days; a reader that comes later
than that is told so, and starts anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orgstead import placements, usage
from orgstead.kit import rfc3339
from orgstead.model import Json, Placement, PlacementState, RecordEvent
from orgstead.record_errors import FeedExpired
from orgstead.storage import tables
from orgstead.storage.port import Space, SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("expire record events")
BATCH = 500


@dataclass(frozen=True, slots=True)
class Events:
    """Events in order, and the number after which to go on."""

    events: list[RecordEvent]
    after: int


async def read(tx: Transaction, space: Space, *, after: int, limit: int) -> Events:
    """Up to ``limit`` events behind the number ``after``; 0 is before the first that ever was.

    Raises ``FeedExpired`` where the event after it is not kept any more, or ``after`` is a number that was not given.
    """
    events = await tx.page(tables.record_events, order=("seq",), after=(after, space.org_id), limit=limit)
    if events and events[0].seq == after + 1:
        return Events(events, events[-1].seq)
    if events or after != (last := await end(tx, space)):
        raise FeedExpired
    return Events([], last)


async def beginning(tx: Transaction, space: Space) -> int:
    """The number before the oldest event that is kept."""
    oldest = await tx.page(tables.record_events, order=("seq",), limit=1)
    return oldest[0].seq - 1 if oldest else await end(tx, space)


async def end(tx: Transaction, space: Space) -> int:
    """The number of the last event: where a reader begins who has just read the records, in the same snapshot."""
    return (await usage.read(tx, space)).seq


def shown(event: RecordEvent) -> dict[str, Json]:
    """An event as JSON."""
    return {
        "object": "event",
        "seq": event.seq,
        "type": event.type,
        "collection": event.collection,
        "record_id": event.record_id,
        "record_version": event.record_version,
        "actor": event.actor,
        "created_at": rfc3339(event.at),
    }


# --- expiring -------------------------------------------------------------------------------------------------------


async def forget_expired(app: App) -> int:
    """Remove the events of every space that are older than the setting says; returns how many."""
    before = app.clock() - timedelta(days=app.settings.records.events_kept_days)
    removed = 0
    async for placement in settled_placements(app):
        space = placements.space_of(placement)
        cell = app.cell(placement.cell)
        if await cell.read(space, _has_expired, before):
            while batch := await cell.run(space, _forget, before):
                removed += batch
    return removed


async def settled_placements(app: App) -> AsyncIterator[Placement]:
    """Every placement, except those of organizations whose space is just being moved."""
    after: tuple[str] | None = None
    while page := await app.storage.scan(SCOPE, _page, after):
        for placement in page:
            if placement.state is PlacementState.STABLE:
                yield placement
        after = (page[-1].org_id,)


async def _page(tx: Transaction, after: tuple[str] | None) -> list[Placement]:
    return await tx.page(tables.placements, after=after, limit=BATCH)


async def _has_expired(tx: Transaction, before: datetime) -> bool:
    oldest = await tx.page(tables.record_events, order=("seq",), limit=1)
    return bool(oldest) and oldest[0].at < before


async def _forget(tx: Transaction, before: datetime) -> int:
    """Remove the oldest events; never one before an older one, so that what is left has no gap."""
    oldest = await tx.page(tables.record_events, order=("seq",), limit=BATCH)
    expired: list[RecordEvent] = []
    for event in oldest:
        if event.at >= before:
            break
        expired.append(event)
    if expired:
        await tx.remove_many(tables.record_events, [(event.org_id, event.seq) for event in expired])
    return len(expired)
