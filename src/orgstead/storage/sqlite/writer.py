"""The one thread that writes: group commit, with each unit of work whole or not at all.

Units wait in a queue. The thread begins a transaction, does one unit after the other for as long as there are any,
each behind a savepoint, and commits once for all of them; only then does any caller hear of success. One durable commit
costs a wait for the disk, whatever is in it, so sixty-four callers are served by a few waits instead of sixty-four.
"""

from __future__ import annotations

import sqlite3
import threading
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from orgstead.errors import OutcomeUnknown, Overloaded
from orgstead.storage.sqlite import failures
from orgstead.storage.sqlite.changes import Changes
from orgstead.storage.sqlite.connections import CHECKPOINT_BYTES, data_version
from orgstead.storage.sqlite.presence import Presence

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]

MAX_BATCH = 256
"""Units in one commit: about ten milliseconds of work, the longest that the first of them waits for the others."""

LONG_LOG = CHECKPOINT_BYTES * 3 // 2
"""Bytes of the log: it is cut to ``CHECKPOINT_BYTES`` whenever it begins anew."""

MAX_QUEUED = 4096
"""Units that may wait: below a second of work. Beyond it callers are told to come back."""


@dataclass(slots=True, eq=False)
class _Unit:
    job: Job
    future: Future[Any]
    loop: AbstractEventLoop
    alone: bool
    """Runs outside of any transaction: checkpoints, for instance, cannot be in one."""
    only_rows: bool
    """Changes rows if anything: where it has changed none, there is nothing to see."""
    is_probe: bool = False
    """Only asks whether a transaction can begin: where none can, those behind it have not had their own time yet."""


class _Outcome(NamedTuple):
    unit: _Unit
    error: BaseException | None
    value: Any


