"""Storages that break a promise on purpose, each in one way: what the suite must notice.

Every mutant wraps a sound storage and passes on what it does not break.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orgstead.errors import AlreadyExists, NotFound, SpaceMismatch
from orgstead.model import Access, PlacementKind, SlotState
from orgstead.storage.port import Digest, OrgScope, Scope, Space, Storage, SystemScope, Table, Transaction
from orgstead.storage.tables import slots

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


# --- values ---------------------------------------------------------------------------------------------------------


def with_add(name: str, change: Callable[[Any], Any]) -> type[Sound]:
    """A storage that changes each column's value on its way in."""

    class Changing(Verbs):
        async def add(self, table: Table[Any], row: Any) -> None:
            changed = {column: change(getattr(row, column)) for column in table.columns}
            await self.tx.add(table, replace(row, **changed))

    return type(name, (Sound,), {"verbs": Changing})


TrimsText = with_add("TrimsText", lambda value: value.rstrip() if type(value) is str else value)
FoldsCase = with_add("FoldsCase", lambda value: value.lower() if type(value) is str else value)
CutsMilliseconds = with_add(
    "CutsMilliseconds", lambda value: value.replace(microsecond=0) if isinstance(value, datetime) else value
)
ThroughDoubles = with_add(
    "ThroughDoubles", lambda value: min(int(float(value)), 2**63 - 1) if type(value) is int else value
)
DropsNul = with_add("DropsNul", lambda value: value.replace("\0", "") if type(value) is str else value)


class UnsortedText(Sound):
    """Promises 5 and 7: pages in the order of a locale that does not tell cases apart."""

    class verbs(Verbs):  # noqa: N801  # the name that Sound looks for
        async def page(self, table: Table[Any], *args: Any, **kwargs: Any) -> list[Any]:
            rows: list[Any] = await self.tx.page(table, *args, **kwargs)
            return sorted(rows, key=lambda row: [str(getattr(row, column)).casefold() for column in table.key])


# --- constraints ----------------------------------------------------------------------------------------------------


class NoUnique(Sound):
    """Promise 6: the unique index was dropped."""

    class verbs(Verbs):  # noqa: N801
        async def add(self, table: Table[Any], row: Any) -> None:
            for columns in (table.unique or {}).values():
                values = {column: getattr(row, column) for column in columns}
                if None not in values.values() and await self.tx.find(table, **values) is not None:
                    row = replace(row, **{columns[-1]: f"{values[columns[-1]]} again {id(row)}"})
            await self.tx.add(table, row)


class NoKey(Sound):
    """Promise 6: the second row of a key replaces the first."""

    class verbs(Verbs):  # noqa: N801
        async def add(self, table: Table[Any], row: Any) -> None:
            await self.tx.take(table, **{column: getattr(row, column) for column in table.key})
            await self.tx.add(table, row)


class NoneIsAValue(Sound):
    """Promise 6: two rows with None break a unique constraint."""

    class verbs(Verbs):  # noqa: N801
        async def add(self, table: Table[Any], row: Any) -> None:
            for name, columns in (table.unique or {}).items():
                values = {column: getattr(row, column) for column in columns}
                if None in values.values() and await self.tx.page(table, values, limit=1):
                    raise AlreadyExists(name)
            await self.tx.add(table, row)


