"""Usage and quotas: what an organization has, in its space and in the directory, and how much of it its plan allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from orgstead.errors import NotFound
from orgstead.model import Organization, Slot
from orgstead.record_errors import QuotaExceeded
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

if TYPE_CHECKING:
    from orgstead.settings import PlanSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a plan allows of each counter; None is no limit.

    What is declared here is a counter: it has a setting ``max_…`` of plans, and a column of ``Slot`` (what is in the
    space) or of ``Organization`` (what is in the directory). It is shown and held to its limit everywhere.
    """

    records: int | None = None
    bytes: int | None = None
    collections: int | None = None
    members: int | None = None
    api_keys: int | None = None

    def of(self, what: str) -> int | None:
        limit: int | None = getattr(self, what)
        return limit

    def bounding(self, deltas: Mapping[str, int]) -> dict[str, int]:
        """The limits of the counters that grow by ``deltas``: what ``placements.enter`` holds them to."""
        growing = {what: getattr(self, what) for what, delta in deltas.items() if delta > 0}
        return {what: limit for what, limit in growing.items() if limit is not None}


Counted = Slot | Organization
"""The rows that have counters."""

_RELIEF: Final = {"members": "remove a member", "api_keys": "delete one that is not used"}

COUNTERS: Final = tuple(field.name for field in fields(Limits))
_COLUMNS: Final[Mapping[type[Counted], Sequence[str]]] = {
    model: [what for what in COUNTERS if what in model.__dataclass_fields__] for model in (Slot, Organization)
}


def limits_of(settings: Settings, plan: str) -> Limits:
    """What the plan allows; a plan that is not configured any more allows what exists, and nothing more."""
    rule = settings.plans.get(plan)
    return _NONE if rule is None else _limits(rule)


_NONE: Final = Limits(**dict.fromkeys(COUNTERS, 0))


@lru_cache(maxsize=64)
def _limits(rule: PlanSettings) -> Limits:
    return Limits(**{what: getattr(rule, f"max_{what}") for what in COUNTERS})


def used(counted: Counted) -> dict[str, int]:
    """The counters of a row; while it is locked (a slot: ``placements.hold``), they stay so."""
    return {what: getattr(counted, what) for what in _COLUMNS[type(counted)]}


def admit(limits: Limits, used: Mapping[str, int], deltas: Mapping[str, int]) -> None:
    """Raise ``QuotaExceeded`` where a counter would grow beyond its limit; what shrinks is never refused."""
    for what, delta in deltas.items():
        limit = limits.of(what) if delta > 0 else None
        if limit is not None and used[what] + delta > limit:
            raise exceeded(what, limit, used[what])


def admit_new(plan: str, limits: Limits, wanted: Mapping[str, int], brought: str) -> None:
    """Raise ``QuotaExceeded`` where an organization that is to be made would have more than its plan allows.

    There is nothing yet that could be deleted. ``brought`` says who has it, as in "the archive has".
    """
    for what, number in wanted.items():
        limit = limits.of(what)
        if limit is not None and number > limit:
            raise QuotaExceeded(
                f"The plan {plan} allows {_counted(limit, what)}, and {brought} {number}; choose another plan.",
                what=what,
                limit=limit,
                next=f"name another with --plan, or raise plans.{plan}.max_{what} in the configuration",
            )


def _counted(number: int, what: str) -> str:
    name = what.replace("api_keys", "API keys")
    return f"{number} {name.removesuffix('s') if number == 1 else name}"


def exceeded(what: str, limit: int, used: int) -> QuotaExceeded:
    """The refusal: it says which limit is in the way, how much is used, and what would help."""
    return QuotaExceeded(
        f"The organization's plan allows {_counted(limit, what)} and it has {used}, so this would be too much:"
        f" {_RELIEF.get(what, 'delete something')},"
        " or change to a plan with a higher limit.",
        what=what,
        limit=limit,
        used=used,
    )


async def count(tx: Transaction, organization: Organization, limits: Limits, deltas: Mapping[str, int]) -> None:
    """Count what the organization gets or loses in the directory, in the transaction that gives or takes it.

    One conditional write keeps what grows within the limits. The organization must be locked, so that the refusal says
    the numbers that were in the way. Raises ``QuotaExceeded``, ``NotFound``.
    """
    at_most = limits.bounding(deltas)
    if not await tx.adjust(tables.organizations, organization.id, deltas=deltas, at_most=at_most):
        admit(limits, used(organization), deltas)
        raise NotFound


async def read(tx: Transaction, space: Space) -> Slot:
    """The counters of a space as they are. Raises ``NotFound`` where it is not there (any more)."""
    return await tx.get(tables.slots, space.org_id, space.epoch, 0)


def shown(limits: Limits, *counted: Counted) -> dict[str, dict[str, int | None]]:
    """``{"records": {"used": 3, "limit": 10000}, …}``; a limit is None where there is none."""
    return {what: {"used": number, "limit": limits.of(what)} for row in counted for what, number in used(row).items()}
