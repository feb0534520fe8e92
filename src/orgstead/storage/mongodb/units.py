"""Running a unit of work as one transaction: again after conflicts, within a deadline, with a known outcome.

What the driver's ``with_transaction`` does for up to two minutes is done here under our own deadline, as MongoDB's
manual asks for it (Transactions in Applications, "Core API"): an error labelled ``TransientTransactionError`` means
that nothing happened and the whole unit may run again; one labelled ``UnknownTransactionCommitResult`` means that the
commit may be repeated until its outcome is known.
"""

from __future__ import annotations

import random
from asyncio import CancelledError, Event, Task, create_task, get_running_loop, shield, sleep, wait
from asyncio import timeout_at as until
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pymongo
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from orgstead.errors import OutcomeUnknown
from orgstead.storage.mongodb import failures
from orgstead.storage.mongodb.client import MAJORITY, PRIMARY, SNAPSHOT, Server, patient
from orgstead.storage.mongodb.lines import Lines, Place
from orgstead.storage.unit import raise_if_other

T = TypeVar("T")
Attempt = Callable[[AsyncClientSession], Awaitable[T]]

UNIT_SECONDS = 8.0
"""How long after its beginning a unit may be attempted again, before it is given up with nothing changed.

A unit that gets on is not stopped: each of its commands has its own time (``client.OPERATION_SECONDS``), and a server
ends a transaction after a minute.
"""

COMMIT_SECONDS = 5.0
"""How long a commit whose outcome is not known may be asked about."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
"""Bounds of the pause before the next attempt in seconds: random below a bound that doubles each time."""


class Again(Exception):
    """An attempt left nothing behind and may be made again. ``thing`` is what it ran into, ``__cause__`` the error."""

    def __init__(self, thing: Hashable) -> None:
        super().__init__()
        self.thing = thing


class Units:
    """The transactions of one client. ``close`` waits for those that are at work."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lines = Lines()
        self._working = 0
        self._idle = Event()
        self._idle.set()
        self._tasks: set[Task[Any]] = set()
        self._closed = False

    async def write(self, attempt: Attempt[T]) -> T:
        """The result of ``attempt(session)`` once its transaction is durable.

        Raises what the attempt raises, ``StorageBusy`` or ``StorageError`` when the deadline has passed with nothing
        changed, and ``OutcomeUnknown``.
        """
        with self.at_work():
            return await self._repeated(attempt, transaction=True)

    async def read(self, attempt: Attempt[T]) -> T:
        """The result of ``attempt(session)``, all of whose reads are of one moment."""
        with self.at_work():
            return await self.read_on(attempt)

    async def read_on(self, attempt: Attempt[T]) -> T:
        """``read`` by someone who is ``at_work`` already, and so not refused while all of this is being closed."""
        return await self._repeated(attempt, transaction=not self._server.snapshot_reads)

    async def plainly(self, job: Callable[[], Awaitable[T]], *, seconds: float | None = None) -> T:
        """The result of commands outside of any transaction, each in ``seconds`` or its usual time; errors are ours."""
        try:
            with self.at_work():
                if seconds is None:
                    return await job()
                async with patient(self._server.client, seconds):
                    return await job()
        except PyMongoError as error:
            raise failures.translated(error) from error

    async def close(self) -> None:
        """Begin nothing more, wait for what has begun, and let go of the connections. May be repeated."""
        self._closed = True
        await self._idle.wait()
        while self._tasks:
            await wait(self._tasks)
        await self._server.client.close()

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def _repeated(self, attempt: Attempt[T], *, transaction: bool) -> T:
        deadline = get_running_loop().time() + UNIT_SECONDS
        pause = _FIRST_PAUSE
        async with self._lines.place() as place:
            while True:
                try:
                    return await self._once(attempt, transaction=transaction)
                except Again as lost:
                    await self._wait(place, lost, pause, deadline)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    async def _wait(self, place: Place, lost: Again, pause: float, deadline: float) -> None:
        """Stand in line for what the attempt ran into. Raises the error of the attempt once the deadline has passed."""
        error = lost.__cause__ or lost
        try:
            async with until(deadline - pause):
                if failures.is_contention(error):
                    await place.take(lost.thing)
                await sleep(random.uniform(0, pause))  # noqa: S311  # spreads attempts, protects nothing
        except TimeoutError:
            raise failures.translated(error) from error

    async def _once(self, attempt: Attempt[T], *, transaction: bool) -> T:
        session = self._session(transaction=transaction)
        try:
            if transaction:
                await session.start_transaction(read_concern=SNAPSHOT, write_concern=MAJORITY, read_preference=PRIMARY)
            result = await attempt(session)
        except CancelledError:
            self._in_background(_ended(session))  # the connection is lost, but the server has still to be told
            raise
        except BaseException as error:
            await _ended(session)
            if failures.is_transient(error):
                raise Again(None) from error
            raise_if_other(failures.translated(error), error)
            raise
        # From here on the outcome stands, whether or not anybody still waits for it.
        await shield(self._in_background(_committed(session)))
        return result

    def _session(self, *, transaction: bool) -> AsyncClientSession:
        try:
            return self._server.client.start_session(causal_consistency=False, snapshot=not transaction)
        except PyMongoError as error:
            raise failures.translated(error) from error

    # --- who is at work ---------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Who is inside was accepted: ``close`` waits for them. Raises ``StorageError`` once it was called."""
        if self._closed:
            raise failures.closed()
        self._working += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()

    def _in_background(self, work: Coroutine[Any, Any, T]) -> Task[T]:
        task = create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody did, nobody is left to hear of it


async def _ended(session: AsyncClientSession) -> None:
    """Roll back what is not committed and give the session back."""
    with pymongo.timeout(COMMIT_SECONDS):
        await session.end_session()


async def _committed(session: AsyncClientSession) -> None:
    """Commit, asking again for as long as the outcome is not known. Raises ``Again`` where nothing was committed."""
    deadline = get_running_loop().time() + COMMIT_SECONDS
    pause = _FIRST_PAUSE
    try:
        while not session.options.snapshot:
            try:
                with pymongo.timeout(max(deadline - get_running_loop().time(), _FIRST_PAUSE)):
                    await session.commit_transaction()
                return
            except PyMongoError as error:
                if failures.leaves_outcome_open(error):
                    if get_running_loop().time() + pause > deadline:
                        raise OutcomeUnknown from error
                elif failures.is_transient(error):
                    raise Again(None) from error
                else:
                    raise failures.translated(error) from error
            await sleep(random.uniform(0, pause))  # noqa: S311  # spreads attempts, protects nothing
            pause = min(2 * pause, _LONGEST_PAUSE)
    finally:
        await _ended(session)
