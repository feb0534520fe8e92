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
    await tx.add(
        tables.events, Event(org_id=org_id, id=kit.new_id("evt"), type=type, data=dict(data or {}), created_at=at)
    )
