"""The verbs on PostgreSQL: one statement each, most of them one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import asyncpg

from orgstead.errors import AlreadyExists, InvalidValue, NotFound, PlacementMoved, StaleRow
from orgstead.storage.port import Scope, Table
from orgstead.storage.postgres import failures, lists, many
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.statements import Statements, Values, quoted, schema_of, statements_of
from orgstead.storage.unit import Unit, identified_by, verb

Row = TypeVar("Row")


class PostgresTransaction(Unit):
    """The verbs of ``port.Transaction`` within one scope, on a connection that has begun a transaction.

    ``passing`` is the error that ended the unit where the work may be done again. ``vanished`` is true once a dedicated
    space turned out not to be there: the server has ended the transaction then, and nothing of it can be committed.
    """

    __slots__ = ("_connection", "_touched", "passing", "vanished")

    def __init__(self, connection: Connection, scope: Scope, *, writable: bool) -> None:
        super().__init__(scope, writable=writable)
        self._connection = connection
        self._touched = False
        self.passing: BaseException | None = None
        self.vanished = False

    def translated(self, error: BaseException) -> BaseException:
        if failures.is_passing(error) or (isinstance(error, Exception) and self._connection.is_closed()):
            self.passing = error
        return failures.translated(error)

    @property
    def within_organization(self) -> bool:
        """True when the scope is one organization's."""
        return self.org_id is not None

    @verb(writes=True)
    async def add(self, table: Table[Row], row: Row) -> None:
        sql = self.statements(table)
        self.admit_row(table, row)
        await self.insert(sql.insert, sql.codec.encode(row), table)

    @verb(writes=True)
    async def add_many(self, table: Table[Row], rows: Sequence[Row]) -> None:
        await many.add_all(self, [(table, rows)])

    @verb(writes=True)
    async def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
        await many.add_all(self, rows)

    @verb(writes=False)
    async def get(self, table: Table[Row], *key: Any) -> Row:
        sql = self.statements(table)
        return await self._one(sql, sql.get(self.within_organization), key)

    @verb(writes=False)
    async def find(self, /, table: Table[Row], **where: Any) -> Row | None:
        sql = self.statements(table)
        if not identified_by(table, where):
            return None
        values = Values()
        rows = await self.rows(sql.select + self.conditions(sql, where, values), values.all)
        return sql.codec.decode(rows[0]) if rows else None

    @verb(writes=False)
    async def find_many(
        self,
        table: Table[Row],
        keys: Sequence[tuple[Any, ...]],
        *,
        unique: str | None = None,
        max_weight: int | None = None,
    ) -> list[Row]:
        return await lists.find_many(self, table, keys, unique, max_weight)

    @verb(writes=True)
    async def replace(self, table: Table[Row], row: Row) -> Row:
        sql = self.statements(table)
        values = sql.codec.encode(row)
        key = self.scoped([values[place] for place in sql.key_places])
        expected: list[Any] = []
        if sql.version_place is not None:
            version = values[sql.version_place]
            expected = [version]
            values[sql.version_place] = following(version)
        changed = [values[place] for place in sql.changed_places]
        text = sql.replace(self.within_organization)
        if await self.count(text, [*changed, *expected, *key], table):
            return sql.codec.decode(values)
        raise StaleRow if await self.rows(sql.exists(self.within_organization), key) else NotFound

    @verb(writes=True)
    async def replace_many(self, table: Table[Row], rows: Sequence[Row]) -> list[Row]:
        return await many.replace_many(self, table, rows)

    @verb(writes=True)
    async def remove(self, table: Table[Row], *key: Any) -> None:
        sql = self.statements(table)
        if not await self.count(sql.remove(self.within_organization), self.scoped(sql.codec.key(key)), table):
            raise NotFound

    @verb(writes=True)
    async def remove_many(self, table: Table[Row], keys: Sequence[tuple[Any, ...]]) -> None:
        await many.remove_many(self, table, keys)

    @verb(writes=True)
    async def lock(self, table: Table[Row], *key: Any) -> Row:
        sql = self.statements(table)
        return await self._one(sql, sql.lock(self.within_organization), key)

    @verb(writes=True)
    async def take(self, /, table: Table[Row], **where: Any) -> Row | None:
        sql = self.statements(table)
        if not identified_by(table, where):
            return None
        values = Values()
        rows = await self.rows(sql.delete + self.conditions(sql, where, values) + sql.returning, values.all)
        return sql.codec.decode(rows[0]) if rows else None

    @verb(writes=True)
    async def claim(
        self,
        table: Table[Row],
        where: Mapping[str, Any],
        *,
        due: datetime,
        until: datetime,
        owner: str,
        limit: int,
    ) -> list[Row]:
        return await lists.claim(self, table, where, due=due, until=until, owner=owner, limit=limit)

    @verb(writes=True)
    async def adjust(
        self,
        table: Table[Row],
        *key: Any,
        deltas: Mapping[str, int],
        where: Mapping[str, Any] | None = None,
        at_most: Mapping[str, int] | None = None,
    ) -> bool:
        sql = self.statements(table)
        integer = sql.codec.integer
        values = Values()
        sums = {
            column: f"{quoted(column)} + {values.bind(integer(column, delta))}::bigint"
            for column, delta in deltas.items()
            if not (table.versioned and column == "version")  # it grows by one with every write, whoever asks
        }
        identity = dict(zip(table.key, sql.codec.key(key), strict=True))
        conditions = [f"{quoted(column)} = {values.bind(value)}" for column, value in identity.items()]
        conditions.append(self.conditions(sql, where, values))
        for column, most in (at_most or {}).items():
            conditions.append(f"{sums.get(column, quoted(column))} <= {values.bind(integer(column, most))}::bigint")
        new = {**sums, "version": f"{quoted('version')} + 1"} if table.versioned else sums
        assigned = ", ".join(f"{quoted(column)} = {text}" for column, text in new.items())
        text = f"{sql.update}{assigned} WHERE {' AND '.join(conditions)}"
        return bool(await self.count(text, values.all, table))

    @verb(writes=False)
    async def page(
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
        return await lists.page(
            self, table, where, order=order, after=after, until=until, limit=limit, max_weight=max_weight
        )

    @verb(writes=False)
    async def aggregate(
        self,
        table: Table[Row],
        where: Mapping[str, Any] | None = None,
        *,
        group_by: Sequence[str] = (),
        sums: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        return await lists.aggregate(self, table, where, group_by=group_by, sums=sums)

    # --- what the verbs are made of ---------------------------------------------------------------------------------

    def statements(self, table: Table[Row]) -> Statements[Row]:
        """The SQL of ``table`` where this scope has it; raises ``OutOfScope`` where it has not (promise 4)."""
        self.admit(table)
        return statements_of(table, schema_of(self.space))

    def conditions(self, sql: Statements[Any], where: Mapping[str, Any] | None, values: Values) -> str:
        """The condition that ``where`` and the scope ask for; ``true`` where they ask for nothing."""
        texts: list[str] = []
        for column, value in (where or {}).items():
            plain = sql.codec.comparable(column, value)
            texts.append(f"{quoted(column)} IS NULL" if plain is None else f"{quoted(column)} = {values.bind(plain)}")
        if self.org_id is not None:
            texts.append(f"{quoted(sql.table.scope or '')} = {values.bind(self.org_id)}")
        return " AND ".join(texts) or "true"

    def scoped(self, key: list[Any]) -> list[Any]:
        """The key's values and, where the scope is one organization's, that of its predicate."""
        return key if self.org_id is None else [*key, self.org_id]

    async def rows(self, text: str, values: Sequence[Any]) -> list[Any]:
        """All rows of a statement; none where a dedicated space is not there (any more)."""
        if self.vanished:
            return []
        try:
            found: list[Any] = await self._connection.fetch(text, *values)
        except asyncpg.PostgresError as error:
            if not self._vanishes(error):
                raise
            return []
        self._touched = True
        return found

    async def count(self, text: str, values: Sequence[Any], *tables: Table[Any]) -> int:
        """How many rows a statement changed; none where a dedicated space is not there (any more)."""
        if self.vanished:
            return 0
        try:
            status = await self._connection.execute(text, *values)
        except asyncpg.PostgresError as error:
            if not self._vanishes(error):
                raise self._violated(error, tables) from None
            return 0
        self._touched = True
        return int(status.rpartition(" ")[2])

    async def insert(self, text: str, values: Sequence[Any], *tables: Table[Any]) -> None:
        """Run an INSERT. Raises ``AlreadyExists``, and ``PlacementMoved`` where a dedicated space is not there."""
        await self.count(text, values, *tables)
        if self.vanished:
            raise PlacementMoved(retry_after=failures.RETRY_AFTER)

    def _vanishes(self, error: BaseException) -> bool:
        """Does the error say that the dedicated space is not there?

        Raises ``PlacementMoved`` where it still was for an earlier verb: the unit has seen two places.
        """
        if self.space is None or self.space.name is None or not failures.is_missing(error):
            return False
        if self._touched:
            raise PlacementMoved(retry_after=failures.RETRY_AFTER) from error
        self.vanished = True
        return True

    async def _one(self, sql: Statements[Row], text: str, key: tuple[Any, ...]) -> Row:
        rows = await self.rows(text, self.scoped(sql.codec.key(key)))
        if not rows:
            raise NotFound
        return sql.codec.decode(rows[0])

    def _violated(self, error: BaseException, tables: Sequence[Table[Any]]) -> BaseException:
        """``AlreadyExists`` with our name of the constraint, which is also the engine's; any other error as it is."""
        name = failures.duplicate_of(error)
        if name is None:
            return error
        ours = any(name == table.key_constraint or name in (table.unique or {}) for table in tables)
        return AlreadyExists(name) if ours else InvalidValue()


def following(version: Any) -> int:
    """The version after this one."""
    return int(version) + 1