class EnginesNameOfTheConstraint(Sound):
    """Promise 6: the constraint is called as the engine calls it."""

    async def run(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self.storage.run(scope, work, *args, **kwargs)
        except AlreadyExists:
            raise AlreadyExists("UNIQUE constraint failed") from None


# --- verbs ----------------------------------------------------------------------------------------------------------


class LastWriterWins(Sound):
    """``replace`` ignores the version."""

    class verbs(Verbs):  # noqa: N801
        async def replace(self, table: Table[Any], row: Any) -> Any:
            if table.versioned:
                stored = await self.tx.get(table, *(getattr(row, column) for column in table.key))
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


# --- pages ----------------------------------------------------------------------------------------------------------


class PagesRepeatTheirMark(Sound):
    """Promise 7: ``after`` is an offset that someone counted wrong."""

    class verbs(Verbs):  # noqa: N801
        async def page(self, table: Table[Any], where: Any = None, *, limit: int, **kwargs: Any) -> list[Any]:
            after: Sequence[Any] | None = kwargs.pop("after", None)
            rows = await self.tx.page(table, where, limit=1000, **kwargs)
            if after is None:
                return rows[:limit]
            seen = await self.tx.page(table, where, after=after, limit=1000, **kwargs)
            return rows[max(len(rows) - len(seen) - 1, 0) :][:limit] if seen else []


class PagesByOffset(Sound):
    """Promise 7: the next page begins after as many rows as were given out, not after a mark."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._given = 0

    async def read(self, scope: Scope, work: Work, *args: Any, **kwargs: Any) -> Any:
        given = self._given

        class ByOffset(Verbs):
            async def page(self, table: Table[Any], *args: Any, limit: int, after: Any = None, **kwargs: Any) -> Any:
                start = given if after is not None else 0
                return (await self.tx.page(table, *args, limit=1000, **kwargs))[start : start + limit]

        async def counted(tx: Transaction) -> Any:
            return await work(ByOffset(tx), *args, **kwargs)

        page = await self.storage.read(scope, counted)
        self._given += len(page)
        return page


class PagesForgetDescending(Sound):
    """Promise 7: every order is ascending."""

    class verbs(Verbs):  # noqa: N801
        async def page(self, table: Table[Any], *args: Any, order: Sequence[str] = (), **kwargs: Any) -> list[Any]:
            return await self.tx.page(table, *args, order=[column.lstrip("-") for column in order], **kwargs)


# --- spaces ---------------------------------------------------------------------------------------------------------


class ClosesOneSlot(Sound):
    """Promise 9: ``close_space`` forgets all slots but the first."""

    async def close_space(self, space: Space) -> None:
        async def close(tx: Transaction) -> None:
            for slot in (await tx.page(slots, {"epoch": space.epoch}, limit=100))[:1]:
                await tx.replace(slots, replace(slot, state=SlotState.CLOSED))

        await self.storage.run(space, close)


class OpensWithEmptyCounters(Sound):
    """Promise 9: ``open_space`` forgets what was counted."""

    async def open_space(self, space: Space) -> None:
        await self.storage.open_space(space)

        await self.storage.run(space, _fresh_slots, space.epoch)


class CreateStartsAgain(Sound):
    """Promise 9: ``create_space`` repeated sets the slots back to what they were at first."""

    async def create_space(self, space: Space, *, slots: int = 1) -> None:
        await self.storage.create_space(space, slots=slots)
        await self.storage.run(space, _fresh_slots, space.epoch)


async def _fresh_slots(tx: Transaction, epoch: int) -> None:
    for slot in await tx.page(slots, {"epoch": epoch}, limit=100):
        await tx.replace(slots, replace(slot, state=SlotState.OPEN, records=0, bytes=0))


class RenameTrustsItsCaller(Sound):
    """Promise 9: ``rename_space`` takes every disagreement for "it was done"."""

    async def rename_space(self, space: Space, name: str) -> None:
        try:
            await self.storage.rename_space(space, name)
        except SpaceMismatch:
            return


class RenameKeepsTheOldName(Sound):
    """Promise 9: after the rename there is a space of the old name again."""

    async def rename_space(self, space: Space, name: str) -> None:
        await self.storage.rename_space(space, name)
        await self.storage.create_space(space)


class DropsNothing(Sound):
    """Promise 9: ``drop_space`` says it is done while everything is there."""

    async def drop_space(self, space: Space, *, batch: int = 1000) -> None:
        return None


class FenceLetsStaleWritersIn(Sound):
    """Promise 9: the fence is not looked at."""

    class verbs(Verbs):  # noqa: N801
        async def adjust(self, table: Table[Any], *key: Any, **kwargs: Any) -> bool:
            await self.tx.adjust(table, *key, **kwargs)
            return True


class ListsAPageTwice(Sound):
    """``spaces`` repeats the space that it goes on after."""

    async def spaces(self, *, after: str = "", limit: int = 1000) -> Any:
        page = await self.storage.spaces(after=after, limit=limit)
        return [*page[:1], *page][:limit] if after else page


# --- digests, access ------------------------------------------------------------------------------------------------


class DigestCountsOnly(Sound):
    """Promise 10: the hash is of the number of rows."""

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        count = (await self.storage.digest(scope, table)).count
        return Digest(count, f"{count + 1:x}")


class DigestKnowsThePlacement(Sound):
    """Promise 10: where the rows are is part of the hash."""

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        digest = await self.storage.digest(scope, table)
        place = scope.name if isinstance(scope, Space) else None
        return Digest(digest.count, f"{hash((digest.hash, place)) & (2**64 - 1):x}")


class CachedAccess(Sound):
    """``access`` remembers."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._cache: dict[tuple[str, ...], Access] = {}

    async def access(self, *key: str) -> Access:
        if key not in self._cache:
            self._cache[key] = await self.storage.access(*key)
        return self._cache[key]


class AccessInParts(Sound):
    """``access`` reads its parts at different times."""

    async def access(self, *key: str) -> Access:
        early = await self.storage.access(*key)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self.storage.run(EVERYTHING, _nothing)
        return replace(await self.storage.access(*key), organization=early.organization)


async def _nothing(tx: Transaction) -> None:
    """A unit that does nothing but wait for its turn."""
