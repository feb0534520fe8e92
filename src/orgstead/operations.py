"""Operations: work of several steps that any process can resume.

An operation is a row, written in the transaction that begins the work and before its first effect outside the
directory. Each step has an idempotent ``effect`` (spaces; outside any transaction) and a ``record`` (directory), and
ends with one compare-and-swap of the row, in the transaction of ``record``. A process that dies leaves a row whose
lease runs out; another takes it over (``resuming.py``) and repeats the interrupted step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from orgstead import kit
from orgstead.audit import Actor
from orgstead.errors import (
    Conflict,
    FailpointReached,
    InternalError,
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

log = structlog.get_logger("orgstead.operations")

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
class Together:
    """A step's effect and record for many operations at once: for all of them or, where one raises, for none that
    counts. Only of an effect that adds nothing to the result."""

    effect: Callable[[App, Sequence[Operation]], Awaitable[None]]
    record: Callable[[Transaction, Sequence[Operation], datetime], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """``effect`` returns what to add to the operation's result. ``then`` is the failpoint after the step."""

    name: str
    effect: Effect | None = None
    record: Record | None = None
    then: str | None = None
    together: Together | None = None


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


async def record_all(tx: Transaction, operation: Operation, at: datetime) -> None:
    """What the steps of the operation record, one after the other in one transaction: for rehearsals, which have no
    effects between them."""
    for step in KINDS[operation.kind].steps:
        if step.record is not None:
            await step.record(tx, operation, at)


# --- beginning ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beginning:
    """Who begins an operation, when, and in which process (``App.owner``): what the transaction needs of the App."""

    actor: Actor
    at: datetime
    owner: str


def beginning(app: App, actor: Actor) -> Beginning:
    """The actor begins something now, in this process."""
    return Beginning(actor, app.clock(), app.owner)


def begun(kind: str, organization: Organization, by: Beginning, payload: Mapping[str, Json]) -> Operation:
    """A new operation of the organization, leased to this process; to be added together with its first changes.

    Raises ``OperationInProgress``.
    """
    actor, at = by.actor, by.at
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
        lease_owner=by.owner,
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
            raise taken_over() from None
        except OrgsteadError as error:
            before, operation = operation, await app.storage.run(SCOPE, _failed, operation, error, app.clock())
            if operation.attempts == before.attempts:
                continue  # the step was saved after all
            failure = failure or error
            if operation.lease_owner is None:
                raise failure from error
    if failure:
        raise failure
    return operation


def taken_over() -> Conflict:
    """What a process hears that was silent about its operation for too long."""
    return Conflict("Another process goes on with this operation.")


def _is_undoing(operation: Operation) -> bool:
    undo = KINDS[operation.kind].undo
    return operation.state is OperationState.RUNNING and undo is not None and operation.step == undo.name


async def drive_together(app: App, batch: Sequence[Operation]) -> dict[str, OrgsteadError]:
    """``drive`` for many operations of one kind whose only step has a ``together``: one effect, one transaction.

    Where the effect fails, each is driven alone. Returns what that raised, by the operation's id.
    """
    if not batch:
        return {}
    (step,) = KINDS[batch[0].kind].steps
    if step.together is None:
        raise TypeError("the step has no effect for many operations at once")
    try:
        await step.together.effect(app, batch)
        await app.storage.run(SCOPE, _advance_all, batch, step, step.together, app.clock())
    except FailpointReached:
        raise
    except OrgsteadError:
        # Alone each shows whose fault it is, and which others took over because the batch was silent for too long.
        return await _drive_alone(app, batch)
    if step.then:
        await failpoint(step.then)
    return {}


async def _drive_alone(app: App, batch: Sequence[Operation]) -> dict[str, OrgsteadError]:
    errors: dict[str, OrgsteadError] = {}
    for operation in batch:
        try:
            await drive(app, operation)
        except FailpointReached:
            raise
        except OrgsteadError as error:
            stands = await app.storage.read(SCOPE, get, operation.org_id, operation.id)
            if isinstance(error, Unavailable) or stands.state is OperationState.FAILED:
                errors[operation.id] = error  # or else another process goes on with it
    return errors


