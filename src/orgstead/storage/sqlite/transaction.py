"""The verbs on SQLite. Each runs to its end without waiting, on the connection that holds the transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from orgstead.errors import (
    AlreadyExists,
    InvalidValue,
    NotFound,
    PlacementMoved,
    StaleRow,
)
from orgstead.storage import space_names
from orgstead.storage.codec import integer
from orgstead.storage.port import Scope, Table
from orgstead.storage.sqlite import failures, lists
from orgstead.storage.sqlite.access import ABOUT_CALLERS
from orgstead.storage.sqlite.changes import Changes
from orgstead.storage.sqlite.statements import Statements, physical_name, statements_of
from orgstead.storage.unit import Unit, identified_by

Row = TypeVar("Row")
T = TypeVar("T")
P = ParamSpec("P")


def _verb(
    *, writes: bool
) -> Callable[
    [Callable[Concatenate[SqliteTransaction, P], T]],
    Callable[Concatenate[SqliteTransaction, P], Coroutine[Any, Any, T]],
]:
    """``unit.verb`` for methods that never wait: one coroutine for each call instead of two."""

    def decorate(
        method: Callable[Concatenate[SqliteTransaction, P], T],
    ) -> Callable[Concatenate[SqliteTransaction, P], Coroutine[Any, Any, T]]:
        @wraps(method)
        async def verb(self: SqliteTransaction, /, *args: P.args, **kwargs: P.kwargs) -> T:
            self.begin_verb(writes=writes)
            try:
                return method(self, *args, **kwargs)
            except BaseException as error:
                self.fail(error)
                raise

        return verb

    return decorate


_SYSTEM, _ORGANIZATION = "system", "organization"
"""Places that are no names of spaces."""


@lru_cache(maxsize=512)
def _statements_in(place: str) -> dict[Table[Any], Statements[Any]]:
    """The statements of the tables that were admitted in a place: of a scope without space, of pooled spaces (""), or
    of the dedicated space of this name. What was admitted there once always is."""
    return {}


class SqliteTransaction(Unit):
    """The verbs of ``port.Transaction`` within one scope, on a connection that has begun a transaction.

    ``changes`` is told what the unit changes; without it the unit only reads.
    """

    __slots__ = ("_changes", "_connection", "_statements")

    def __init__(self, connection: sqlite3.Connection, scope: Scope, changes: Changes | None = None) -> None:
        super().__init__(scope, writable=changes is not None)
        self._connection = connection
        self._changes = changes
        if self.space is not None:
            place = space_names.name_of(self.space) or ""
        else:
            place = _SYSTEM if self.org_id is None else _ORGANIZATION
        self._statements = _statements_in(place)

    def translated(self, error: BaseException) -> BaseException:
        return failures.translated(error)

    @property
    def within_organization(self) -> bool:
        """True when the scope is one organization's."""
        return self.org_id is not None

    @_verb(writes=True)
    def add(self, table: Table[Row], row: Row) -> None:
        self._add(self.statements(table), row)

    @_verb(writes=True)
    def add_many(self, table: Table[Row], rows: Sequence[Row]) -> None:
        self._add_many(table, rows)

    @_verb(writes=True)
    def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
        for table, some in rows:
            self._add_many(table, some)

    @_verb(writes=False)
    def get(self, table: Table[Row], *key: Any) -> Row:
        return self._get(table, key)

    @_verb(writes=False)
    def find(self, /, table: Table[Row], **where: Any) -> Row | None:
        sql = self.statements(table)
        condition, values = self._identity(sql, where)
        rows = self.rows(sql.select + condition, values)
        return sql.codec.decode(rows[0]) if rows else None

    @_verb(writes=False)
    def find_many(
        self,
        table: Table[Row],
        keys: Sequence[tuple[Any, ...]],
        *,
        unique: str | None = None,
        max_weight: int | None = None,
    ) -> list[Row]:
        return lists.find_many(self, table, keys, unique, max_weight)

    @_verb(writes=True)
    def replace(self, table: Table[Row], row: Row) -> Row:
        return self._replace(self.statements(table), row)

    @_verb(writes=True)
    def replace_many(self, table: Table[Row], rows: Sequence[Row]) -> list[Row]:
        sql = self.statements(table)
        return [self._replace(sql, row) for row in rows]

    @_verb(writes=True)
    def remove(self, table: Table[Row], *key: Any) -> None:
        self._remove(self.statements(table), key)

    @_verb(writes=True)
    def remove_many(self, table: Table[Row], keys: Sequence[tuple[Any, ...]]) -> None:
        sql = self.statements(table)
        for key in keys:
            self._remove(sql, key)

    @_verb(writes=True)
    def lock(self, table: Table[Row], *key: Any) -> Row:
        return self._get(table, key)  # there is one writer: nobody else can hold or change the row

    @_verb(writes=True)
    def take(self, /, table: Table[Row], **where: Any) -> Row | None:
        sql = self.statements(table)
        condition, values = self._identity(sql, where)
        rows = self.rows(sql.delete + condition + sql.returning, values)
        if not rows:
            return None
        row = sql.codec.decode(rows[0])
        self._note(sql, getattr(row, table.key[0]))
        return row

    @_verb(writes=True)
    def claim(
        self,
        table: Table[Row],
        where: Mapping[str, Any],
        *,
        due: datetime,
        until: datetime,
        owner: str,
        limit: int,
    ) -> list[Row]:
        return lists.claim(self, table, where, due=due, until=until, owner=owner, limit=limit)

    @_verb(writes=True)
    def adjust(
        self,
        table: Table[Row],
        *key: Any,
        deltas: Mapping[str, int],
        where: Mapping[str, Any] | None = None,
        at_most: Mapping[str, int] | None = None,
    ) -> bool:
        sql = self.statements(table)
        plain = sql.codec.key(key)
        _, identity = self._by_key(sql, plain)
        conditions, values = self.conditions(sql, where, scoped=False)
        limits = at_most or {}
        bounds = tuple([(column, column in deltas) for column in limits])
        text = sql.adjusting(tuple(deltas), tuple(conditions), bounds, scoped=self.org_id is not None)
        for column, grows in bounds:
            if grows:
                values.append(deltas[column])
            values.append(integer(limits[column]))
        self._note(sql, plain[0])
        return bool(self.count(text, [*map(integer, deltas.values()), *identity, *values]))

    @_verb(writes=False)
    def page(
        self,
        table: Table[Row],
        where: Mapping[str, Any] | None = None,
        *,
        order: Sequence[str] = (),
        after: Sequence[Any] | None = None,
        until: Any = None,
        limit: int,
        max_weight: int | None = None,
    ) -> list[Row]:
        return lists.page(self, table, where, order=order, after=after, until=until, limit=limit, max_weight=max_weight)

    @_verb(writes=False)
    def aggregate(
        self,
        table: Table[Row],
        where: Mapping[str, Any] | None = None,
        *,
        group_by: Sequence[str] = (),
        sums: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        return lists.aggregate(self, table, where, group_by=group_by, sums=sums)

    # --- what the verbs are made of ---------------------------------------------------------------------------------

    def statements(self, table: Table[Row]) -> Statements[Row]:
        """The SQL of ``table`` where this scope has it; raises ``OutOfScope`` where it has not (promise 4)."""
        sql = self._statements.get(table)
        if sql is None:
            self.admit(table)
            physical = table.name if self.space is None else physical_name(self.space, table)
            sql = self._statements[table] = statements_of(table, physical)
        return sql

    def conditions(
        self, sql: Statements[Any], where: Mapping[str, Any] | None, *, scoped: bool = True
    ) -> tuple[list[str], list[Any]]:
        """The conditions that ``where`` and, if ``scoped``, the scope ask for, and their values."""
        texts: list[str] = []
        values: list[Any] = []
        for column, value in (where or {}).items():
            plain = sql.codec.comparable(column, value)
            if plain is None:
                texts.append(sql.null[column])
            else:
                texts.append(sql.equal[column])
                values.append(plain)
        if scoped and self.org_id is not None:
            texts.append(sql.equal[sql.table.scope or ""])
            values.append(self.org_id)
        return texts, values

    def _note(self, sql: Statements[Any], name: Any) -> None:
        """Tell that a row is changed or removed, by the first column of its key. A new one need not be told."""
        if self._changes is not None and sql.table in ABOUT_CALLERS:
            self._changes.note(name)

    def found(self, sql: Statements[Row], key: tuple[Any, ...]) -> Row | None:
        """The row of this key, if the scope has it."""
        condition, values = self._by_key(sql, sql.codec.key(key))
        rows = self.rows(sql.select + condition, values)
        return sql.codec.decode(rows[0]) if rows else None

    def rows(self, text: str, values: Sequence[Any]) -> list[Any]:
        """All rows of a statement; none where a dedicated space is not there (any more)."""
        try:
            return self._connection.execute(text, values).fetchall()
        except sqlite3.OperationalError as error:
            if self.space is not None and failures.is_missing_table(error):
                return []
            raise

    def rows_within(self, text: str, values: Sequence[Any], place: int, max_weight: int) -> list[Any]:
        """The rows of a statement up to the one by which their values at ``place`` are ``max_weight`` in all."""
        found: list[Any] = []
        weight = 0
        try:
            with closing(self._connection.execute(text, values)) as cursor:
                while weight < max_weight and (row := cursor.fetchone()) is not None:
                    found.append(row)
                    weight += row[place]
        except sqlite3.OperationalError as error:
            if self.space is not None and failures.is_missing_table(error):
                return []
            raise
        return found

    def count(self, text: str, values: Sequence[Any]) -> int:
        """How many rows a statement changed; none where a dedicated space is not there (any more)."""
        try:
            return self._connection.execute(text, values).rowcount
        except sqlite3.OperationalError as error:
            if self.space is not None and failures.is_missing_table(error):
                return 0
            raise

    def _add(self, sql: Statements[Row], row: Row) -> None:
        self.admit_row(sql.table, row)
        values = sql.codec.encode(row)
        try:
            self._connection.execute(sql.insert, values)
        except sqlite3.IntegrityError as error:
            raise self._violated(sql, values, replacing=False, error=error) from None
        except sqlite3.OperationalError as error:
            if self.space is not None and failures.is_missing_table(error):
                raise PlacementMoved(retry_after=1.0) from None
            raise

    def _add_many(self, table: Table[Row], rows: Sequence[Row]) -> None:
        sql = self.statements(table)
        for row in rows:
            self._add(sql, row)

    def _replace(self, sql: Statements[Row], row: Row) -> Row:
        values = sql.codec.encode(row)
        key = [values[place] for place in sql.key_places]
        self._note(sql, key[0])
        condition, identity = self._by_key(sql, list(key))
        if sql.version_place is not None:
            version = values[sql.version_place]
            condition += f" AND {sql.equal['version']}"
            identity.append(version)
            values[sql.version_place] = _next(version)
        try:
            changed = self.count(
                f"{sql.update}{sql.assign} WHERE {condition}",
                [*[values[place] for place in sql.changed_places], *identity],
            )
        except sqlite3.IntegrityError as error:
            raise self._violated(sql, values, replacing=True, error=error) from None
        if changed:
            return sql.codec.decode(values)
        condition, identity = self._by_key(sql, key)
        raise StaleRow if self.rows(sql.exists + condition, identity) else NotFound

    def _remove(self, sql: Statements[Row], key: tuple[Any, ...]) -> None:
        plain = sql.codec.key(key)
        self._note(sql, plain[0])
        condition, values = self._by_key(sql, plain)
        if not self.count(sql.delete + condition, values):
            raise NotFound

    def _get(self, table: Table[Row], key: tuple[Any, ...]) -> Row:
        row = self.found(self.statements(table), key)
        if row is None:
            raise NotFound
        return row

    def _by_key(self, sql: Statements[Any], key: list[Any]) -> tuple[str, list[Any]]:
        if self.org_id is None:
            return sql.by_key(False), key
        return sql.by_key(True), [*key, self.org_id]

    def _identity(self, sql: Statements[Any], where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The condition of the one row that ``where`` identifies."""
        if not identified_by(sql.table, where):
            return "0", []
        conditions, values = self.conditions(sql, where)
        return " AND ".join(conditions), values

    def _violated(
        self, sql: Statements[Any], values: list[Any], *, replacing: bool, error: sqlite3.IntegrityError
    ) -> Exception:
        """``AlreadyExists`` with our name of the constraint, found by looking which one the row runs into."""
        if not failures.is_duplicate(error):
            return InvalidValue()
        table = sql.table
        plain = dict(zip(table.columns, values, strict=True))
        key = [plain[column] for column in table.key]
        if not replacing and self.rows(sql.exists + sql.by_key(False), key):
            return AlreadyExists(table.key_constraint)
        for name, columns in (table.unique or {}).items():
            same = " AND ".join(sql.equal[column] for column in columns)
            wanted = [plain[column] for column in columns]
            if self.rows(f"{sql.exists}{same} AND NOT ({sql.by_key(False)})", [*wanted, *key]):
                return AlreadyExists(name)
        return AlreadyExists(table.key_constraint)


def _next(version: Any) -> int:
    return int(version) + 1
