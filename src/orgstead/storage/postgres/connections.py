"""The connections of one event loop: made when needed, used by one unit at a time, never handed on unclean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg

from orgstead.storage.gathering import Gathering
from orgstead.storage.postgres import failures
from orgstead.storage.postgres.location import Location

Connection = asyncpg.Connection
Connect = Callable[[], Awaitable[Connection]]

IDLE_IN_TRANSACTION_MS = 60_000
"""Work awaits nothing but its verbs, so a transaction that idles for a minute is one whose process hangs."""

_MENDING_SECONDS = 2.0
_CLOSING_SECONDS = 5.0
_GRACE_SECONDS = 5.0
"""How much longer than the server's own limit the driver waits: then nobody is at the other end any more."""

_MAX_STATEMENT_BYTES = 64 * 1024

_WATCHING = {"client_connection_check_interval": "1000"}
"""A server process looks every second whether its client is still there.

Otherwise one whose client was killed, or whose cancel request came before its statement and was lost, would work or
wait on until the statement's own limit.
"""


def settings(location: Location) -> dict[str, str]:
    """The settings of every connection. A pooler's connection gets them with each transaction instead."""
    return {
        "search_path": "pg_catalog",  # every name of ours is written with its schema
        "jit": "off",
        "lock_timeout": str(location.deadline_ms),
        "statement_timeout": str(location.statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
    }


async def connect(location: Location) -> Connection:
    """A new connection. Raises what the driver raises."""
    if location.pooler:
        return await _connect(location, {})
    try:
        return await _connect(location, settings(location) | _WATCHING)
    except asyncpg.InvalidParameterValueError:  # a server on Windows cannot look
        return await _connect(location, settings(location))


async def _connect(location: Location, settings: dict[str, str]) -> Connection:
    return await asyncpg.connect(
        location.dsn,
        timeout=location.deadline,
        command_timeout=location.statement_timeout_ms / 1000 + _GRACE_SECONDS,
        statement_cache_size=location.statements,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=_MAX_STATEMENT_BYTES,
        server_settings={"application_name": "orgstead", **settings},
    )


async def single(connection: Connection, text: str, *values: Any) -> tuple[Any, ...]:
    """The one row of a statement that always gives one."""
    (row,) = await connection.fetch(text, *values)
    return tuple(row)


class Pool:
    """Up to ``size`` connections, the one used last first. Bound to the loop that it is used in.

    A connection comes back either clean, or it is mended first: whatever was under way on it is cancelled and rolled
    back, and where that does not work the connection is closed. Nobody ever gets one with an open transaction, and the
    settings of an organization end with theirs.
    """

    def __init__(self, connect: Connect, size: int, wait: float) -> None:
        self._connect = connect
        self._wait = wait
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(size)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.open = 0

    async def acquire(self) -> Connection:
        """A connection for the caller alone, until ``release``. Raises ``Overloaded``, or what ``connect`` raises."""
        if self._places.locked():
            try:
                async with asyncio.timeout(self._wait):
                    await self._places.acquire()
            except TimeoutError:
                raise failures.no_connection() from None
        else:
            await self._places.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self.open -= 1
            connection = await self._connect()
        except BaseException:
            self._places.release()
            raise
        self.open += 1
        return connection

    def release(self, connection: Connection, *, clean: bool, spoilt: bool = False) -> None:
        """Give back what ``acquire`` gave. ``clean`` says that its transaction has ended as it should."""
        if spoilt or connection.is_closed():
            self._drop(connection)
        elif clean and not connection.is_in_transaction() and not self._closed:
            self._idle.append(connection)
            self._places.release()
        else:
            task = asyncio.get_running_loop().create_task(self._mend(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _mend(self, connection: Connection) -> None:
        """Roll back what is open on the connection; then it is used again."""
        mended = False
        try:
            async with asyncio.timeout(_MENDING_SECONDS):
                await connection.execute("ROLLBACK")
            mended = not connection.is_in_transaction()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            pass
        finally:
            if mended and not connection.is_closed() and not self._closed:
                self._idle.append(connection)
                self._places.release()
            else:
                self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        connection.terminate()
        self.open -= 1
        self._places.release()

    async def close(self) -> None:
        """Close what is idle, once all that was released is mended. May be repeated."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        while self._idle:
            connection = self._idle.pop()
            self.open -= 1
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=_CLOSING_SECONDS)


class Pools:
    """What one event loop has: connections for units, for what may take long, and for the owner.

    ``callers`` gathers those whom ``ask`` is asked for, on the connections for units. ``close`` waits for those who are
    at work: between ``begin`` and ``finish``.
    """

    def __init__(
        self,
        location: Location,
        owner: Location | None,
        ask: Callable[[Pool, Sequence[Any]], Awaitable[Sequence[Any]]],
        *,
        aside: int,
    ) -> None:
        self.units = Pool(lambda: connect(location), location.pool, location.deadline)
        self.aside = Pool(lambda: connect(location), aside, location.deadline)
        self.owner = Pool(lambda: connect(owner), 2, owner.deadline) if owner else None
        self.callers: Gathering[Any, Any] = Gathering(partial(ask, self.units), location.deadline)
        self._working = 0
        self._rest = asyncio.Event()
        self._rest.set()

    @property
    def all(self) -> tuple[Pool, ...]:
        return (self.units, self.aside, *([self.owner] if self.owner else []))

    def begin(self) -> None:
        self._working += 1
        self._rest.clear()

    def finish(self) -> None:
        self._working -= 1
        if not self._working:
            self._rest.set()

    async def close(self) -> None:
        await self._rest.wait()
        for pool in self.all:
            await pool.close()
