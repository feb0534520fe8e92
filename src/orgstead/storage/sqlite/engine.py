"""``Storage`` on one SQLite file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from asyncio import get_running_loop
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from orgstead.errors import Overloaded, StorageBusy, StorageReadOnly
from orgstead.findings import Finding
from orgstead.kit import Clock
from orgstead.model import Access
from orgstead.storage import migrations
from orgstead.storage.port import Digest, FoundSpace, Scope, Space, SystemScope, Table, Transaction
from orgstead.storage.sqlite import connections, failures, location, maintenance, schema, spaces
from orgstead.storage.sqlite.drive import drive
from orgstead.storage.sqlite.lock import WriterLock
from orgstead.storage.sqlite.transaction import SqliteTransaction
from orgstead.storage.sqlite.turns import Turns
from orgstead.storage.sqlite.writer import Writer

T = TypeVar("T")
P = ParamSpec("P")

_SCANNERS = 2

_PROBE_SECONDS = 0.5
"""How long it is waited for whether a write can begin. What can only be read says so at once."""

_log = logging.getLogger(__name__)


class SqliteStorage:
    """The promises of ``port.Storage`` on one file.

    ``run`` hands work to the one writer thread. ``read`` and ``access`` answer at once on the calling thread, because a
    point read takes less time than asking another thread for it. ``scan``, ``digest`` and ``backup`` have threads of
    their own. Several event loops may use it at once.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        readers: connections.Readers,
        writer: Writer | None,
        lock: WriterLock | None,
    ) -> None:
        self.url = url
        self._clock = clock
        self._readers = readers
        self._turns = Turns(readers, writer)
        self._writer = writer
        self._lock = lock
        self._scanners = ThreadPoolExecutor(_SCANNERS, thread_name_prefix="orgstead-scan")
        self._reasons: Counter[str] = Counter()
        self._closed = False

    @classmethod
    def open(cls, url: str, *, writable: bool, make: bool = True, clock: Clock) -> SqliteStorage:
        """See ``open_storage``."""
        named = location.parse(url)
        place = replace(named, path=named.path.resolve())  # it stays the same file when the process changes its folder
        if not (writable and make):
            connections.require(place)
        if not writable:
            readers = connections.Readers(place, shared=False)
            readers.connection()  # whatever is wrong with the file is said now
            return cls(named.url, clock, readers, None, None)
        lock = connections.claim(place)
        try:
            connection = connections.open_writer(place)
        except BaseException:
            lock.release()
            raise
        return cls(named.url, clock, connections.Readers(place, shared=True), Writer(connection), lock)

    # --- schema and life --------------------------------------------------------------------------------------------

    async def migrate(self) -> int:
        return await self._write(lambda connection: schema.migrate(connection, self._clock))

    async def pending(self) -> list[tuple[int, str]]:
        return migrations.told(self._now(schema.pending))

    async def check(self) -> None:
        if self._writer is not None:
            self._writer.presence.check()
        self._now(schema.check)
        if self._writer is not None:
            await self._require_writes(self._writer)

    async def _require_writes(self, writer: Writer) -> None:
        """Begin a transaction where every write does, and end it with nothing done. Raises ``StorageReadOnly``."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                mounted = await writer.submit(lambda _: writer.presence.is_writable(), only_rows=True, is_probe=True)
        except (TimeoutError, Overloaded, StorageBusy):
            return  # there is much to write, or somebody else is writing just now: it can be written
        except StorageReadOnly:
            mounted = False
        if not mounted:
            raise failures.not_writable()

    async def close(self) -> None:
        """Finish what was accepted, fold the log into the file and let go of the lock. May be repeated."""
        loop = get_running_loop()
        await loop.run_in_executor(None, self._close)

    def _close(self) -> None:
        self._closed = True
        self._scanners.shutdown(wait=True)
        if self._writer is not None:
            self._writer.stop()
        self._turns.close()
        self._readers.close()
        if self._writer is not None:
            with suppress(sqlite3.Error):  # the log is as durable as the file; the next start folds it in
                self._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._writer.connection.close()
        if self._lock is not None:
            self._lock.release()

    # --- work -------------------------------------------------------------------------------------------------------

    async def run(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)
        changes = self._writer.changes if self._writer else None

        def job(connection: sqlite3.Connection) -> T:
            return drive(SqliteTransaction(connection, scope, changes), work, args, kwargs)

        return await self._write(job, only_rows=True)

    async def read(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)
        return self._now(_read, scope, work, args, kwargs)

    async def scan(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)
        return await self._aside(_on_snapshot, _read, scope, work, args, kwargs)

    async def access(self, org_id: str, user_id: str, credential_id: str) -> Access:
        return self._at_once(self._turns.access, org_id, user_id, credential_id)

    # --- spaces -----------------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, *, slots: int = 1) -> None:
        await self._write(lambda connection: spaces.create(connection, space, slots))

    async def create_spaces(self, spaces_: Sequence[Space]) -> None:
        def job(connection: sqlite3.Connection) -> None:
            for space in spaces_:
                spaces.create(connection, space, 1)

        await self._write(job)

    async def rename_space(self, space: Space, name: str) -> None:
        await self._write(lambda connection: spaces.rename(connection, space, name))

    async def close_space(self, space: Space) -> None:
        await self._write(lambda connection: spaces.close(connection, space))

    async def open_space(self, space: Space) -> None:
        await self._write(lambda connection: spaces.open_again(connection, space))

    async def drop_space(self, space: Space, *, batch: int = 1000) -> dict[str, int] | None:
        removed = await self._write(lambda connection: spaces.drop(connection, space, batch))
        if removed is None:
            await self._write(maintenance.empty_log, alone=True)  # the log, too, must not keep what was purged
        return removed

    async def spaces(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, FoundSpace]]:
        return await self._aside(spaces.found, after, limit)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        self._noted(scope)
        return await self._aside(maintenance.digest, scope, table)

    async def stats(self) -> dict[str, int | float | str]:
        facts = await self._aside(maintenance.stats)
        if self._writer is not None:
            facts["commits"] = self._writer.commits
            facts["units"] = self._writer.units
        facts.update({f"system_scope: {reason}": count for reason, count in sorted(self._reasons.items())})
        return facts

    async def examine(self, *, processes: int) -> list[Finding]:
        return self._now(maintenance.examine)

    async def backup(self, target: str) -> None:
        await self._aside(maintenance.backup, target)

    # --- where things run -------------------------------------------------------------------------------------------

    async def _write(
        self, job: Callable[[sqlite3.Connection], T], *, alone: bool = False, only_rows: bool = False
    ) -> T:
        if self._writer is None:
            raise StorageReadOnly("The database was opened for reading only; nothing was changed.")
        return await self._writer.submit(job, alone=alone, only_rows=only_rows)

    def _now(self, job: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``job`` on the calling thread, on one snapshot of what is committed now."""
        return self._at_once(self._turns.read, job, *args, **kwargs)

    def _at_once(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise failures.closed()
        try:
            return read(*args, **kwargs)
        except sqlite3.Error as error:
            raise failures.translated(error) from error

    async def _aside(
        self, job: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``job`` on a reading connection of a thread that may take long."""
        if self._closed:
            raise failures.closed()

        def there() -> T:
            try:
                return job(self._readers.connection(), *args, **kwargs)
            except sqlite3.Error as error:
                raise failures.translated(error) from error

        return await get_running_loop().run_in_executor(self._scanners, there)

    def _noted(self, scope: Scope) -> None:
        if isinstance(scope, SystemScope):
            self._reasons[scope.reason] += 1
            _log.debug("system scope: %s", scope.reason)


def _read(
    connection: sqlite3.Connection,
    scope: Scope,
    work: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> T:
    """Run work that only reads, in the transaction that there is."""
    return drive(SqliteTransaction(connection, scope), work, args, kwargs)


def _on_snapshot(
    connection: sqlite3.Connection,
    job: Callable[Concatenate[sqlite3.Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run ``job`` on a snapshot of its own."""
    with connections.snapshot(connection):
        return job(connection, *args, **kwargs)
