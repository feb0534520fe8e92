"""Purging a closed organization: remove its space and every row about it, and leave a receipt.

    intent (organization ``purging``) -> close the space and count -> drop the space -> remove its rows -> receipt

The receipt says what was removed and when, and holds none of it. It is counted before the first row goes, so that a
purge that was interrupted counts right, too. The organization's slugs stay quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from orgstead import lifecycle, operations, placements, slugs
from orgstead.audit import SYSTEM, Actor
from orgstead.errors import ConfirmationRequired, NotFound, OrgsteadError
from orgstead.failpoints import failpoint
from orgstead.model import Json, Operation, Organization, OrganizationStatus, PurgeReceipt, Role
from orgstead.organizations import for_change
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Table, Transaction, count_rows

if TYPE_CHECKING:
    from orgstead.app import App

log = structlog.get_logger("orgstead.purging")

SCOPE = SystemScope("purge organization")
PURGE = "organization.purge"
BATCH = 500

_ROWS: tuple[tuple[Table[Any], str], ...] = (
    (tables.memberships, "org_id"),
    (tables.sessions, "org_id"),
    (tables.api_keys, "org_id"),
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
    by = operations.beginning(app, actor)
    operation = await app.storage.run(SCOPE, write_intent, org_id, by, app.settings.name_quarantine_days)
    await failpoint("delete.after_close")
    return await operations.finish(app, operation, within=operations.WAIT_SECONDS)


async def write_intent(tx: Transaction, org_id: str, by: operations.Beginning, quarantine_days: int) -> Operation:
    """Nothing brings the organization back once this is written: it is purging until it is gone."""
    organization = await for_change(tx, org_id, None, OrganizationStatus.CLOSED)
    owners = await tx.page(tables.memberships, {"org_id": org_id, "role": Role.OWNER}, limit=1)
    payload = {
        "held_for": owners[0].user_id if owners else None,
        "quarantine_days": quarantine_days,
    }
    operation = operations.begun(PURGE, organization, by, payload)
    await tx.add(tables.operations, operation)
    purging = lifecycle.moved(organization, lifecycle.PURGING, by.at, operation_id=operation.id)
    await tx.replace(tables.organizations, purging)
    return operation


async def purge_due(app: App, limit: int = 16) -> int:
    """Begin the purge of organizations whose grace has ended, and drive it; returns how many were purged.

    One that fails is logged and does not stop the others; its operation is resumed like any other.
    """
    purged = 0
    for org_id in await app.storage.read(SCOPE, _due, app.clock(), limit):
        try:
            await purge(app, org_id, SYSTEM)
        except OrgsteadError as error:
            log.warning("purge.failed", organization=org_id, code=error.code)
        else:
            purged += 1
    return purged


async def _due(tx: Transaction, at: datetime, limit: int) -> list[str]:
    closed = await tx.page(
        tables.organizations, {"status": OrganizationStatus.CLOSED}, order=("purge_at",), limit=limit
    )
    return [o.id for o in closed if o.purge_at is not None and o.purge_at <= at and o.operation_id is None]


async def close_and_count(app: App, operation: Operation) -> Mapping[str, Json]:
    """Close the space, so that nothing is added any more, and count what will be removed, by table."""
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    cell, space = app.cell(placement.cell), placements.space_of(placement)
    await cell.close_space(space)
    removed = await cell.scan(space, _count_space, operation.org_id)
    return {"removed": {**removed, **await app.storage.scan(SCOPE, _count_directory, operation.org_id)}}


async def _count_space(tx: Transaction, org_id: str) -> dict[str, int]:
    return {table.name: await count_rows(tx, table, {"org_id": org_id}) for table in tables.SPACE}


async def _count_directory(tx: Transaction, org_id: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for table, column in _ROWS:
        counts[table.name] = counts.get(table.name, 0) + await count_rows(tx, table, {column: org_id})
    both = {"org_id": org_id, "subject": org_id}
    counts[tables.idempotent_responses.name] -= await count_rows(tx, tables.idempotent_responses, both)
    counts[tables.operations.name] -= 1  # the purge itself is kept for a while, for those who ask how it went
    return counts


async def drop_space(app: App, operation: Operation) -> Mapping[str, Json]:
    """Remove the organization's data, in batches where it shares tables with others."""
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    while await app.cell(placement.cell).drop_space(placements.space_of(placement)):
        await failpoint("delete.mid_purge")
    return {}


async def remove_rows(app: App, operation: Operation) -> Mapping[str, Json]:
    """Remove what the directory knows about the organization, in batches; the receipt comes with the last rows."""
    for table, column in _ROWS:
        while await app.storage.run(SCOPE, _remove_some, table, column, operation.org_id, operation.id):
            pass
    return {}


async def _remove_some(tx: Transaction, table: Table[Any], column: str, org_id: str, keep: str) -> int:
    rows = await tx.page(table, {column: org_id}, limit=BATCH)
    rows = [row for row in rows if not (table is tables.operations and row.id == keep)]
    for row in rows:
        await tx.take(table, **{name: getattr(row, name) for name in table.key})
    return len(rows)


async def finish(tx: Transaction, operation: Operation, at: datetime) -> None:
    """Write the receipt and let go of the last rows, all in one transaction.

    What was begun before the purge, such as a log-in, may have added a row after its table was emptied. It ended with
    an audit entry; with the end of the chain locked, the rows that are there now are the last.
    """
    org_id = operation.org_id
    organization = await tx.lock(tables.organizations, org_id)
    head = await tx.lock(tables.audit_heads, org_id)
    for table, column in _ROWS:
        while await _remove_some(tx, table, column, org_id, operation.id):
            pass
    receipt = PurgeReceipt(
        org_id=org_id,
        actor=operation.actor,
        closed_at=organization.closed_at,
        purged_at=at,
        removed=operation.result["removed"],
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
            operations.Step("close", close_and_count),
            operations.Step("space", drop_space, then="delete.after_drop"),
            operations.Step("directory", remove_rows, finish),
        ),
    )
)
