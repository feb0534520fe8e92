"""fsck: does the directory agree with itself and with the spaces? Findings are named, and few are repaired.

I1  every live organization has one placement, and its space exists
I2  no space without an organization
I4  one organization per slug; a failed create leaves the name free
I6  slot counters equal a recount
I7  every audit chain verifies and begins with the creation
I9  no operation without progress for longer than its limit
I10 epochs only grow: no slots of a later epoch than the placement's, none open of an earlier one
I11 no membership without its user, no organization with members but without an owner

I3, I5, I8 and I12 belong to features that are not there yet. Repair does only what is safe: it drops a space that no
organization has (I2), corrects counters (I6) and lets a stuck operation be resumed at once (I9).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from orgstead import audit, operations, placements
from orgstead.errors import PlacementMoved
from orgstead.model import (
    Cell,
    Membership,
    Operation,
    OperationState,
    Organization,
    OrganizationStatus,
    Placement,
    PlacementKind,
    Role,
    Slot,
    SlotState,
    SlugState,
)
from orgstead.storage import tables
from orgstead.storage.port import FoundSpace, Space, SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("fsck")
BATCH = 500
STUCK = timedelta(seconds=60)
"""How long a running operation may go without progress."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. ``id`` is the invariant, ``subject`` an id or name, never content."""

    id: str
    subject: str
    detail: str
    repaired: bool = False


Report = Callable[[int], None]
"""Told how many more organizations have been looked at."""


def _ignore(count: int) -> None: ...


async def fsck(app: App, *, repair: bool = False, progress: Report = _ignore) -> AsyncIterator[Finding]:
    """Yield every finding.

    Reads in batches, so a service at work may show what it is just about to finish: run it again before you believe a
    finding about an organization with a running operation. ``progress`` is told how many organizations are done.
    """
    async for batch in _organizations(app):
        for finding in await app.storage.scan(SCOPE, _directory_findings, batch):
            yield finding
        places = {p.org_id: p for p in await app.storage.scan(SCOPE, _placements, [o.id for o in batch])}
        for organization in batch:
            async for finding in _space_findings(app, organization, places.get(organization.id), repair):
                yield finding
        progress(len(batch))
    for check in (_orphans, _stuck, _budget):
        async for finding in check(app, repair):
            yield finding


async def _organizations(app: App) -> AsyncIterator[list[Organization]]:
    after: tuple[str, ...] | None = None
    while batch := await app.storage.scan(SCOPE, _page, after):
        yield batch
        after = (batch[-1].id,)


async def _page(tx: Transaction, after: tuple[str, ...] | None) -> list[Organization]:
    return await tx.page(tables.organizations, order=("id",), after=after, limit=BATCH)


async def _placements(tx: Transaction, org_ids: list[str]) -> list[Placement]:
    return await tx.find_many(tables.placements, [(org_id,) for org_id in org_ids])


# --- one organization, in the directory ----------------------------------------------------------------------------


async def _directory_findings(tx: Transaction, batch: list[Organization]) -> list[Finding]:
    checks: tuple[Callable[[Transaction, Organization], Awaitable[list[Finding]]], ...] = (_slug, _chain, _members)
    alive = [o for o in batch if o.status is not OrganizationStatus.PURGING]
    return [finding for organization in alive for check in checks for finding in await check(tx, organization)]


async def _slug(tx: Transaction, organization: Organization) -> list[Finding]:
    claim = await tx.find(tables.slugs, slug=organization.slug)
    held = claim is not None and claim.org_id == organization.id
    state = claim.state if claim else None
    if held and (state is SlugState.CURRENT or (organization.operation_id and state is SlugState.REDIRECT)):
        return []
    return [Finding("I4", organization.id, "The organization does not hold its own slug.")]


async def _chain(tx: Transaction, organization: Organization) -> list[Finding]:
    broken = await audit.first_broken(tx, organization.id)
    if broken is None and await tx.find(tables.audit_heads, org_id=organization.id) is None:
        broken = 1
    if broken is None:
        return []
    return [Finding("I7", organization.id, f"The audit chain is not as it was written from entry {broken} on.")]


async def _members(tx: Transaction, organization: Organization) -> list[Finding]:
    findings: list[Finding] = []
    after: tuple[str, str] | None = None
    any_member, any_owner = False, False
    while batch := await tx.page(
        tables.memberships, {"org_id": organization.id}, order=("org_id", "user_id"), after=after, limit=BATCH
    ):
        any_member, any_owner = True, any_owner or any(m.role is Role.OWNER for m in batch)
        findings += await _dangling(tx, batch)
        after = (organization.id, batch[-1].user_id)
    if any_member and not any_owner:
        findings.append(Finding("I11", organization.id, "The organization has members, but no owner."))
    return findings


async def _dangling(tx: Transaction, memberships: list[Membership]) -> list[Finding]:
    users = {user.id for user in await tx.find_many(tables.users, [(m.user_id,) for m in memberships])}
    return [
        Finding("I11", m.org_id, f"A membership names the user {m.user_id}, who does not exist.")
        for m in memberships
        if m.user_id not in users
    ]


# --- one organization, in its cell ------------------------------------------------------------------------------------


