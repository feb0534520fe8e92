"""The Idempotency-Key header: every POST that changes something answers through one of the functions here.

``once`` is for an effect of one transaction in the directory, ``in_space`` for one in the organization's space,
``journalled`` for one of several transactions (creating, renaming). Where the answer carries a secret, it is stored
encrypted: ``once_sealed`` is ``once``, and ``sealed`` is for all else. Without the header they only do the work. What a
key was answered before comes first; only then the ``refusal`` that a guard has left to them is raised. A POST that only
reads takes the header and needs it not: sent again, it reads again.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from orgstead import idempotency, placements
from orgstead.api.caller import Caller, app_of, values_of
from orgstead.api.responses import Empty, Json, encoded
from orgstead.app import App
from orgstead.errors import (
    AlreadyExists,
    Conflict,
    IdempotencyInProgress,
    InvalidIdempotencyKey,
    OrgsteadError,
)
from orgstead.failpoints import failpoint
from orgstead.idempotency import Answer
from orgstead.model import IdempotentResponse
from orgstead.spaces import Work
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Space, SystemScope, Transaction

T = TypeVar("T")
P = ParamSpec("P")

SCOPE = SystemScope("idempotency")
_KEYS = (tables.idempotent_responses.key_constraint, tables.space_responses.key_constraint)


class Who(msgspec.Struct, frozen=True):
    """Whose key it is: keys of different principals and organizations never meet.

    ``refusal`` is why they may do nothing new, if that is so.
    """

    org_id: str
    principal: str
    refusal: OrgsteadError | None = None

    def refuse(self) -> None:
        """Raise the ``refusal``, now that there is nothing to repeat."""
        if self.refusal is not None:
            raise self.refusal


ANONYMOUS = Who("", "anonymous")


def who(caller: Caller | None) -> Who:
    return Who(caller.org_id, caller.principal.id, caller.refusal) if caller else ANONYMOUS


async def once(
    caller: Caller,
    answer: Callable[[T], Answer],
    work: Callable[Concatenate[Transaction, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """Run ``work`` in the caller's organization and answer with what ``answer`` makes of its result."""
    return await _once(False, caller, answer, work, *args, **kwargs)


