"""Storages that break a promise on purpose, each in one way: values, constraints and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from orgstead.errors import AlreadyExists
from orgstead.storage.port import Scope, Storage, Table, Transaction, total_order
from tests.contract.broken_units import Sound, Verbs, Work

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


class PagesIncludeTheirEnd(Sound):
    """Promise 7: ``until`` is taken for the last value of the list."""

    class verbs(Verbs):  # noqa: N801
        async def page(self, table: Table[Any], *args: Any, until: Any = None, **kwargs: Any) -> list[Any]:
            rows = await self.tx.page(table, *args, **kwargs)
            if until is None:
                return rows
            column = total_order(table, kwargs.get("order", ()))[0]
            name, down = column.lstrip("-"), column.startswith("-")
            values = [(row, getattr(row, name)) for row in rows]
            return [row for row, value in values if value is not None and (value >= until if down else value <= until)]


class PagesOfAnyWeight(Sound):
    """Promise 7: how much is read at once depends on the number of rows alone."""

    class verbs(Verbs):  # noqa: N801
        async def page(self, *args: Any, max_weight: int | None = None, **kwargs: Any) -> list[Any]:
            return await self.tx.page(*args, **kwargs)

        async def find_many(self, *args: Any, max_weight: int | None = None, **kwargs: Any) -> list[Any]:
            return await self.tx.find_many(*args, **kwargs)


class AddsToTheFirstTable(Sound):
    """``add_all`` forgets all tables but one."""

    class verbs(Verbs):  # noqa: N801
        async def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
            await self.tx.add_all(rows[:1])


class BlamesTheFirstTable(Sound):
    """Promise 6: ``add_all`` knows the constraints of one table only."""

    class verbs(Verbs):  # noqa: N801
        async def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
            try:
                await self.tx.add_all(rows)
            except AlreadyExists:
                raise AlreadyExists(rows[0][0].key_constraint) from None


class RemovesWhatIsThere(Sound):
    """``remove_many`` forgives what is missing."""

    class verbs(Verbs):  # noqa: N801
        async def remove_many(self, table: Table[Any], keys: Sequence[tuple[Any, ...]]) -> None:
            for key in keys:
                await self.tx.take(table, **dict(zip(table.key, key, strict=True)))
