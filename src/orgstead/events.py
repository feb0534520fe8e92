"""Events: what happened to an organization, written in the transaction that made it happen (an outbox)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from orgstead import kit
from orgstead.model import Event, Json
from orgstead.storage import tables
from orgstead.storage.port import Transaction


async def emit(
    tx: Transaction, org_id: str, type: str, data: Mapping[str, Json] | None = None, *, at: datetime
) -> None:
    """Record an event such as ``organization.renamed``. It exists exactly if the transaction commits."""
    await tx.add(tables.events, new(org_id, type, data or {}, at=at))


def new(org_id: str, type: str, data: Mapping[str, Json], *, at: datetime) -> Event:
    """An event to be added in the transaction of what it tells."""
    return Event(org_id=org_id, id=kit.new_id("evt"), type=type, data=dict(data), created_at=at)