async def once_sealed(
    caller: Caller,
    answer: Callable[[T], Answer],
    work: Callable[Concatenate[Transaction, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """``once`` for an answer that carries a secret."""
    return await _once(True, caller, answer, work, *args, **kwargs)


async def _once(
    secret: bool,
    caller: Caller,
    answer: Callable[[T], Answer],
    work: Callable[Concatenate[Transaction, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    app, asking = caller.app, who(caller)
    row = await _row(caller.request, asking, secret=secret)
    if row is None:
        return _shown(answer(await caller.run(work, *args, **kwargs)))
    with _in_flight(caller.request, row):
        done, replayed = await app.storage.run(
            OrgScope(caller.org_id),
            idempotency.once,
            tables.idempotent_responses,
            row,
            lambda result: _to_store(app, row, answer(result)),
            _permitted(asking, work),
            *args,
            **kwargs,
        )
    return _shown(_stored(app, done), replayed=replayed)


def as_kept(answer: Answer) -> Answer:
    """The ``finish`` of answers that are kept as a whole."""
    return answer


async def in_space(
    caller: Caller,
    answer: Callable[[T], Answer],
    finish: Callable[[Answer], Answer],
    work: Work[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """``once`` for work in the organization's space: the answer is kept there, in the transaction of the effect.

    Wherever the space is, also in a cell that is not the directory's server: that is why it has a table of answers of
    its own, which moves with it. ``finish`` completes an answer with what the request itself says, so that it need not
    be kept a second time, beyond every quota.
    """
    asking = who(caller)
    row = await _row(caller.request, asking, secret=False)
    if row is None:
        return _shown(finish(answer(await caller.run_in_space(work, *args, **kwargs))))

    async def kept(tx: Transaction, space: Space) -> tuple[IdempotentResponse, bool]:
        # Held before anything is looked at: a stale placement is answered by no old answer, either.
        await placements.hold(tx, space)
        return await idempotency.once(
            tx, tables.space_responses, row, answer, _permitted(asking, work), space, *args, **kwargs
        )

    with _in_flight(caller.request, row):
        done, replayed = await caller.run_in_space(kept)
    return _shown(finish(_stored(caller.app, done)), replayed=replayed)


def _permitted(
    who: Who, work: Callable[Concatenate[Transaction, P], Awaitable[T]]
) -> Callable[Concatenate[Transaction, P], Awaitable[T]]:
    async def permitted(tx: Transaction, /, *args: P.args, **kwargs: P.kwargs) -> T:
        who.refuse()
        return await work(tx, *args, **kwargs)

    return permitted


async def journalled(
    request: Request,
    who: Who,
    work: Callable[[IdempotentResponse | None], Awaitable[Answer]],
    again: Callable[[str], Awaitable[Answer]],
) -> Response:
    """Do ``work``, which writes the row that it is given in its first transaction.

    ``again`` answers for a request whose effect is there but whose answer was lost: it shows the organization whose
    id it is given as it is now.
    """
    app = app_of(request)
    row = await _row(request, who, secret=False)
    if row is None:
        return _shown(await work(None))
    with _in_flight(request, row):
        if found := await app.storage.run(SCOPE, idempotency.held, row):
            return await _replay(app, found, again)
        who.refuse()
        try:
            answer = await work(row)
        except Conflict:
            # What is in the way may be the effect of this very request, sent before: then its answer is due.
            if found := await app.storage.run(SCOPE, idempotency.held, row):
                return await _replay(app, found, again)
            raise
        await failpoint("idempotency.after_effect")
        await app.storage.run(SCOPE, idempotency.complete, row, answer)
    return _shown(answer)


async def _replay(app: App, found: IdempotentResponse, again: Callable[[str], Awaitable[Answer]]) -> Response:
    if found.status or found.subject is None:
        return _shown(_stored(app, found), replayed=True)
    answer = await again(found.subject)
    await app.storage.run(SCOPE, idempotency.complete, found, answer)
    return _shown(answer, replayed=True)


async def sealed(
    request: Request, who: Who, work: Callable[[], Awaitable[Answer]], *, repeatable: bool = False
) -> Response:
    """Do ``work``, whose answer carries a secret. What fails changes nothing, and leaves the key free.

    ``repeatable`` work gives the same when it is done again at once, and must not be kept waiting for a process that
    died with it: nothing is written before it.
    """
    app = app_of(request)
    row = await _row(request, who, secret=True)
    if row is None:
        return _shown(await work())
    with _in_flight(request, row):
        if found := await app.storage.run(SCOPE, idempotency.held if repeatable else idempotency.begin, row):
            return _shown(_stored(app, found), replayed=True)
        try:
            who.refuse()
            answer = await work()
        except OrgsteadError:
            if not repeatable:
                await app.storage.run(SCOPE, idempotency.abandon, row)
            raise
        await failpoint("idempotency.after_effect")
        keep = idempotency.keep if repeatable else idempotency.complete
        await app.storage.run(SCOPE, keep, row, _to_store(app, row, answer))
    return _shown(answer)


async def _row(request: Request, who: Who, *, secret: bool) -> IdempotentResponse | None:
    """The row of this request, or None without the header. Raises ``InvalidIdempotencyKey``."""
    values = values_of(request, b"idempotency-key")
    if not values:
        return None
    app = app_of(request)
    # Keyed, because a body may hold a password, and a plain hash of one could be searched for.
    digest = hmac.new(app.keys.derived("idempotency"), b"request", "sha256")
    for part in (request.scope["path"].encode(), request.scope["query_string"], await request.body()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return idempotency.request_row(
        org_id=who.org_id,
        principal=who.principal,
        route=f"{request.scope['method']} {request.scope['route'].path}",
        key=values[0].decode("latin-1"),
        request=digest.digest(),
        secret=secret,
        at=app.clock(),
    )


@contextmanager
def _in_flight(request: Request, row: IdempotentResponse) -> Iterator[None]:
    """Let one request of a key be worked on at a time. Within a process that is known without asking the database.

    Raises ``IdempotencyInProgress`` for every other one.
    """
    working: set[tuple[str, str]] = request.scope["app"].in_flight
    key = (row.org_id, row.id)
    if key in working:
        raise IdempotencyInProgress(retry_after=1)
    working.add(key)
    try:
        yield
    except AlreadyExists as error:
        if error.constraint in _KEYS:
            raise IdempotencyInProgress(retry_after=1) from None
        raise
    finally:
        working.discard(key)


def _to_store(app: App, row: IdempotentResponse, answer: Answer) -> Answer:
    """The answer as its row keeps it: encrypted where it is a secret."""
    return replace(answer, body=app.keys.encrypt(answer.body, row.id)) if row.secret else answer


def _stored(app: App, row: IdempotentResponse) -> Answer:
    """The answer that a row keeps. Raises ``InvalidIdempotencyKey`` where a secret one cannot be read any more."""
    body = app.keys.decrypt(row.body, row.id) if row.secret else row.body
    if body is None:
        raise InvalidIdempotencyKey("What was answered to this key can no longer be read; use a new key.")
    return Answer(row.status, body, row.headers)


def _shown(answer: Answer, *, replayed: bool = False) -> Response:
    headers = encoded(answer.headers)
    if replayed:
        headers.append((b"idempotent-replayed", b"true"))
    if not answer.body:
        return Empty(answer.status, headers)
    return Json(answer.body.encode(), answer.status, headers)
