"""Purging a closed organization: remove its space and every row about it, and leave a receipt.

    intent (organization ``purging``) -> drop the space in batches -> remove its rows in batches -> receipt

The receipt says what was removed and when, and holds none of it. The organization's slugs stay quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orgstead import lifecycle, operations, placements, slugs
from orgstead.audit import SYSTEM, Actor
from orgstead.errors import ConfirmationRequired, NotFound
from orgstead.failpoints import failpoint
from orgstead.model import Json, Operation, Organization, OrganizationStatus, Placement, PurgeReceipt, Role
from orgstead.organizations import for_change
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Table, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("purge organization")
PURGE = "organization.purge"
BATCH = 500

_ROWS: tuple[tuple[Table[Any], str], ...] = (
    (tables.memberships, "org_id"),
    (tables.sessions, "org_id"),
    (tables.events, "org_id"),
    (tables.audit_entries, "org_id"),
    (tables.idempotent_responses, "org_id"),
    (tables.idempotent_responses, "subject"),
    (tables.operations, "org_id"),
)
"""What an organization's rows are, beside the few that go with the receipt; and the column that says whose they are."""


def confirm(organization: Organization, text: str | None) -> None:
    """Raise ``ConfirmationRequired`` unless ``text`` is the organization's slug: a purge cannot be undone."""
    if text != organization.slug:
        raise ConfirmationRequired


async def purge(app: App, org_id: str, actor: Actor) -> Operation:
    """Purge a closed organization now; returns the operation, which may still be running.

    Raises ``NotFound``, ``StatusConflict``, ``OperationInProgress``.
    """
    operation = await app.storage.run(SCOPE, write_intent, org_id, app, actor)
    await failpoint("delete.after_close")
    return await operations.finish(app, operation, within=operations.WAIT_SECONDS)


async def write_intent(tx: Transaction, org_id: str, app: App, actor: Actor) -> Operation:
    at = app.clock()
    organization = await for_change(tx, org_id, None, OrganizationStatus.CLOSED)
    owners = await tx.page(tables.memberships, {"org_id": org_id, "role": Role.OWNER}, limit=1)
    payload = {
        "held_for": owners[0].user_id if owners else None,
        "quarantine_days": app.settings.name_quarantine_days,
    }
    operation = operations.begun(PURGE, organization, actor, payload, at, app.owner)
    await tx.add(tables.operations, operation)
    purging = lifecycle.moved(organization, lifecycle.PURGING, at, operation_id=operation.id)
    await tx.replace(tables.organizations, purging)
    return operation


async def purge_due(app: App, limit: int = 16) -> int:
    """Begin the purge of organizations whose grace has ended, and drive it; returns how many were due."""
    due = await app.storage.read(SCOPE, _due, app.clock(), limit)
    for org_id in due:
        await purge(app, org_id, SYSTEM)
    return len(due)


async def _due(tx: Transaction, at: datetime, limit: int) -> list[str]:
    closed = await tx.page(
        tables.organizations, {"status": OrganizationStatus.CLOSED}, order=("purge_at",), limit=limit
    )
    return [o.id for o in closed if o.purge_at is not None and o.purge_at <= at and o.operation_id is None]


async def _placement(tx: Transaction, org_id: str) -> Placement:
    return await tx.get(tables.placements, org_id)


async def drop_space(app: App, operation: Operation) -> Mapping[str, Json]:
    """Close the space and remove it; what is counted is what this attempt removed, added to earlier ones' counts."""
    placement = await app.storage.read(SCOPE, _placement, operation.org_id)
    cell, space = app.cell(placement.cell), placements.space_of(placement)
    await cell.close_space(space)
    removed: dict[str, int] = {}
    while batch := await cell.drop_space(space):
        _count(removed, batch)
        await failpoint("delete.mid_purge")
    return {"space": removed}


async def remove_rows(app: App, operation: Operation) -> Mapping[str, Json]:
    removed: dict[str, int] = {}
    for table, column in _ROWS:
        while count := await app.storage.run(SCOPE, _remove_some, table, column, operation.org_id, operation.id):
            _count(removed, {table.name: count})
    return {"directory": removed}


async def _remove_some(tx: Transaction, table: Table[Any], column: str, org_id: str, keep: str) -> int:
    rows = await tx.page(table, {column: org_id}, limit=BATCH)
    rows = [row for row in rows if not (table is tables.operations and row.id == keep)]
    for row in rows:
        await tx.remove(table, *(getattr(row, name) for name in table.key))
    return len(rows)


def _count(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


async def finish(tx: Transaction, operation: Operation, at: datetime) -> None:
    """Write the receipt and let go of the last rows, all in one transaction."""
    org_id = operation.org_id
    organization = await tx.lock(tables.organizations, org_id)
    head = await tx.get(tables.audit_heads, org_id)
    removed = {**operation.result["space"], **operation.result["directory"]}
    receipt = PurgeReceipt(
        org_id=org_id,
        actor=operation.actor,
        closed_at=organization.closed_at,
        purged_at=at,
        removed=removed,
        audit_seq=head.seq,
        audit_hash=head.hash,
    )
    await tx.add(tables.purge_receipts, receipt)
    until = at + timedelta(days=operation.payload["quarantine_days"])
    await slugs.release_all(tx, org_id, operation.payload["held_for"], until)
    await placements.release_space(tx, await tx.get(tables.placements, org_id))
    await tx.remove(tables.audit_heads, org_id)
    await tx.remove(tables.placements, org_id)
    await tx.remove(tables.organizations, org_id)


async def receipt(tx: Transaction, org_id: str) -> PurgeReceipt:
    """The proof of a purge. Raises ``NotFound``."""
    found = await tx.find(tables.purge_receipts, org_id=org_id)
    if found is None:
        raise NotFound
    return found


operations.register(
    operations.Kind(
        PURGE,
        steps=(
            operations.Step("space", drop_space, then="delete.after_drop"),
            operations.Step("directory", remove_rows, finish),
        ),
    )
)