async def _space_findings(
    app: App, organization: Organization, placement: Placement | None, repair: bool
) -> AsyncIterator[Finding]:
    if organization.status in (OrganizationStatus.PROVISIONING, OrganizationStatus.PURGING):
        return
    if placement is None:
        yield Finding("I1", organization.id, "The organization has no placement.")
        return
    cell, space = app.cell(placement.cell), placements.space_of(placement)
    try:
        slots, off = await cell.scan(space, _usage, space)
    except PlacementMoved:
        slots, off = [], {}
    if not any(slot.epoch == placement.epoch for slot in slots) and organization.operation_id is None:
        yield Finding("I1", organization.id, "The organization's space is not where its placement says.")
    for slot in slots:
        if slot.epoch > placement.epoch:
            yield Finding("I10", organization.id, f"A slot is of epoch {slot.epoch}, later than the placement's.")
        if slot.epoch < placement.epoch and slot.state is SlotState.OPEN:
            yield Finding("I10", organization.id, f"A slot of the former epoch {slot.epoch} is open.")
    if any(off.values()):
        if repair:
            await cell.run(space, _correct, space)
        amounts = ", ".join(f"{column} by {amount:+d}" for column, amount in off.items() if amount)
        yield Finding("I6", organization.id, f"The usage counters are off: {amounts}.", repair)


async def _usage(tx: Transaction, space: Space) -> tuple[list[Slot], dict[str, int]]:
    return await tx.page(tables.slots, {"org_id": space.org_id}, limit=BATCH), await _drift(tx, space)


async def _drift(tx: Transaction, space: Space) -> dict[str, int]:
    """By how much the counters say more than a recount does, by column."""
    where = {"org_id": space.org_id}
    counted = await tx.aggregate(tables.records, where, sums=("bytes",))
    kept = await tx.aggregate(tables.slots, where, sums=("records", "bytes"))
    records, size = (counted[0]["count"], counted[0]["bytes"]) if counted else (0, 0)
    return {
        "records": (kept[0]["records"] if kept else 0) - records,
        "bytes": (kept[0]["bytes"] if kept else 0) - size,
    }


async def _correct(tx: Transaction, space: Space) -> None:
    """Recount under the lock of the slot that every writer passes, and put the difference into it."""
    await tx.lock(tables.slots, space.org_id, space.epoch, 0)
    off = await _drift(tx, space)
    await tx.adjust(tables.slots, space.org_id, space.epoch, 0, deltas={k: -v for k, v in off.items()})


# --- what no organization knows of ------------------------------------------------------------------------------------


async def _orphans(app: App, repair: bool) -> AsyncIterator[Finding]:
    for name in app.cell_names():
        cell, mark = app.cell(name), ""
        while batch := await cell.spaces(after=mark, limit=BATCH):
            mark = batch[-1][0]
            for _, found in batch:
                if not await _is_orphan(app, found):
                    continue
                if repair:
                    await _drop(app, name, found)
                subject = found.name or found.org_id or "?"
                yield Finding("I2", subject, "A space is there that no organization has.", repair)


async def _is_orphan(app: App, found: FoundSpace) -> bool:
    if found.org_id is None:
        return True
    organization = await app.storage.scan(SCOPE, _organization, found.org_id)
    placement = await app.storage.scan(SCOPE, _placement, found.org_id)
    if organization is None or placement is None:
        return True
    return organization.operation_id is None and (placement.kind, placement.space) != (found.kind, found.name)


async def _placement(tx: Transaction, org_id: str) -> Placement | None:
    return await tx.find(tables.placements, org_id=org_id)


async def _organization(tx: Transaction, org_id: str) -> Organization | None:
    return await tx.find(tables.organizations, id=org_id)


async def _drop(app: App, cell: str, found: FoundSpace) -> None:
    for epoch in found.epochs or (0,):
        space = Space(found.org_id or "", found.kind, found.name, epoch)
        while await app.cell(cell).drop_space(space):
            pass


async def _stuck(app: App, repair: bool) -> AsyncIterator[Finding]:
    at = app.clock()
    for operation in await app.storage.scan(SCOPE, _running):
        if operation.updated_at + STUCK <= at:
            repaired = repair and await _resume(app, operation)
            yield Finding("I9", operation.id, f"The operation has made no progress at {operation.step}.", repaired)
    for operation in await app.storage.scan(SCOPE, _given_up):
        organization = await app.storage.scan(SCOPE, _organization, operation.org_id)
        if organization and organization.operation_id == operation.id:
            yield Finding("I9", operation.id, f"The operation was given up at {operation.step}: {operation.error}.")


async def _running(tx: Transaction) -> list[Operation]:
    where: Mapping[str, str] = {"state": OperationState.RUNNING}
    return await tx.page(tables.operations, where, order=("updated_at",), limit=BATCH)


async def _given_up(tx: Transaction) -> list[Operation]:
    where: Mapping[str, str] = {"state": OperationState.FAILED}
    return await tx.page(tables.operations, where, order=("-updated_at",), limit=BATCH)


async def _resume(app: App, operation: Operation) -> bool:
    return (await operations.retry_now(app, operation)).state is not OperationState.RUNNING


async def _budget(app: App, repair: bool) -> AsyncIterator[Finding]:
    """The budget's count of dedicated spaces is one more counter (I6)."""
    for cell in await app.storage.scan(SCOPE, _cells):
        counted = await app.storage.scan(SCOPE, _dedicated, cell.name)
        if cell.dedicated == counted:
            continue
        if repair:
            await app.storage.run(SCOPE, _recount, cell.name)
        yield Finding("I6", cell.name, f"The cell counts {cell.dedicated} dedicated spaces of {counted}.", repair)


async def _cells(tx: Transaction) -> list[Cell]:
    return await tx.page(tables.cells, limit=BATCH)


async def _dedicated(tx: Transaction, cell: str) -> int:
    where = {"cell": cell, "kind": PlacementKind.DEDICATED}
    counted = await tx.aggregate(tables.placements, where)
    return int(counted[0]["count"]) if counted else 0


async def _recount(tx: Transaction, cell: str) -> None:
    held = await tx.lock(tables.cells, cell)
    await tx.replace(tables.cells, replace(held, dedicated=await _dedicated(tx, cell)))
