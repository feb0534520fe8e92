"""The reads of one turn of an event loop share a transaction, as long as nothing is committed meanwhile.

Beginning and ending one costs a point read as much as the reading, most of it for locks on the file. It is never kept
beyond the turn, and where the log has become long not beyond the read: a log that somebody reads cannot begin anew.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from orgstead.model import Access
from orgstead.storage.sqlite import failures
from orgstead.storage.sqlite.access import access
from orgstead.storage.sqlite.connections import Readers
from orgstead.storage.sqlite.drive import ForeignAwait
from orgstead.storage.sqlite.memory import Key, Memory
from orgstead.storage.sqlite.writer import Writer

T = TypeVar("T")
P = ParamSpec("P")


class _Turn:
    """One thread's reading connection. ``commits`` is the number of commits that its transaction has surely seen.

    The lock is for the end: whoever closes the storage may do it in another thread, and a connection that is closed
    while it is used takes the process with it.
    """

    __slots__ = ("begun", "closed", "commits", "connection", "ending", "lock", "looked", "loop", "memory", "reading")

    def __init__(self, connection: sqlite3.Connection, memory: Memory | None) -> None:
        self.connection = connection
        self.memory = memory
        self.looked = False
        self.lock = threading.Lock()
        self.begun = self.ending = self.reading = self.closed = False
        self.commits = 0
        self.loop: Callable[[], AbstractEventLoop | None] = _no_loop

    def begin(self, loop: AbstractEventLoop, commits: int) -> None:
        """A transaction that ends with the turn, at the latest."""
        self.commit()
        if self.loop() is not loop:  # one that was there before may have ended in the middle of its turn
            self.ending = False
            self.loop = weakref.ref(loop)
            weakref.finalize(loop, self.leave).atexit = False
        if not self.ending:
            loop.call_soon(self.end)
            self.ending = True
        self.connection.execute("BEGIN")
        self.begun = True
        self.looked = False
        self.commits = commits  # taken before the transaction sees anything: it may have seen more, never less

    def access(self, key: Key) -> Access:
        """The hot read in the transaction that has begun."""
        if self.memory is None:
            return access(self.connection, *key)
        if not self.looked:
            self.memory.look(self.connection, self.commits)
            self.looked = True
        return self.memory.access(self.connection, key)

    def commit(self) -> None:
        """Let go of the file; by whoever holds the lock."""
        if self.begun:
            self.begun = False
            with suppress(sqlite3.Error):  # what failed may have ended it
                self.connection.execute("COMMIT")

    def end(self) -> None:
        """When the turn is over."""
        with self.lock:
            self.ending = False
            self.commit()

    def leave(self) -> None:
        """When the loop is gone: in whatever thread notices, which may be just here, holding the lock."""
        if self.lock.acquire(blocking=False):
            try:
                if self.loop() is None:
                    self.commit()
            finally:
                self.lock.release()


def _no_loop() -> None:
    return None


class Turns:
    """Reads on the calling thread's connection; each sees what was committed before it began.

    With a ``writer`` all commits are this process's own, so that looking at their number is enough to know that an open
    transaction still shows the latest. Without one each read has a transaction of its own.
    """

    def __init__(self, readers: Readers, writer: Writer | None) -> None:
        self._readers = readers
        self._writer = writer
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: list[_Turn] = []
        self._closed = False

    def read(self, job: Callable[Concatenate[sqlite3.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``job(connection, …)`` on one snapshot. Raises ``ForeignAwait`` for a job that reads by way of this again."""
        try:
            turn: _Turn = self._local.turn
        except AttributeError:
            turn = self._local.turn = self._new()
        if turn.reading:
            raise ForeignAwait
        writer = self._writer
        with turn.lock:
            if turn.closed:
                raise failures.closed()
            commits = writer.attempts if writer else 0
            loop = turn.loop()
            if not (turn.begun and commits == turn.commits and loop is not None and loop.is_running()):
                turn.begin(get_running_loop(), commits)
            turn.reading = shared = True
            try:
                return job(turn.connection, *args, **kwargs)
            except BaseException:
                shared = False
                raise
            finally:
                turn.reading = False
                if not shared or writer is None or writer.log_is_long:
                    turn.commit()

    def access(self, org_id: str, user_id: str, credential_id: str) -> Access:
        """``Storage.access`` as of the last commit."""
        return self.read(self._access, (org_id, user_id, credential_id))

    def _access(self, _: sqlite3.Connection, key: Key) -> Access:
        turn: _Turn = self._local.turn
        return turn.access(key)

    def _new(self) -> _Turn:
        with self._lock:
            if self._closed:
                raise failures.closed()
            writer = self._writer
            turn = _Turn(self._readers.connection(), Memory(writer.changes) if writer else None)
            self._all.append(turn)
        return turn

    def close(self) -> None:
        """Refuse further reads; when this returns, nobody uses a connection. May be repeated."""
        with self._lock:
            self._closed = True
        for turn in self._all:
            with turn.lock:
                turn.commit()
                turn.closed = True
