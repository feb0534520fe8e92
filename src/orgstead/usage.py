"""Usage and quotas: what an organization's space holds, and how much of it its plan allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orgstead.model import Slot
from orgstead.record_errors import QuotaExceeded
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.settings import Settings

COUNTERS: Final = ("records", "bytes", "collections")
"""The columns of ``Slot`` that a plan can limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a plan allows of each counter; None is no limit."""

    records: int | None = None
    bytes: int | None = None
    collections: int | None = None

    def of(self, what: str) -> int | None:
        limit: int | None = getattr(self, what)
        return limit

    def bounding(self, deltas: Mapping[str, int]) -> dict[str, int]:
        """The limits of the counters that grow by ``deltas``: what ``placements.enter`` holds them to."""
        growing = {what: self.of(what) for what, delta in deltas.items() if delta > 0}
        return {what: limit for what, limit in growing.items() if limit is not None}


def limits_of(settings: Settings, plan: str) -> Limits:
    """What the plan allows; a plan that is not configured any more allows what exists, and nothing more."""
    rule = settings.plans.get(plan)
    if rule is None:
        return Limits(records=0, bytes=0, collections=0)
    return Limits(records=rule.max_records, bytes=rule.max_bytes, collections=rule.max_collections)


def used(slot: Slot) -> dict[str, int]:
    """The counters of a slot; where it is held (``placements.hold``), they stay so."""
    return {what: getattr(slot, what) for what in COUNTERS}


def admit(limits: Limits, used: Mapping[str, int], deltas: Mapping[str, int]) -> None:
    """Raise ``QuotaExceeded`` where a counter would grow beyond its limit; what shrinks is never refused."""
    for what, delta in deltas.items():
        limit = limits.of(what) if delta > 0 else None
        if limit is not None and used[what] + delta > limit:
            raise exceeded(what, limit, used[what])


def exceeded(what: str, limit: int, used: int) -> QuotaExceeded:
    """The refusal: it says which limit is in the way, how much is used, and what would help."""
    return QuotaExceeded(
        f"The organization's plan allows {limit} {what} and it has {used}, so this would be too much: delete something,"
        " or change to a plan with a higher limit.",
        what=what,
        limit=limit,
        used=used,
    )


async def read(tx: Transaction, space: Space) -> Slot:
    """The counters of a space as they are. Raises ``NotFound`` where it is not there (any more)."""
    return await tx.get(tables.slots, space.org_id, space.epoch, 0)


def shown(slot: Slot, limits: Limits) -> dict[str, dict[str, int | None]]:
    """``{"records": {"used": 3, "limit": 10000}, …}``; a limit is None where there is none."""
    return {what: {"used": getattr(slot, what), "limit": limits.of(what)} for what in COUNTERS}