class Writer:
    """Owns the writing connection and its thread. ``submit`` may be called from any event loop."""

    def __init__(self, connection: sqlite3.Connection, *, max_batch: int = MAX_BATCH, max_queued: int = MAX_QUEUED):
        self.connection = connection
        self.commits = 0
        self.units = 0
        self.attempts = 0
        """Commits of any change, and what may have become one: whoever knows this number knows whether anything can
        have changed. While one is under way, ``changes.begun`` is one more."""
        self.changes = Changes()
        """What the units change is noted there, each before anybody can see its commit."""
        self.log_is_long = False
        """The log has grown beyond where it begins anew, because somebody was reading whenever it could have."""
        self.presence = Presence(connection)
        self._foreign = data_version(connection)
        self._rows = 0
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._queue: SimpleQueue[_Unit | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="orgstead-writer", daemon=True)
        self._thread.start()

    async def submit(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        alone: bool = False,
        only_rows: bool = False,
        is_probe: bool = False,
    ) -> T:
        """Have ``job`` done and return its result once it is durable; its exception where it raises.

        A caller that is cancelled takes its job out of the queue; once it has begun, its outcome stands. ``job`` may
        run again when a failure of the disk undid the batch that it was in. Raises ``Overloaded`` when the queue is
        full.
        """
        loop = get_running_loop()
        future: Future[T] = loop.create_future()
        with self._lock:
            if self._closed:
                raise failures.closed()
            if self._queue.qsize() >= self._max_queued:
                raise Overloaded("The database has more writes waiting than it can do in a second.", retry_after=1.0)
            self._queue.put(_Unit(job, future, loop, alone, only_rows, is_probe))
        return await future

    def stop(self) -> None:
        """Accept nothing more, do what was accepted, and wait for the thread to end. May be repeated."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            unit = self._queue.get()
            if unit is None:
                return
            self._serve(deque([unit]))

    def _serve(self, todo: deque[_Unit]) -> None:
        """Do ``todo`` and what else is waiting, in as many transactions as failures make necessary."""
        bound = self._max_batch
        while todo:
            if todo[0].future.cancelled():
                todo.popleft()
            elif todo[0].alone:
                _deliver([self._do(todo.popleft())])
            else:
                try:
                    self._begin()
                except sqlite3.Error as error:
                    self._roll_back()
                    if todo[0].is_probe:
                        _deliver([_Outcome(todo.popleft(), failures.translated(error), None)])
                        continue
                    self._refuse(todo, failures.translated(error))
                    return
                bound = self._transaction(todo, bound)

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._rows = self.connection.total_changes
        foreign = data_version(self.connection)
        if foreign != self._foreign:
            # Another program has written beside the lock: nobody knows what, and this commit tells of it.
            self._foreign = foreign
            self.changes.note(None)
            self._rows = -1

    def _transaction(self, todo: deque[_Unit], bound: int) -> int:
        """Do up to ``bound`` units and commit. What must be done again is put back; returns the next round's bound."""
        outcomes: list[_Outcome] = []
        while len(outcomes) < bound and self._has_next(todo, waiting=bound > 1):
            unit = todo.popleft()
            if unit.future.cancelled():
                continue
            outcome = self._do_guarded(unit) if outcomes else self._do(unit)
            if not self.connection.in_transaction:
                # The engine gave up the whole transaction (a full disk): only this unit is to blame.
                todo.extendleft(reversed([done.unit for done in outcomes]))
                _deliver([outcome])
                return bound
            if not outcomes and outcome.error is not None:
                # It saw committed data only, so its failure is final, and the others begin without its traces.
                self._roll_back()
                _deliver([outcome])
                return bound
            outcomes.append(outcome)
        return self._commit(outcomes, todo, bound)

    def _commit(self, outcomes: list[_Outcome], todo: deque[_Unit], bound: int) -> int:
        if not self.presence.is_kept():
            self._roll_back()
            _deliver([done._replace(error=done.error or failures.gone()) for done in outcomes])
            return bound
        changed = self.connection.total_changes != self._rows or not all(done.unit.only_rows for done in outcomes)
        number = self.attempts + changed
        self.changes.commit(number)
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.attempts = number
            self._roll_back()
            if failures.leaves_outcome_open(error):
                _deliver([done._replace(error=done.error or OutcomeUnknown()) for done in outcomes])
            elif len(outcomes) == 1:
                _deliver([outcomes[0]._replace(error=failures.translated(error))])
            else:
                # Nobody knows whose pages did not fit: each of them gets a transaction of its own.
                todo.extendleft(reversed([done.unit for done in outcomes]))
                return 1
            return bound
        self.attempts = number
        self.log_is_long = self.presence.log_bytes() > LONG_LOG
        self.commits += 1
        self.units += len(outcomes)
        _deliver(outcomes)
        return bound

    def _has_next(self, todo: deque[_Unit], *, waiting: bool) -> bool:
        """True when ``todo`` begins with a unit for this transaction, taken from the queue where it must be."""
        if not todo and waiting and not self._stopping and self._queue.qsize():
            unit = self._queue.get()
            if unit is None:
                self._stopping = True
            else:
                todo.append(unit)
        return bool(todo) and not todo[0].alone

    def _do(self, unit: _Unit) -> _Outcome:
        try:
            return _Outcome(unit, None, unit.job(self.connection))
        except BaseException as error:
            return _Outcome(unit, failures.translated(error), None)

    def _do_guarded(self, unit: _Unit) -> _Outcome:
        """Do a unit so that its failure undoes nothing but itself."""
        try:
            self.connection.execute("SAVEPOINT unit")
            outcome = self._do(unit)
            if self.connection.in_transaction:
                if outcome.error is not None:
                    self.connection.execute("ROLLBACK TO unit")
                self.connection.execute("RELEASE unit")
        except sqlite3.Error as error:
            self._roll_back()
            return _Outcome(unit, failures.translated(error), None)
        return outcome

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def _refuse(self, todo: deque[_Unit], error: BaseException) -> None:
        """Nothing can be begun: tell everyone who waits now, so that nobody waits for the lock once more."""
        while not self._stopping and self._queue.qsize():
            unit = self._queue.get()
            if unit is None:
                self._stopping = True
            else:
                todo.append(unit)
        _deliver([_Outcome(unit, error, None) for unit in todo])
        todo.clear()


def _deliver(outcomes: list[_Outcome]) -> None:
    """Hand each event loop its outcomes in one call."""
    by_loop: dict[AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome.unit.loop, []).append(outcome)
    for loop, of_loop in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody is left to hear of it
            loop.call_soon_threadsafe(_settle, of_loop)


def _settle(outcomes: list[_Outcome]) -> None:
    for unit, error, value in outcomes:
        if unit.future.done():
            continue
        if error is None:
            unit.future.set_result(value)
        else:
            unit.future.set_exception(error)
