"""Operations that were left behind: taken over when their lease has run out, driven on, and forgotten in the end.

``claim_due`` hands what a dead process left to another. Where only one process can write, the next one to start need
not wait: ``adopt_left_behind``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orgstead import operations
from orgstead.errors import Conflict, OrgsteadError
from orgstead.model import Operation, OperationState
from orgstead.operations import SCOPE
from orgstead.storage import tables
from orgstead.storage.port import Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SIDE_BY_SIDE = 16
"""Operations that one process resumes at the same time."""


async def claim_due(tx: Transaction, owner: str, at: datetime, limit: int) -> list[Operation]:
    """Lease running operations that nobody works on any more."""
    return await tx.claim(
        tables.operations,
        {"state": OperationState.RUNNING},
        due=at,
        until=at + operations.LEASE,
        owner=owner,
        limit=limit,
    )


async def resume_due(app: App, limit: int = SIDE_BY_SIDE) -> int:
    """Claim operations whose lease ran out and drive each to its end; returns how many were claimed.

    One that fails again stays for the next round.
    """
    due = await app.storage.run(SCOPE, claim_due, app.owner, app.clock(), limit)
    await _drive_each(app, due)
    return len(due)


async def adopt_left_behind(app: App) -> int:
    """Take over at once what dead processes left running, and drive it; returns how many operations that were.

    For the start of a process, and only where no other can write to the database: then nobody is alive to hold a
    lease. Elsewhere it does nothing, and ``resume_due`` takes over what has been silent for ``operations.LEASE``.
    """
    if not app.is_only_writer:
        return 0
    adopted = 0
    after: tuple[str, str] | None = None
    while running := await app.storage.run(SCOPE, _running, after, SIDE_BY_SIDE):
        left = [operation for operation in running if operation.lease_owner != app.owner]
        await _drive_each(app, [await app.storage.run(SCOPE, _lease, o, app.owner, app.clock()) for o in left])
        adopted += len(left)
        after = (running[-1].org_id, running[-1].id)
    return adopted


async def _running(tx: Transaction, after: tuple[str, str] | None, limit: int) -> list[Operation]:
    where = {"state": OperationState.RUNNING}
    return await tx.page(tables.operations, where, order=("org_id", "id"), after=after, limit=limit)


async def _drive_each(app: App, batch: Sequence[Operation]) -> None:
    """Drive operations side by side; what fails is logged and does not stop the others."""
    found = await asyncio.gather(*(operations.drive(app, operation) for operation in batch), return_exceptions=True)
    for operation, error in zip(batch, found, strict=True):
        if isinstance(error, OrgsteadError):
            operations.log_failure(operation, error)
        elif isinstance(error, BaseException):
            raise error


async def retry_now(app: App, operation: Operation) -> Operation:
    """Take over an operation that nobody works on, even one that was given up, and drive it; returns it as it stands.

    One that another process works on, or that fails again, is left as it is. What was given up is tried again only
    while its organization still waits for it.
    """
    try:
        mine = await app.storage.run(SCOPE, _take_over, operation, app.owner, app.clock())
        return await operations.drive(app, mine)
    except OrgsteadError:
        return await app.storage.read(SCOPE, operations.get, operation.org_id, operation.id)


async def _take_over(tx: Transaction, operation: Operation, owner: str, at: datetime) -> Operation:
    held = await tx.lock(tables.operations, operation.org_id, operation.id)
    if held.state is OperationState.RUNNING and held.lease_until > at:
        raise operations.taken_over()
    if held.state is not OperationState.RUNNING and not await is_awaited(tx, held):
        raise Conflict("The operation has ended.")
    return await _lease(tx, replace(held, state=OperationState.RUNNING, attempts=0), owner, at)


async def is_awaited(tx: Transaction, operation: Operation) -> bool:
    """Is an organization held up by this operation?"""
    organization = await tx.find(tables.organizations, id=operation.org_id)
    return organization is not None and organization.operation_id == operation.id


async def _lease(tx: Transaction, operation: Operation, owner: str, at: datetime) -> Operation:
    return await tx.replace(tables.operations, replace(operation, lease_owner=owner, lease_until=at + operations.LEASE))


# --- tidying --------------------------------------------------------------------------------------------------------


async def forget_old(tx: Transaction, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` operations that ended before ``before``; returns how many.

    One that was given up and that its organization still waits for is kept, for ``fsck`` to find.
    """
    removed = 0
    for state in (OperationState.SUCCEEDED, OperationState.FAILED):
        after: tuple[Any, ...] | None = None
        while removed < limit:
            ended = await tx.page(
                tables.operations, {"state": state}, order=("updated_at", "org_id", "id"), after=after, limit=limit
            )
            old = [operation for operation in ended if operation.updated_at < before]
            for operation in old[: limit - removed]:
                if state is OperationState.SUCCEEDED or not await is_awaited(tx, operation):
                    await tx.take(tables.operations, org_id=operation.org_id, id=operation.id)
                    removed += 1
            if len(old) < limit:
                break
            after = (old[-1].updated_at, old[-1].org_id, old[-1].id)
    return removed
