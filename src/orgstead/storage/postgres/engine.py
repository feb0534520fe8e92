"""``Storage`` on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import logging
from asyncio import AbstractEventLoop, get_running_loop
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from orgstead.errors import OrgsteadError, OutcomeUnknown, StorageReadOnly, TransactionEnded
from orgstead.findings import Finding
from orgstead.kit import Clock
from orgstead.model import Access, PlacementKind
from orgstead.storage import migrations
from orgstead.storage.gathering import Caller
from orgstead.storage.port import Digest, FoundSpace, Scope, Space, SystemScope, Table, Transaction
from orgstead.storage.postgres import (
    access,
    connections,
    failures,
    location,
    maintenance,
    policies,
    schema,
    selfcheck,
    spaces,
    spaces_found,
)
from orgstead.storage.postgres.access import Found
from orgstead.storage.postgres.attempts import READING, WRITING, commit, outside, repeated, transact
from orgstead.storage.postgres.connections import Connection, Pool, Pools
from orgstead.storage.postgres.examine import Owner, examine, owner_of
from orgstead.storage.postgres.failures import Passing
from orgstead.storage.postgres.location import Location
from orgstead.storage.postgres.transaction import PostgresTransaction

T = TypeVar("T")
P = ParamSpec("P")

_ASIDE = 2
"""Connections for work that reads a lot: it never keeps point reads waiting."""

_LONG = {"statement_timeout": str(15 * 60 * 1000)}
"""What reads or changes very much may take a quarter of an hour for one statement."""

_DATABASE_URL, _MIGRATION_URL = "ORGSTEAD_DATABASE_URL", "ORGSTEAD_MIGRATION_URL"

_log = logging.getLogger(__name__)


class PostgresStorage:
    """The promises of ``port.Storage`` on a database server.

    Connections are made when they are needed and belong to the event loop that they are used in; several loops may use
    the storage at once. The application's role only reads and writes rows; what changes the schema, dedicated spaces
    included, is done by the database's owner where the service has its URL.
    """

    def __init__(self, place: Location, owner: Location | None, clock: Clock, *, writable: bool) -> None:
        self.url = place.url
        self._place = place
        self._owner = owner
        self._clock = clock
        self._writable = writable
        self._pools: WeakKeyDictionary[AbstractEventLoop, Pools] = WeakKeyDictionary()
        self._also = connections.settings(place) if place.pooler else {}
        self._reasons: Counter[str] = Counter()
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, migration_url: str | None = None, writable: bool, clock: Clock) -> PostgresStorage:
        """See ``open_storage``. Nothing is connected to yet."""
        place = location.parse(url)
        location.require_files(place, _DATABASE_URL)
        owner = location.parse(migration_url) if migration_url else None
        if owner:
            location.require_files(owner, _MIGRATION_URL)
        return cls(place, owner, clock, writable=writable)

    # --- schema and life --------------------------------------------------------------------------------------------

    async def migrate(self) -> int:
        self._require_writable()
        with _told_at_start(self._place):
            role = await self._role()

        async def work(connection: Connection) -> int:
            version = await schema.migrate(connection, self._clock, role)
            await commit(connection)
            return version

        with _told_at_start(self._owner or self._place, _MIGRATION_URL if self._owner else _DATABASE_URL):
            return await self._changing_schema(work, required=False)

    async def pending(self) -> list[tuple[int, str]]:
        with _told_at_start(self._place):
            role = await self._role()

        async def work(connection: Connection) -> list[tuple[int, str]]:
            return migrations.told(await schema.pending(connection, role))

        with _told_at_start(self._owner or self._place, _MIGRATION_URL if self._owner else _DATABASE_URL):
            return await self._transact(lambda pools: pools.owner or pools.units, self._begin(None, READING), work)

    async def check(self) -> None:
        with _told_at_start(self._place):
            await self._reading(schema.check)
            await self._outside(selfcheck.check)
            if self._writable:
                await self._outside(selfcheck.require_writes)

    async def close(self) -> None:
        """Finish what was accepted and close every connection. May be repeated."""
        self._closed = True
        here = get_running_loop()
        for loop, pools in list(self._pools.items()):
            if loop is here:
                await pools.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pools.close(), loop))
            self._pools.pop(loop, None)  # the connections of a loop that has ended went with it

    # --- work -------------------------------------------------------------------------------------------------------

    async def run(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._require_writable()
        self._noted(scope)

        async def unit(connection: Connection) -> T:
            return await _unit(connection, scope, True, work, args, kwargs)

        return await self._transact(lambda pools: pools.units, self._begin(scope, WRITING), unit)

    async def read(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)

        async def unit(connection: Connection) -> T:
            return await _unit(connection, scope, False, work, args, kwargs)

        return await self._transact(lambda pools: pools.units, self._begin(scope, READING), unit)

    async def scan(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)

        async def unit(connection: Connection) -> T:
            return await _unit(connection, scope, False, work, args, kwargs)

        return await self._reading(unit, scope)

    async def access(self, org_id: str, user_id: str, credential_id: str) -> Access:
        pools = self._here()
        pools.begin()  # from here on it is accepted, also while it waits for others
        try:
            return access.decoded(await pools.callers.answer((org_id, user_id, credential_id)))
        finally:
            pools.finish()

    async def _accesses(self, units: Pool, callers: Sequence[Caller]) -> list[Found]:
        async def ask(connection: Connection) -> list[Found]:
            return await access.accesses(connection, callers)

        if self._place.statements:
            return await repeated(lambda: outside(units, ask), self._place.deadline)
        # Without prepared statements a question is two messages, and only a transaction keeps them on one connection.
        begin = self._begin(None, READING)
        return await repeated(lambda: transact(units, begin, ask), self._place.deadline)

    # --- spaces -----------------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, *, slots: int = 1) -> None:
        await self._create([space], slots)

    async def create_spaces(self, spaces_: Sequence[Space]) -> None:
        if spaces_:
            await self._create(spaces_, 1)

    async def _create(self, wanted: Sequence[Space], slots: int) -> None:
        dedicated = any(space.kind is PlacementKind.DEDICATED for space in wanted)
        role = await self._role() if dedicated else None

        async def work(connection: Connection) -> None:
            await spaces.create(connection, role, wanted, slots)
            await commit(connection)

        await (self._changing_schema(work) if dedicated else self._writing(work))

    async def rename_space(self, space: Space, name: str) -> None:
        async def work(connection: Connection) -> None:
            await spaces.rename(connection, space, name)
            await commit(connection)

        await self._changing_schema(work, required=space.kind is PlacementKind.DEDICATED)

    async def close_space(self, space: Space) -> None:
        async def work(connection: Connection) -> None:
            await spaces.close(connection, space)
            await commit(connection)

        await self._writing(work)

    async def open_space(self, space: Space) -> None:
        async def work(connection: Connection) -> None:
            await spaces.open_again(connection, space)
            await commit(connection)

        await self._writing(work)

    async def drop_space(self, space: Space, *, batch: int = 1000) -> dict[str, int] | None:
        dedicated = space.kind is PlacementKind.DEDICATED

        async def work(connection: Connection) -> dict[str, int] | None:
            if dedicated:
                removed = await spaces.drop_dedicated(connection, space)
            else:
                removed = await spaces.drop_pooled(connection, space, batch)
            await commit(connection)
            return removed

        return await (self._changing_schema(work) if dedicated else self._writing(work))

    async def spaces(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, FoundSpace]]:
        async def work(connection: Connection) -> list[tuple[str, FoundSpace]]:
            try:
                return await spaces_found.found(connection, after, limit)
            except Exception as error:
                if failures.is_missing(error):
                    raise Passing(error) from error  # one of them was renamed or dropped meanwhile
                raise

        return await self._reading(work)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        self._noted(scope)

        async def work(connection: Connection) -> Digest:
            return await maintenance.digest(PostgresTransaction(connection, scope, writable=False), table)

        return await self._reading(work, scope)

    async def stats(self) -> dict[str, int | float | str]:
        with _told_at_start(self._place):
            facts = await self._reading(maintenance.stats)
        pools = self._here()
        facts["connections"] = sum(pool.open for pool in pools.all)
        facts["connections_at_most"] = self._place.pool + _ASIDE + (2 if self._owner else 0)
        facts["placements"] = "pooled, dedicated" if self._owner else "pooled only: ORGSTEAD_MIGRATION_URL is not set"
        facts.update({f"system_scope: {reason}": count for reason, count in sorted(self._reasons.items())})
        return facts

    async def examine(self, *, processes: int) -> list[Finding]:
        at_most = self._place.pool + _ASIDE + (2 if self._owner else 0)
        owner = await self._examine_owner(self._owner) if self._owner else None

        async def ask(connection: Connection) -> list[Finding]:
            return await examine(connection, connections=processes * at_most, owner=owner)

        with _told_at_start(self._place):
            return await self._outside(ask)

    async def _examine_owner(self, place: Location) -> Owner:
        try:
            with _told_at_start(place, _MIGRATION_URL):
                begin = self._begin(None, READING)
                return await self._transact(lambda pools: pools.owner or pools.units, begin, owner_of)
        except OrgsteadError as error:
            return Owner(error=error)

    async def backup(self, target: str) -> None:
        raise maintenance.no_backup()

    # --- where things run -------------------------------------------------------------------------------------------

    def _here(self) -> Pools:
        """The connections of the running loop."""
        if self._closed:
            raise failures.closed()
        loop = get_running_loop()
        pools = self._pools.get(loop)
        if pools is None:
            pools = self._pools[loop] = Pools(self._place, self._owner, self._accesses, aside=_ASIDE)
        return pools

    def _begin(self, scope: Scope | None, mode: str, also: dict[str, str] | None = None) -> str:
        return policies.begin(scope, mode, {**self._also, **(also or {})})

    async def _transact(
        self,
        choose: Callable[[Pools], Pool],
        begin: str,
        work: Callable[[Connection], Awaitable[T]],
    ) -> T:
        """``work`` in a transaction, again where that may help, until the deadline."""
        pools = self._here()
        pool = choose(pools)
        pools.begin()
        try:
            return await repeated(lambda: transact(pool, begin, work), self._place.deadline)
        finally:
            pools.finish()

    async def _writing(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The engine's own work on rows of every organization, done by the application's role."""
        self._require_writable()
        return await self._transact(lambda pools: pools.units, self._begin(None, WRITING), work)

    async def _reading(self, work: Callable[[Connection], Awaitable[T]], scope: Scope | None = None) -> T:
        """Work that reads much, on one snapshot; by default the engine's own, on everything."""
        return await self._transact(lambda pools: pools.aside, self._begin(scope, READING, _LONG), work)

    async def _changing_schema(self, work: Callable[[Connection], Awaitable[T]], *, required: bool = True) -> T:
        """Work of the database's owner; where it is not ``required``, the application's role tries."""
        self._require_writable()
        if self._owner is None and required:
            raise failures.no_owner()
        return await self._transact(lambda pools: pools.owner or pools.units, self._begin(None, WRITING, _LONG), work)

    async def _outside(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """One question outside of any transaction of ours."""
        pools = self._here()
        pool = pools.units
        pools.begin()
        try:
            return await repeated(lambda: outside(pool, ask), self._place.deadline)
        finally:
            pools.finish()

    async def _role(self) -> str:
        """The application's role."""
        if self._place.role:
            return self._place.role
        return await self._outside(_current_user)

    def _require_writable(self) -> None:
        if not self._writable:
            raise StorageReadOnly("The database was opened for reading only; nothing was changed.")

    def _noted(self, scope: Scope) -> None:
        if isinstance(scope, SystemScope):
            self._reasons[scope.reason] += 1
            _log.debug("system scope: %s", scope.reason)


async def _unit(
    connection: Connection,
    scope: Scope,
    writable: bool,
    work: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> T:
    """One unit of work in the transaction that has begun; committed where it writes."""
    tx = PostgresTransaction(connection, scope, writable=writable)
    verbs: Transaction = tx
    try:
        result = await work(verbs, *args, **kwargs)
    except Exception as error:
        if tx.passing is not None:
            raise Passing(tx.passing) from error
        raise
    finally:
        failed = tx.end()
    if tx.passing is not None:
        raise Passing(tx.passing)
    if failed:
        raise TransactionEnded
    if writable and not tx.vanished:
        await commit(connection)
    return result


async def _current_user(connection: Connection) -> str:
    return str(await connection.fetchval("SELECT current_user::text"))


@contextmanager
def _told_at_start(place: Location, setting: str = _DATABASE_URL) -> Iterator[None]:
    """Say of what keeps the service from starting what its operator can do about it; ``setting`` names the place."""
    try:
        yield
    except OrgsteadError as error:
        if error.__cause__ is None or isinstance(error, OutcomeUnknown):
            raise
        told = failures.at_start(error.__cause__, setting, pooler=place.pooler, tls=place.tls)
        raise (told or error) from error.__cause__
