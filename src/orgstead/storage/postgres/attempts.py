"""Doing something in a transaction, and doing it again where that may help: until the deadline, then an error of ours.

An attempt either commits, which it says itself, or leaves nothing. What fails before COMMIT for a reason that may pass
(a deadlock, a lock held too long, a connection lost, a server that restarts) is tried again; what fails during COMMIT
never is, because it may have been done.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from orgstead.errors import OrgsteadError, OutcomeUnknown, StorageError, StorageReadOnly
from orgstead.storage.postgres import failures
from orgstead.storage.postgres.connections import Connection, Pool
from orgstead.storage.postgres.failures import Passing
from orgstead.storage.unit import raise_if_other

T = TypeVar("T")

WRITING = "ISOLATION LEVEL READ COMMITTED"
"""Who meets a row that another holds waits for it and goes on, where a snapshot would fail and begin again. What a unit
relies on it writes or locks (docs/decisions/0012)."""

READING = "ISOLATION LEVEL REPEATABLE READ READ ONLY"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5


async def transact(pool: Pool, begin: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """One attempt: ``work`` in a transaction that ``begin`` opens. What it does not ``commit`` is rolled back.

    Raises ``Passing`` for what may be tried again.
    """
    connection = await _acquired(pool)
    clean = spoilt = False
    try:
        await connection.execute(begin)
        result = await work(connection)
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        clean = True
        return result
    except (OrgsteadError, Passing) as error:
        spoilt = failures.spoils_connection(error.__cause__)
        raise
    except Exception as error:
        if failures.is_passing(error) or connection.is_closed():
            raise Passing(error) from error
        spoilt = failures.spoils_connection(error)
        raise
    finally:
        pool.release(connection, clean=clean, spoilt=spoilt)


async def outside(pool: Pool, ask: Callable[[Connection], Awaitable[T]]) -> T:
    """One attempt at a question outside of any transaction of ours. Raises ``Passing`` for what may be tried again."""
    connection = await _acquired(pool)
    clean = spoilt = False
    try:
        answer = await ask(connection)
        clean = True
        return answer
    except OrgsteadError as error:
        spoilt = isinstance(error, StorageReadOnly)
        raise
    except Exception as error:
        if failures.is_passing(error) or connection.is_closed():
            raise Passing(error) from error
        raise
    finally:
        pool.release(connection, clean=clean, spoilt=spoilt)


async def _acquired(pool: Pool) -> Connection:
    try:
        return await pool.acquire()
    except Exception as error:
        if failures.is_passing(error):
            raise Passing(error) from error
        raise


async def commit(connection: Connection) -> None:
    """COMMIT. Raises ``OutcomeUnknown`` where the connection ended before the server said what became of it."""
    try:
        status = await connection.execute("COMMIT")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if failures.leaves_outcome_open(error, closed=connection.is_closed()):
            raise OutcomeUnknown from error
        raise
    if status != "COMMIT":  # an earlier error that nobody noticed
        raise StorageError


async def repeated(attempt: Callable[[], Awaitable[T]], seconds: float) -> T:
    """The result of ``attempt``, made again while it raises ``Passing`` and ``seconds`` are not over.

    Pauses grow and vary, so that those who got in each other's way do not do so again. Errors of the driver leave as
    errors of ours.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except Passing as error:
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311  # spreads attempts, guards nothing
            if time.monotonic() + wait >= deadline:
                raise failures.translated(error.cause) from error.cause
        except Exception as error:
            raise_if_other(failures.translated(error), error)
            raise
        await asyncio.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE)
