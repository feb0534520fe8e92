"""Storages that break a promise on purpose, each in one way: transactions, scopes and conditional writes.

Every mutant wraps a sound storage and passes on what it does not break.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orgstead.errors import NotFound
from orgstead.model import PlacementKind
from orgstead.storage.port import Digest, OrgScope, Scope, Space, Storage, SystemScope, Table, Transaction

Work = Callable[..., Awaitable[Any]]
EVERYTHING = SystemScope("a mutant without scopes")
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


class Verbs:
    """The verbs of a transaction, passed on; mutants override the one that they break."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx, name)


class Sound:
    """A storage passed on as it is. ``verbs`` stands between the work and the transaction."""

    verbs: type[Verbs] = Verbs

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    async def _wrapped(self, tx: Transaction, work: Work, args: Any, kwargs: Any) -> Any:
        return await work(self.verbs(tx), *args, **kwargs)

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.run(scope, self._wrapped, work, args, kwargs)

    async def read(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.read(scope, self._wrapped, work, args, kwargs)

    async def scan(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.scan(scope, self._wrapped, work, args, kwargs)


# --- units ----------------------------------------------------------------------------------------------------------


class RollbackDoesNothing(Sound):
    """Promise 1: what was written before the error stays."""

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        async def never_raises(tx: Transaction) -> tuple[Any, Exception | None]:
            try:
                return await work(tx, *args, **kwargs), None
            except Exception as error:
                return None, error

        result, error = await self.storage.run(scope, never_raises)
        if error is not None:
            raise error
        return result


class Alone:
    """Each verb as a transaction of its own: no unit, no lock that lasts, no snapshot, no end with an error."""

    def __init__(self, storage: Storage, scope: Scope) -> None:
        self.storage, self.scope = storage, scope

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self.storage.run(self.scope, lambda tx: getattr(tx, verb)(*args, **kwargs))

        return call


class NoTransactions(Sound):
    """Promises 1 and 3: the engine whose transactions are optional."""

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await work(Alone(self.storage, scope), *args, **kwargs)

    read = scan = run


class ReadsMayWrite(Sound):
    """``read`` is ``run``."""

    async def read(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.run(scope, work, *args, **kwargs)

    scan = read


# --- scopes ---------------------------------------------------------------------------------------------------------


class NoScope(Sound):
    """Promise 4: the organization's predicate was forgotten everywhere."""

    @staticmethod
    def _widened(scope: Scope) -> Scope:
        return EVERYTHING if isinstance(scope, OrgScope) else scope

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.run(self._widened(scope), work, *args, **kwargs)

    async def read(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.read(self._widened(scope), work, *args, **kwargs)

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        return await self.storage.digest(self._widened(scope), table)


class SharedSpaces(Sound):
    """Promise 4: all dedicated spaces are the pooled one, and only the name in front differs."""

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.run(_pooled(scope), work, *args, **kwargs)

    async def read(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await self.storage.read(_pooled(scope), work, *args, **kwargs)


def _pooled(scope: Scope) -> Scope:
    return Space("org_everyone", PlacementKind.POOLED, None, 1) if isinstance(scope, Space) else scope


# --- verbs ----------------------------------------------------------------------------------------------------------


class LastWriterWins(Sound):
    """``replace`` ignores the version."""

    class verbs(Verbs):  # noqa: N801
        async def replace(self, table: Table[Any], row: Any) -> Any:
            if table.versioned:
                # Locked, because between a plain look and the write the version would be compared after all.
                stored = await self.tx.lock(table, *(getattr(row, column) for column in table.key))
                row = replace(row, version=stored.version)
            return await self.tx.replace(table, row)


class TakeLooksThenRemoves(Sound):
    """``take`` reads in one transaction and removes in another."""

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await work(_LooksThenRemoves(self.storage, scope), *args, **kwargs)


class _LooksThenRemoves(Alone):
    async def take(self, table: Table[Any], **where: Any) -> Any:
        row = await self.find(table, **where)
        if row is not None:
            try:
                await self.remove(table, *(getattr(row, column) for column in table.key))
            except NotFound:
                return row
        return row


class ClaimForgetsLeases(Sound):
    """``claim`` gives what others hold."""

    class verbs(Verbs):  # noqa: N801
        async def claim(self, table: Table[Any], where: Mapping[str, Any], *, due: datetime, **kwargs: Any) -> Any:
            return (await self.tx.claim(table, where, due=NEVER, **kwargs))[: kwargs["limit"]]


class AdjustWithoutConditions(Sound):
    """``adjust`` neither looks at ``where`` nor at ``at_most``."""

    class verbs(Verbs):  # noqa: N801
        async def adjust(self, table: Table[Any], *key: Any, deltas: Mapping[str, int], **_: Any) -> bool:
            return await self.tx.adjust(table, *key, deltas=deltas)


class AdjustLooksThenWrites(Sound):
    """``adjust`` reads in one transaction and writes in another."""

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        return await work(_LooksThenWrites(self.storage, scope), *args, **kwargs)


class _LooksThenWrites(Alone):
    async def adjust(
        self,
        table: Table[Any],
        *key: Any,
        deltas: Mapping[str, int],
        at_most: Mapping[str, int] | None = None,
    ) -> bool:
        row = await self.get(table, *key)
        sums = {column: getattr(row, column) + delta for column, delta in deltas.items()}
        if any(sums[column] > bound for column, bound in (at_most or {}).items()):
            return False
        await self.replace(table, replace(row, **sums))
        return True
