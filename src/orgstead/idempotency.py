"""Idempotency keys: a POST that is sent again has its effect once and gets the same answer.

The row that remembers an answer is written in the transaction of the effect. Where the effect is an operation of
several transactions, the row is written with its first one and completed with the answer at the end; until then the
operation tells how it stands (``draft-ietf-httpapi-idempotency-key-header-07``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from orgstead.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
)
from orgstead.model import IdempotentResponse, OperationState
from orgstead.storage import tables
from orgstead.storage.port import Table, Transaction

T = TypeVar("T")
P = ParamSpec("P")

KEPT = timedelta(hours=24)
ABANDONED = timedelta(seconds=60)
"""After so long a request without an operation that never completed is taken for dead, and may be sent again."""


class Answer(msgspec.Struct, frozen=True):
    """An answer as it is stored. ``body`` is what goes over the wire; encrypted by the edge if it holds a secret."""

    status: int
    body: str
    headers: Mapping[str, str]


def checked_key(text: str) -> str:
    """The key, if it can be one. Raises ``InvalidIdempotencyKey``."""
    if not (1 <= len(text) <= 255 and text.isascii() and text.isprintable()):
        raise InvalidIdempotencyKey
    return text


def request_row(
    *, org_id: str, principal: str, route: str, key: str, request: bytes, secret: bool, at: datetime
) -> IdempotentResponse:
    """The row of a request: ``request`` is what must be the same when it is sent again (its path and body).

    ``org_id`` and ``principal`` are "" and "anonymous" without a credential. Raises ``InvalidIdempotencyKey``.
    """
    identity = "\0".join((principal, route, checked_key(key))).encode()
    return IdempotentResponse(
        org_id=org_id,
        id=hashlib.sha256(identity).hexdigest(),
        fingerprint=hashlib.sha256(request).hexdigest(),
        secret=secret,
        created_at=at,
        expires_at=at + KEPT,
    )


async def held(
    tx: Transaction, row: IdempotentResponse, table: Table[IdempotentResponse] = tables.idempotent_responses
) -> IdempotentResponse | None:
    """What is remembered of this request: a complete answer, or a row whose effect has happened, or None.

    What is of no use any more is removed on the way. Raises ``IdempotencyKeyReused`` when the key came with another
    request, ``IdempotencyInProgress`` while the first one is worked on.
    """
    found = await tx.find(table, org_id=row.org_id, id=row.id)
    if found is None:
        return None
    if found.expires_at > row.created_at:
        if found.fingerprint != row.fingerprint:
            raise IdempotencyKeyReused
        if found.status or await _is_alive(tx, found, row.created_at):
            return found
    await tx.take(table, org_id=row.org_id, id=row.id)
    return None


async def _is_alive(tx: Transaction, found: IdempotentResponse, at: datetime) -> bool:
    """Has the row's effect happened? Raises ``IdempotencyInProgress`` while it may still.

    A row with a subject was written with its effect: at once, or as an operation that tells how it stands.
    """
    if found.subject is None:
        if found.created_at + ABANDONED > at:
            raise IdempotencyInProgress(retry_after=1)
        return False
    if found.operation_id is None:
        return True
    operation = await tx.find(tables.operations, org_id=found.subject, id=found.operation_id)
    if operation is not None and operation.state is OperationState.RUNNING:
        raise IdempotencyInProgress(retry_after=1)
    return operation is not None and operation.state is OperationState.SUCCEEDED


async def once(
    tx: Transaction,
    table: Table[IdempotentResponse],
    row: IdempotentResponse,
    answer: Callable[[T], Answer],
    work: Callable[Concatenate[Transaction, P], Awaitable[T]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> tuple[IdempotentResponse, bool]:
    """Do the work and remember its answer in ``table``, in one transaction; returns the row and whether it is a replay.

    ``table`` is where the work's own transaction can write: of the directory, or of the organization's space.
    """
    if found := await held(tx, row, table):
        return found, True
    done = completed(row, answer(await work(tx, *args, **kwargs)))
    await tx.add(table, done)
    return done, False


async def begin(tx: Transaction, row: IdempotentResponse) -> IdempotentResponse | None:
    """For work that is not one transaction: the remembered answer, or None after writing that it is being worked on."""
    if found := await held(tx, row):
        return found
    await tx.add(tables.idempotent_responses, row)
    return None


async def complete(tx: Transaction, row: IdempotentResponse, answer: Answer) -> None:
    """Remember the answer of work that is done. The row may have expired meanwhile."""
    if await tx.find(tables.idempotent_responses, org_id=row.org_id, id=row.id) is None:
        return
    found = await tx.lock(tables.idempotent_responses, row.org_id, row.id)
    if not found.status:
        await tx.replace(tables.idempotent_responses, completed(found, answer))


async def keep(tx: Transaction, row: IdempotentResponse, answer: Answer) -> None:
    """Remember the answer of work that was done without ``begin``; one that is remembered already stays."""
    if await tx.find(tables.idempotent_responses, org_id=row.org_id, id=row.id) is None:
        await tx.add(tables.idempotent_responses, completed(row, answer))


async def abandon(tx: Transaction, row: IdempotentResponse) -> None:
    """The work failed and changed nothing: the key may be used again."""
    await tx.take(tables.idempotent_responses, org_id=row.org_id, id=row.id)


async def forget_expired(
    tx: Transaction, at: datetime, limit: int, table: Table[IdempotentResponse] = tables.idempotent_responses
) -> int:
    """Remove up to ``limit`` rows past their time; returns how many. Others may be at it at the same time."""
    rows = await tx.page(table, order=("expires_at",), limit=limit)
    expired = [row for row in rows if row.expires_at <= at]
    for row in expired:
        await tx.take(table, org_id=row.org_id, id=row.id)
    return len(expired)


async def any_expired(tx: Transaction, at: datetime, table: Table[IdempotentResponse]) -> bool:
    """Is there a row past its time?"""
    rows = await tx.page(table, order=("expires_at",), limit=1)
    return bool(rows) and rows[0].expires_at <= at


def completed(row: IdempotentResponse, answer: Answer) -> IdempotentResponse:
    return replace(row, status=answer.status, body=answer.body, headers=dict(answer.headers))
