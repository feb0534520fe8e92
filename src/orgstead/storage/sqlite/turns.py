"""The reads of one turn of an event loop share a transaction, as long as nothing is committed meanwhile.

Beginning and ending one costs a point read as much as the reading, most of it for locks on the file. It is never kept
beyond the turn: one that stays open keeps the log from beginning anew.
"""

from __future__ import annotations

import sqlite3
import threading
from asyncio import get_running_loop
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from orgstead.storage.sqlite import failures
from orgstead.storage.sqlite.connections import Readers
from orgstead.storage.sqlite.drive import ForeignAwait
from orgstead.storage.sqlite.writer import Writer

T = TypeVar("T")
P = ParamSpec("P")


class _Turn:
    """One thread's reading connection. ``commits`` is the number of commits that its transaction has surely seen.

    The lock is for the end: whoever closes the storage may do it in another thread, and a connection that is closed
    while it is used takes the process with it.
    """

    __slots__ = ("begun", "closed", "commits", "connection", "lock", "reading")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.begun = self.reading = self.closed = False
        self.commits: int | None = None

    def end(self) -> None:
        """When the turn is over."""
        with self.lock:
            self.commit()

    def commit(self) -> None:
        """Let go of the file, holding the lock."""
        if self.begun:
            self.begun = False
            with suppress(sqlite3.Error):  # what failed may have ended it
                self.connection.execute("COMMIT")


class Turns:
    """Reads on the calling thread's connection; each sees what was committed before it began.

    With a ``writer`` all commits are this process's own, so that looking at their number is enough to know that an open
    transaction still shows the latest. Without one each read has a transaction of its own.
    """

    def __init__(self, readers: Readers, writer: Writer | None) -> None:
        self._readers = readers
        self._writer = writer
        self._local = threading.local()
        self._all: list[_Turn] = []

    def read(self, job: Callable[Concatenate[sqlite3.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``job(connection, …)`` on one snapshot. Raises ``ForeignAwait`` for a job that reads by way of this again."""
        try:
            turn: _Turn = self._local.turn
        except AttributeError:
            turn = self._local.turn = _Turn(self._readers.connection())
            self._all.append(turn)
        if turn.reading:
            raise ForeignAwait
        with turn.lock:
            if turn.closed:
                raise failures.closed()
            connection = turn.connection
            commits = self._writer.attempts if self._writer else None
            if not turn.begun:
                get_running_loop().call_soon(turn.end)
                connection.execute("BEGIN")
                turn.begun = True
            elif commits is None or commits != turn.commits:
                connection.execute("COMMIT")
                connection.execute("BEGIN")
            turn.commits = commits  # taken before the transaction sees anything: it may have seen more, never less
            turn.reading = True
            try:
                return job(connection, *args, **kwargs)
            except BaseException:
                turn.commit()
                raise
            finally:
                turn.reading = False

    def close(self) -> None:
        """Refuse further reads; when this returns, nobody uses a connection. May be repeated."""
        for turn in self._all:
            with turn.lock:
                turn.commit()
                turn.closed = True
