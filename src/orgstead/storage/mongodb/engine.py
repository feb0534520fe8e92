"""``Storage`` on a MongoDB replica set or sharded cluster."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession

from orgstead.errors import StorageReadOnly
from orgstead.findings import Finding
from orgstead.kit import Clock
from orgstead.model import Access
from orgstead.storage import migrations
from orgstead.storage.gathering import Caller, Gathering
from orgstead.storage.mongodb import access, client, location, maintenance, schema, spaces
from orgstead.storage.mongodb.access import Found
from orgstead.storage.mongodb.examine import examine
from orgstead.storage.mongodb.transaction import attempt
from orgstead.storage.mongodb.units import UNIT_SECONDS, Units
from orgstead.storage.port import Digest, FoundSpace, Scope, Space, SystemScope, Table, Transaction

T = TypeVar("T")
P = ParamSpec("P")

_UPKEEP_SECONDS = 600.0
"""How long a command that reads or removes everything may take."""

_SCAN_SECONDS = 120.0
"""How long one command of a scan may take: a count of everything that an organization has."""

_log = logging.getLogger(__name__)


class MongoStorage:
    """The promises of ``port.Storage``. Belongs to the event loop that it was opened in."""

    def __init__(self, url: str, clock: Clock, server: client.Server, *, writable: bool) -> None:
        self.url = url
        self._clock = clock
        self._server = server
        self._writable = writable
        self._units = Units(server)
        self._callers: Gathering[Caller, Found] = Gathering(self._accesses, UNIT_SECONDS)
        self._reasons: Counter[str] = Counter()

    @classmethod
    async def open(cls, url: str, *, writable: bool, clock: Clock) -> MongoStorage:
        """See ``open_storage``. Connects when something is first asked for."""
        place = location.parse(url)
        return cls(place.url, clock, client.connect(place), writable=writable)

    # --- schema and life --------------------------------------------------------------------------------------------

    async def migrate(self) -> int:
        self._require_writable()
        return await self._units.plainly(lambda: schema.migrate(self._server, self._clock), seconds=_UPKEEP_SECONDS)

    async def pending(self) -> list[tuple[int, str]]:
        return migrations.told(await self._units.plainly(lambda: schema.pending(self._server, writable=False)))

    async def check(self) -> None:
        await self._units.plainly(lambda: schema.check(self._server, writable=self._writable))

    async def close(self) -> None:
        await self._units.close()

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
        return await self._units.write(attempt(self._server, scope, work, args, kwargs, writable=True))

    async def read(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)
        return await self._units.read(attempt(self._server, scope, work, args, kwargs, writable=False))

    async def scan(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._noted(scope)
        reading = attempt(self._server, scope, work, args, kwargs, writable=False, seconds=_SCAN_SECONDS)
        return await self._units.read(reading)

    async def access(self, org_id: str, user_id: str, credential_id: str) -> Access:
        with self._units.at_work():
            return access.decoded(await self._callers.answer((org_id, user_id, credential_id)))

    async def _accesses(self, callers: Sequence[Caller]) -> list[Found]:
        async def once(session: AsyncClientSession) -> list[Found]:
            return await access.accesses(self._server, session, callers)

        return await self._units.read_on(once)

    # --- spaces -----------------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, *, slots: int = 1) -> None:
        await self._change(lambda: spaces.create(self._units, self._server, [space], slots))

    async def create_spaces(self, spaces_: Sequence[Space]) -> None:
        if spaces_:
            await self._change(lambda: spaces.create(self._units, self._server, spaces_, 1))

    async def rename_space(self, space: Space, name: str) -> None:
        await self._change(lambda: spaces.rename(self._server, space, name))

    async def close_space(self, space: Space) -> None:
        await self._change(lambda: spaces.close(self._server, space))

    async def open_space(self, space: Space) -> None:
        await self._change(lambda: spaces.open_again(self._units, self._server, space))

    async def drop_space(self, space: Space, *, batch: int = 1000) -> dict[str, int] | None:
        return await self._change(lambda: spaces.drop(self._server, space, batch))

    async def spaces(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, FoundSpace]]:
        return await self._units.plainly(lambda: spaces.found(self._server, after, limit), seconds=_UPKEEP_SECONDS)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        self._noted(scope)
        return await self._units.plainly(
            lambda: maintenance.digest(self._server, scope, table), seconds=_UPKEEP_SECONDS
        )

    async def stats(self) -> dict[str, int | float | str]:
        facts = await self._units.plainly(lambda: maintenance.stats(self._server))
        facts.update({f"system_scope: {reason}": count for reason, count in sorted(self._reasons.items())})
        return facts

    async def examine(self, *, processes: int) -> list[Finding]:
        return await self._units.plainly(lambda: examine(self._server, processes=processes), seconds=_UPKEEP_SECONDS)

    async def backup(self, target: str) -> None:
        maintenance.backup(self._server)

    # --- what they share --------------------------------------------------------------------------------------------

    async def _change(self, step: Callable[[], Awaitable[T]]) -> T:
        self._require_writable()
        return await self._units.plainly(step, seconds=_UPKEEP_SECONDS)

    def _require_writable(self) -> None:
        if not self._writable:
            raise StorageReadOnly("The database was opened for reading only; nothing was changed.")

    def _noted(self, scope: Scope) -> None:
        if isinstance(scope, SystemScope):
            self._reasons[scope.reason] += 1
            _log.debug("system scope: %s", scope.reason)
