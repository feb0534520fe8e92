"""Rehearsals: units of work that are really done, and always rolled back, so that they say what would be.

A rehearsal stands in a storage's place. Every use case that keeps to units of work runs in it as it is, by its own
rules and the constraints of the engine. What units before would have left is put back before a later one meets it, so
that an import of many units comes to what it would come to: the second of two equal names, the last free place.

What no unit of work does is not rehearsed but refused: spaces are not made, renamed or dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar, cast

from orgstead.errors import StorageReadOnly
from orgstead.model import Record
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Scope, Space, Storage, Table, Transaction

Row = TypeVar("Row")
T = TypeVar("T")
P = ParamSpec("P")

Key = tuple[Any, ...]

_LOOKS: Final = frozenset(
    {"url", "pending", "check", "close", "read", "scan", "access", "spaces", "digest", "stats", "examine"}
)
"""What a rehearsal leaves to its storage: it changes nothing. All else but ``run`` is refused."""

_MET_AGAIN: Final = frozenset(
    {
        tables.organizations,
        tables.users,
        tables.slugs,
        tables.cells,
        tables.slots,
        tables.collections,
        tables.records,
        tables.index_entries,
    }
)
"""Whose rows later units of the same work can meet. Other tables only grow by rows that nobody asks for again."""

_IF_ASKED_FOR: Final = frozenset({tables.records, tables.index_entries})
"""Of these there are very many, so only those are kept whose key was asked for before they were added: the ids and the
values that input can name twice, and none that were made up."""


def rehearsal_of(storage: Storage) -> Storage:
    """The storage, for units of work that change nothing."""
    return cast(Storage, Rehearsal(storage))


class Rehearsal:
    """A storage whose ``run`` gives the result of the work, or raises what the storage would, and changes nothing.

    Reads see what is there, not what units would have left. Memory grows with what units add, without records' data.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._earlier = _Earlier()
        self._turns: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __getattr__(self, name: str) -> Any:
        if name in _LOOKS:
            return getattr(self._storage, name)
        raise StorageReadOnly("This is a rehearsal; nothing was changed.")

    async def run(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As ``Storage.run``, rolled back. Units of one organization take turns, so that each knows those before it."""
        org_id = scope.org_id if isinstance(scope, (OrgScope, Space)) else None

        async def unit(tx: Transaction) -> NoReturn:
            rehearsed = _Rehearsed(tx, self._earlier)
            result = await work(cast(Transaction, rehearsed), *args, **kwargs)
            # Where the work hid an error of a verb, this raises as the end of the unit would.
            table: Table[Any] = tables.slots if isinstance(scope, Space) else tables.organizations
            await tx.find_many(table, [])
            raise _TakenBack(result, rehearsed.effects)

        async with self._turns[org_id]:
            try:
                await self._storage.run(scope, unit)
            except _TakenBack as end:
                self._earlier.take(end.effects)
                return cast(T, end.result)


class _TakenBack(Exception):
    """Ends a unit, which rolls it back, and carries what it came to."""

    def __init__(self, result: object, effects: Mapping[tuple[Table[Any], Key], _Effect]) -> None:
        super().__init__()
        self.result = result
        self.effects = effects


@dataclass(frozen=True, slots=True)
class _Effect:
    """What units made of a row: the row as it is then, new or not, or by how much its counters have grown."""

    row: Any = None
    is_new: bool = False
    deltas: Mapping[str, int] = field(default_factory=dict)


class _Earlier:
    """What the units until now would have left: by key, and by unique values."""

    def __init__(self) -> None:
        self._effects: defaultdict[Table[Any], dict[Key, _Effect]] = defaultdict(dict)
        self._unique: defaultdict[str, dict[Key, Key]] = defaultdict(dict)

    def take(self, effects: Mapping[tuple[Table[Any], Key], _Effect]) -> None:
        """Add what one more unit would have left."""
        for (table, key), effect in effects.items():
            self._effects[table][key] = effect
            for name, columns in (table.unique or {}).items():
                if effect.row is not None:
                    self._unique[name][_values(effect.row, columns)] = key

    def of(self, table: Table[Any]) -> Mapping[Key, _Effect]:
        return self._effects.get(table, {})

    def holder(self, constraint: str, values: Key) -> Key | None:
        """The key of the row that has these unique values. It may have lost them since."""
        return self._unique[constraint].get(values) if constraint in self._unique else None


def _values(row: Any, columns: Sequence[str]) -> Key:
    return tuple(getattr(row, column) for column in columns)


class _Rehearsed:
    """The verbs of a unit: what earlier units made of a row is done again before a verb meets the row, by the engine.

    Lists do not see earlier units, so those of a table that one has changed are refused.
    """

    def __init__(self, tx: Transaction, earlier: _Earlier) -> None:
        self.effects: dict[tuple[Table[Any], Key], _Effect] = {}
        self._tx = tx
        self._earlier = earlier
        self._asked: set[tuple[Table[Any], Key]] = set()

    async def add(self, table: Table[Row], row: Row) -> None:
        await self.add_all([(table, [row])])

    async def add_many(self, table: Table[Row], rows: Sequence[Row]) -> None:
        await self.add_all([(table, rows)])

    async def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
        for table, some in rows:
            if self._earlier.of(table):
                await self._bring(table, (key for row in some for key in self._keys_taken(table, row)))
        await self._tx.add_all(rows)
        for table, some in rows:
            for row in some:
                key = _values(row, table.key)
                if table not in _IF_ASKED_FOR or (table, key) in self._asked:
                    self._keep(table, key, _Effect(_without_data(row), is_new=True))

    async def get(self, table: Table[Row], *key: Any) -> Row:
        await self._bring(table, [key])
        return await self._tx.get(table, *key)

    async def find(self, /, table: Table[Row], **where: Any) -> Row | None:
        for name, columns in {"": table.key, **(table.unique or {})}.items():
            if set(columns) == set(where):
                await self._bring(table, self._named(name, [tuple(where[column] for column in columns)]))
        return await self._tx.find(table, **where)

    async def find_many(
        self, table: Table[Row], keys: Sequence[Key], *, unique: str | None = None, max_weight: int | None = None
    ) -> list[Row]:
        if table in _IF_ASKED_FOR and unique is None:
            self._asked.update((table, key) for key in keys)
        await self._bring(table, self._named(unique or "", keys))
        return await self._tx.find_many(table, keys, unique=unique, max_weight=max_weight)

    async def replace(self, table: Table[Row], row: Row) -> Row:
        (stored,) = await self.replace_many(table, [row])
        return stored

    async def replace_many(self, table: Table[Row], rows: Sequence[Row]) -> list[Row]:
        await self._bring(table, (key for row in rows for key in self._keys_taken(table, row)))
        stored = await self._tx.replace_many(table, rows)
        for row in stored:
            key = _values(row, table.key)
            before = self.effects.get((table, key), _Effect())
            self._keep(table, key, _Effect(_without_data(row), is_new=before.is_new))
        return stored

    async def lock(self, table: Table[Row], *key: Any) -> Row:
        await self._bring(table, [key])
        return await self._tx.lock(table, *key)

    async def adjust(
        self,
        table: Table[Row],
        *key: Any,
        deltas: Mapping[str, int],
        where: Mapping[str, Any] | None = None,
        at_most: Mapping[str, int] | None = None,
    ) -> bool:
        await self._bring(table, [key])
        if not await self._tx.adjust(table, *key, deltas=deltas, where=where, at_most=at_most):
            return False
        before = self.effects.get((table, key), _Effect())
        if before.row is None:
            grown = Counter(before.deltas)
            grown.update(deltas)
            self._keep(table, key, _Effect(deltas=grown))
        else:
            counters = {column: getattr(before.row, column) + delta for column, delta in deltas.items()}
            self._keep(table, key, replace(before, row=replace(before.row, **counters)))
        return True

    # --- what no import needs, and is true as long as no earlier unit has changed the table ---------------------------

    async def page(self, table: Table[Row], *args: Any, **options: Any) -> list[Row]:
        return await self._alone(table).page(table, *args, **options)

    async def aggregate(self, table: Table[Row], *args: Any, **options: Any) -> list[dict[str, Any]]:
        return await self._alone(table).aggregate(table, *args, **options)

    async def remove(self, table: Table[Row], *key: Any) -> None:
        await self._alone(table).remove(table, *key)

    async def remove_many(self, table: Table[Row], keys: Sequence[Key]) -> None:
        await self._alone(table).remove_many(table, keys)

    async def take(self, /, table: Table[Row], **where: Any) -> Row | None:
        return await self._alone(table).take(table, **where)

    async def claim(
        self, table: Table[Row], where: Mapping[str, Any], *, due: datetime, until: datetime, owner: str, limit: int
    ) -> list[Row]:
        return await self._alone(table).claim(table, where, due=due, until=until, owner=owner, limit=limit)

    def _alone(self, table: Table[Any]) -> Transaction:
        if self._earlier.of(table):
            raise NotImplementedError(f"An earlier unit of the rehearsal has changed {table.name}.")
        return self._tx

    # --- what earlier units would have left ---------------------------------------------------------------------------

    def _named(self, constraint: str, values: Iterable[Key]) -> Iterable[Key]:
        """The keys of the rows that have these values of a unique constraint; "" is that of the key."""
        if not constraint:
            return values
        return (key for one in values if (key := self._earlier.holder(constraint, one)) is not None)

    def _keys_taken(self, table: Table[Any], row: Any) -> list[Key]:
        """The keys of the earlier rows that this one would run into."""
        named = [_values(row, table.key)]
        for name, columns in (table.unique or {}).items():
            named += self._named(name, [_values(row, columns)])
        return named

    async def _bring(self, table: Table[Any], keys: Iterable[Key]) -> None:
        """Do once more what earlier units have done to these rows, unless this unit has them already."""
        effects = self._earlier.of(table)
        if not effects:
            return
        found = {key: effects[key] for key in keys if key in effects and (table, key) not in self.effects}
        if new := [effect.row for effect in found.values() if effect.is_new]:
            await self._tx.add_many(table, new)
        for key, effect in found.items():
            self.effects[table, key] = effect
            if effect.deltas:
                await self._tx.adjust(table, *key, deltas=effect.deltas)
            elif not effect.is_new:
                there = await self._tx.get(table, *key)
                again = {"version": there.version} if table.versioned else {}
                await self._tx.replace(table, replace(effect.row, **again))

    def _keep(self, table: Table[Any], key: Key, effect: _Effect) -> None:
        if table in _MET_AGAIN:
            self.effects[table, key] = effect


def _without_data(row: Any) -> Any:
    """The row as later units need it: of a record only that it is there."""
    return replace(row, data={}, bytes=len("{}")) if isinstance(row, Record) else row
