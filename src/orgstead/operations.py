"""Operations: work of several steps that any process can resume.

An operation is a row, written in the transaction that begins the work and before its first effect outside the
directory. Each step has an idempotent ``effect`` (spaces; outside any transaction) and a ``record`` (directory), and
ends with one compare-and-swap of the row, in the transaction of ``record``. A process that dies leaves a row whose
lease runs out; ``claim_due`` hands it to another, which repeats the interrupted step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orgstead import kit
from orgstead.audit import Actor
from orgstead.errors import (
    Conflict,
    FailpointReached,
    NotFound,
    OperationInProgress,
    OrgsteadError,
    StaleRow,
    Unavailable,
)
from orgstead.failpoints import failpoint
from orgstead.model import Json, Operation, OperationState, Organization
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

LEASE = timedelta(seconds=10)
"""How long a process may be silent about an operation before another takes it over."""

MAX_ATTEMPTS = 50
"""After so many failures an operation is given up as failed, for ``fsck`` and a person to look at."""

WAIT_SECONDS = 5.0
"""How long a request waits for its operation before it answers that it goes on."""

SCOPE = SystemScope("operations")

Effect = Callable[["App", Operation], Awaitable[Mapping[str, Json]]]
Record = Callable[[Transaction, Operation, datetime], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """``effect`` returns what to add to the operation's result. ``then`` is the failpoint after the step."""

    name: str
    effect: Effect | None = None
    record: Record | None = None
    then: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """``undo``, where there is one, takes everything back after an error that a retry cannot mend."""

    name: str
    steps: tuple[Step, ...]
    undo: Step | None = None

    def index(self, step: str) -> int:
        return [s.name for s in self.steps].index(step)


KINDS: dict[str, Kind] = {}
"""Filled by the modules that own the operations."""


def register(kind: Kind) -> None:
    KINDS[kind.name] = kind


# --- beginning ------------------------------------------------------------------------------------------------------


def begun(
    kind: str, organization: Organization, actor: Actor, payload: Mapping[str, Json], at: datetime, owner: str
) -> Operation:
    """A new operation of the organization, leased to this process; to be added together with its first changes."""
    if organization.operation_id is not None:
        raise OperationInProgress
    return Operation(
        id=kit.new_id("op"),
        org_id=organization.id,
        kind=kind,
        state=OperationState.RUNNING,
        step=KINDS[kind].steps[0].name,
        payload={**payload, "actor": {"id": actor.id, "request_id": actor.request_id, "address": actor.address}},
        actor=actor.id,
        lease_owner=owner,
        lease_until=at + LEASE,
        created_at=at,
        updated_at=at,
    )


def actor_of(operation: Operation) -> Actor:
    """The one who began the operation, for the audit entries of its later steps."""
    return Actor(**operation.payload["actor"])


async def get(tx: Transaction, org_id: str, operation_id: str) -> Operation:
    return await tx.get(tables.operations, org_id, operation_id)


# --- working --------------------------------------------------------------------------------------------------------


async def drive(app: App, operation: Operation) -> Operation:
    """Do every remaining step and return the operation as it ended.

    A step's error is written to the operation and raised. What waiting may mend stays to be resumed; what cannot be
    mended is undone first, where the kind can. Raises ``Conflict`` when another process has taken the operation over.
    """
    failure: OrgsteadError | None = None
    while operation.state is OperationState.RUNNING:
        try:
            operation = await _do_step(app, operation)
        except FailpointReached:
            raise
        except StaleRow:
            raise Conflict("Another process goes on with this operation.") from None
        except OrgsteadError as error:
            failure = failure or error
            operation = await app.storage.run(SCOPE, _failed, operation, error, app.clock())
            if not _is_undoing(operation):
                raise
    if failure:
        raise failure
    return operation


def _is_undoing(operation: Operation) -> bool:
    undo = KINDS[operation.kind].undo
    return operation.state is OperationState.RUNNING and undo is not None and operation.step == undo.name


async def drive_together(app: App, batch: Sequence[Operation]) -> None:
    """``drive`` for many operations of one kind that have only one step: effects side by side, one transaction.

    Those whose effect fails are driven alone afterwards, and raise what that raises.
    """
    if not batch:
        return
    (step,) = KINDS[batch[0].kind].steps
    effect = step.effect
    if effect is None:
        raise TypeError("a step without effect has nothing to do side by side")
    found = await asyncio.gather(*(effect(app, operation) for operation in batch), return_exceptions=True)
    done = [(op, result) for op, result in zip(batch, found, strict=True) if not isinstance(result, BaseException)]
    await app.storage.run(SCOPE, _advance_all, done, step, app.clock())
    for operation, result in zip(batch, found, strict=True):
        if isinstance(result, OrgsteadError):
            await drive(app, operation)
        elif isinstance(result, BaseException):
            raise result


async def _advance_all(
    tx: Transaction, done: Sequence[tuple[Operation, Mapping[str, Json]]], step: Step, at: datetime
) -> None:
    for operation, found in done:
        await _advance(tx, operation, step, None, found, at)


async def _do_step(app: App, operation: Operation) -> Operation:
    kind = KINDS[operation.kind]
    undoing = _is_undoing(operation)
    step = kind.undo if undoing and kind.undo else kind.steps[kind.index(operation.step)]
    following = None if undoing or step is kind.steps[-1] else kind.steps[kind.index(step.name) + 1]
    found: Mapping[str, Json] = {}
    if step.effect:
        found, operation = await _leased(app, operation, step.effect)
    operation = await app.storage.run(SCOPE, _advance, operation, step, following, found, app.clock())
    if step.then:
        await failpoint(step.then)
    return operation