async def _advance_all(
    tx: Transaction, batch: Sequence[Operation], step: Step, together: Together, at: datetime
) -> None:
    advanced = [_advanced(operation, step, None, {}, at) for operation in batch]
    await together.record(tx, await tx.replace_many(tables.operations, advanced), at)


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
                return _result(task, operation), operation
            renewed = replace(operation, lease_until=app.clock() + LEASE)
            operation = await app.storage.run(SCOPE, _renew, renewed)
    finally:
        task.cancel()


def _result(task: asyncio.Task[Mapping[str, Json]], operation: Operation) -> Mapping[str, Json]:
    """What the effect found. A fault of ours is an error like any other: noted, counted and undone."""
    try:
        return task.result()
    except OrgsteadError:
        raise
    except Exception as fault:
        log.exception("operation.fault", operation=operation.id, kind=operation.kind, step=operation.step)
        raise InternalError from fault


async def _renew(tx: Transaction, operation: Operation) -> Operation:
    return await tx.replace(tables.operations, operation)


async def _advance(
    tx: Transaction, operation: Operation, step: Step, following: Step | None, found: Mapping[str, Json], at: datetime
) -> Operation:
    advanced = await tx.replace(tables.operations, _advanced(operation, step, following, found, at))
    if step.record:
        await step.record(tx, advanced, at)
    return advanced


def _advanced(
    operation: Operation, step: Step, following: Step | None, found: Mapping[str, Json], at: datetime
) -> Operation:
    undone = _is_undoing(operation)
    steps = KINDS[operation.kind].steps
    return replace(
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


async def _failed(tx: Transaction, operation: Operation, error: OrgsteadError, at: datetime) -> Operation:
    """Write the error down, and decide: again when the lease ends, undo at once (keeping the lease), or give up.

    Nothing is written, and the operation returned as it stands, where the step was saved although that seemed to fail
    (``OutcomeUnknown``). Raises ``Conflict`` when another process has the operation.
    """
    stored = await tx.lock(tables.operations, operation.org_id, operation.id)
    if stored.state is not OperationState.RUNNING:
        return stored
    if stored.lease_owner != operation.lease_owner:
        raise taken_over()
    if stored.step != operation.step:
        return stored
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


async def finish(app: App, operation: Operation, within: float) -> Operation:
    """Drive the operation in a task of the App's, and wait up to ``within`` seconds for its end.

    Returns it as it stands then. The work goes on when the waiting ends, also when the caller is cancelled.
    """
    task = app.in_background(drive(app, operation))
    try:
        await asyncio.wait({task}, timeout=within)
    finally:
        if not task.done():
            task.add_done_callback(partial(_heard_late, operation))
    if task.done():
        return task.result()
    return await app.storage.read(SCOPE, get, operation.org_id, operation.id)


def _heard_late(operation: Operation, task: asyncio.Task[Operation]) -> None:
    """How work ended that its caller no longer waits for; any error but one of ours is a fault, and told as one."""
    if not task.cancelled() and isinstance(error := task.exception(), OrgsteadError):
        log_failure(operation, error)


def log_failure(operation: Operation, error: OrgsteadError) -> None:
    """Note that an operation failed and nobody waits to be told: it stays to be resumed, or another goes on with it."""
    log.warning("operation.failed", operation=operation.id, kind=operation.kind, code=error.code)


async def page(
    tx: Transaction, where: Mapping[str, Any], *, after: tuple[str, str] | None, limit: int
) -> list[Operation]:
    """Operations, newest first: their ids sort by age. ``after`` is the ``id`` and ``org_id`` of the one before."""
    return await tx.page(tables.operations, where, order=("-id", "-org_id"), after=after, limit=limit)