async def _leased(app: App, operation: Operation, effect: Effect) -> tuple[Mapping[str, Json], Operation]:
    """Run the effect and renew the lease for as long as it takes; give up when somebody else has the lease."""
    task = asyncio.ensure_future(effect(app, operation))
    try:
        while True:
            await asyncio.wait({task}, timeout=LEASE.total_seconds() / 3)
            if task.done():
                return task.result(), operation
            renewed = replace(operation, lease_until=app.clock() + LEASE)
            operation = await app.storage.run(SCOPE, _renew, renewed)
    finally:
        task.cancel()


async def _renew(tx: Transaction, operation: Operation) -> Operation:
    return await tx.replace(tables.operations, operation)


async def _advance(
    tx: Transaction, operation: Operation, step: Step, following: Step | None, found: Mapping[str, Json], at: datetime
) -> Operation:
    undone = _is_undoing(operation)
    steps = KINDS[operation.kind].steps
    advanced = replace(
        operation,
        step=following.name if following else step.name,
        progress=steps.index(following) / len(steps) if following else 1.0,
        state=OperationState.RUNNING if following else OperationState.FAILED if undone else OperationState.SUCCEEDED,
        result={**operation.result, **found},
        error=operation.error if undone else None,
        lease_owner=operation.lease_owner if following else None,
        lease_until=at + LEASE,
        updated_at=at,
    )
    advanced = await tx.replace(tables.operations, advanced)
    if step.record:
        await step.record(tx, advanced, at)
    return advanced


async def _failed(tx: Transaction, operation: Operation, error: OrgsteadError, at: datetime) -> Operation:
    """Write the error down, and decide: again when the lease ends, undo, or give up. Raises ``StaleRow``."""
    stored = await get(tx, operation.org_id, operation.id)
    if stored.lease_owner != operation.lease_owner:
        raise StaleRow
    operation = stored
    attempts = operation.attempts + 1
    hopeless = not isinstance(error, Unavailable) or attempts >= MAX_ATTEMPTS
    undo = KINDS[operation.kind].undo if hopeless and not _is_undoing(operation) else None
    delay = min(LEASE, timedelta(milliseconds=100) * 2 ** min(attempts, 10))
    waiting = replace(
        operation,
        attempts=attempts,
        error=error.code,
        step=undo.name if undo else operation.step,
        state=OperationState.FAILED if hopeless and not undo else OperationState.RUNNING,
        lease_owner=operation.lease_owner if undo else None,
        lease_until=at + (LEASE if undo else delay),
        updated_at=at,
    )
    return await tx.replace(tables.operations, waiting)


async def claim_due(tx: Transaction, owner: str, at: datetime, limit: int) -> list[Operation]:
    """Lease running operations that nobody works on any more."""
    return await tx.claim(
        tables.operations,
        {"state": OperationState.RUNNING},
        due=at,
        until=at + LEASE,
        owner=owner,
        limit=limit,
    )


async def resume_due(app: App, limit: int = 16) -> int:
    """Claim operations whose lease ran out and drive each to its end; returns how many were claimed.

    One that fails again stays for the next round.
    """
    due = await app.storage.run(SCOPE, claim_due, app.owner, app.clock(), limit)
    await asyncio.gather(*(drive(app, operation) for operation in due), return_exceptions=True)
    return len(due)


async def retry_now(app: App, operation: Operation) -> Operation:
    """Take a running operation over whose lease has ended, whatever its age, and drive it; returns it as it stands.

    One that another process works on, or that fails again, is left as it is.
    """
    try:
        mine = await app.storage.run(SCOPE, _take_over, operation, app.owner, app.clock())
        return await drive(app, mine)
    except OrgsteadError:
        return await app.storage.read(SCOPE, get, operation.org_id, operation.id)


async def _take_over(tx: Transaction, operation: Operation, owner: str, at: datetime) -> Operation:
    held = await get(tx, operation.org_id, operation.id)
    if held.state is not OperationState.RUNNING or held.lease_until > at:
        raise Conflict("Another process goes on with this operation.")
    return await tx.replace(tables.operations, replace(held, lease_owner=owner, lease_until=at + LEASE))


async def finish(app: App, operation: Operation, within: float) -> Operation:
    """Drive the operation in a task of the App's, and wait up to ``within`` seconds for its end.

    Returns it as it stands then. The work goes on when the waiting ends, also when the caller is cancelled.
    """
    task = app.in_background(drive(app, operation))
    await asyncio.wait({task}, timeout=within)
    if task.done():
        return task.result()
    return await app.storage.read(SCOPE, get, operation.org_id, operation.id)


# --- tidying --------------------------------------------------------------------------------------------------------


async def forget_old(tx: Transaction, before: datetime, limit: int) -> int:
    """Remove operations that ended before ``before``; returns how many."""
    removed = 0
    for state in (OperationState.SUCCEEDED, OperationState.FAILED):
        for operation in await tx.page(tables.operations, {"state": state}, order=("updated_at",), limit=limit):
            if operation.updated_at >= before:
                break
            await tx.remove(tables.operations, operation.org_id, operation.id)
            removed += 1
    return removed


async def page(
    tx: Transaction, where: Mapping[str, Any], *, after: tuple[Any, ...] | None, limit: int
) -> list[Operation]:
    """Operations, newest first."""
    return await tx.page(tables.operations, where, order=("-created_at", "-org_id", "-id"), after=after, limit=limit)


async def find_running(tx: Transaction, organization: Organization) -> Operation:
    """The operation that is at work on the organization. Raises ``NotFound`` if none is."""
    if organization.operation_id is None:
        raise NotFound
    return await get(tx, organization.id, organization.operation_id)
