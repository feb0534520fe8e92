"""The verbs on MongoDB: each is one command, and the first of them begins the transaction on the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any, TypeVar

from bson import Int64
from pymongo import ReplaceOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from orgstead.errors import AlreadyExists, InvalidValue, NotFound, PlacementMoved, StaleRow, TransactionEnded
from orgstead.model import PlacementKind
from orgstead.storage import space_names, tables
from orgstead.storage.codec import INT_MAX, INT_MIN
from orgstead.storage.mongodb import failures, lists
from orgstead.storage.mongodb.client import Collection, Server, patient
from orgstead.storage.mongodb.documents import LOCK, Document, Layout, all_of, layout_of
from orgstead.storage.mongodb.units import Again, Attempt
from orgstead.storage.port import Home, Scope, Table
from orgstead.storage.unit import MAX_KEYS, Unit, identified_by, verb

Row = TypeVar("Row")
T = TypeVar("T")

_NEXT = Int64(1)
_ID_ONLY = {"_id": 1}


def attempt(
    server: Server,
    scope: Scope,
    work: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    writable: bool,
    seconds: float | None = None,
) -> Attempt[T]:
    """One attempt at a unit of work, for ``Units``. What a verb ran into decides, whatever the work made of it.

    ``seconds`` is how long each of its reads may take where that is not the usual time.
    """

    async def once(session: AsyncClientSession) -> T:
        tx = MongoTransaction(server, session, scope, writable=writable, seconds=seconds)
        try:
            result = await work(tx, *args, **kwargs)
        except BaseException as error:
            tx.end()
            if tx.transient is not None and isinstance(error, Exception):
                raise Again(tx.touched) from tx.transient
            raise
        if tx.end():
            if tx.transient is not None:
                raise Again(tx.touched) from tx.transient
            raise TransactionEnded
        return result

    return once


class MongoTransaction(Unit):
    """The verbs of ``port.Transaction`` within one scope, in one session.

    ``touched`` is the document or collection that the last verb was about, ``transient`` an error after which the whole
    unit may run again.
    """

    __slots__ = ("_entered", "_seconds", "_server", "session", "touched", "transient")

    def __init__(
        self,
        server: Server,
        session: AsyncClientSession | None,
        scope: Scope,
        *,
        writable: bool,
        seconds: float | None = None,
    ) -> None:
        super().__init__(scope, writable=writable)
        self._server = server
        self._seconds = seconds
        self.session = session
        self.touched: Hashable = None
        self.transient: BaseException | None = None
        self._entered = False

    def translated(self, error: BaseException) -> BaseException:
        if failures.is_transient(error):
            self.transient = error
        return failures.translated(error)

    @verb(writes=True)
    async def add(self, table: Table[Row], row: Row) -> None:
        await self._insert(table, [row])

    @verb(writes=True)
    async def add_many(self, table: Table[Row], rows: Sequence[Row]) -> None:
        await self._insert(table, rows)

    @verb(writes=True)
    async def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
        for table, some in rows:
            await self._insert(table, some)

    @verb(writes=False)
    async def get(self, table: Table[Row], *key: Any) -> Row:
        layout, collection = self.place(table)
        row = await self._find(layout, collection, self._by_key(layout, key))
        if row is None:
            raise NotFound
        return row

    @verb(writes=False)
    async def find(self, /, table: Table[Row], **where: Any) -> Row | None:
        layout, collection = self.place(table)
        return await self._find(layout, collection, self._identity(layout, where))

    @verb(writes=False)
    async def find_many(
        self,
        table: Table[Row],
        keys: Sequence[tuple[Any, ...]],
        *,
        unique: str | None = None,
        max_weight: int | None = None,
    ) -> list[Row]:
        async with self._patience():
            return await lists.find_many(self, table, keys, unique, max_weight)

    @verb(writes=True)
    async def replace(self, table: Table[Row], row: Row) -> Row:
        layout, collection = self.place(table)
        document, stored = layout.replacement(row)
        wanted = self._to_replace(layout, document)
        key = document.pop("_id")
        self._touches(collection, key)
        try:
            found = await collection.find_one_and_replace(wanted, document, _ID_ONLY, session=self.session)
        except PyMongoError as error:
            raise self._violated(layout, error) from error
        if found is None:
            raise await self._not_replaced(layout, collection, [key])
        return stored

    @verb(writes=True)
    async def replace_many(self, table: Table[Row], rows: Sequence[Row]) -> list[Row]:
        layout, collection = self.place(table)
        if not rows:
            return []
        pairs = [layout.replacement(row) for row in rows]
        keys = [document["_id"] for document, _ in pairs]
        self._touches(collection, keys[0])
        writes = [ReplaceOne(self._to_replace(layout, document), document) for document, _ in pairs]
        try:
            result = await collection.bulk_write(writes, session=self.session)
        except PyMongoError as error:
            raise self._violated(layout, error) from error
        if result.matched_count < len(writes):
            raise await self._not_replaced(layout, collection, keys)
        return [stored for _, stored in pairs]

    @verb(writes=True)
    async def remove(self, table: Table[Row], *key: Any) -> None:
        layout, collection = self.place(table)
        wanted = self._by_key(layout, key)
        self._touches(collection, wanted)
        if wanted is None or not (await collection.delete_one(wanted, session=self.session)).deleted_count:
            raise NotFound

    @verb(writes=True)
    async def remove_many(self, table: Table[Row], keys: Sequence[tuple[Any, ...]]) -> None:
        layout, collection = self.place(table)
        if self.org_id is not None and any(key[table.key.index(table.scope or "")] != self.org_id for key in keys):
            raise NotFound
        wanted = [layout.id(key) for key in keys]
        for begin in range(0, len(wanted), MAX_KEYS):
            part = wanted[begin : begin + MAX_KEYS]
            self._touches(collection, part[0])
            removed = await collection.delete_many({"_id": {"$in": part}}, session=self.session)
            if removed.deleted_count != len(part):
                raise NotFound

    @verb(writes=True)
    async def lock(self, table: Table[Row], *key: Any) -> Row:
        layout, collection = self.place(table)
        wanted = self._by_key(layout, key)
        found = await self._changed(table, collection, wanted, {"$inc": {LOCK: _NEXT}}, whole=True)
        if found is None:
            raise NotFound
        return layout.row(found)

    @verb(writes=True)
    async def take(self, /, table: Table[Row], **where: Any) -> Row | None:
        layout, collection = self.place(table)
        wanted = self._identity(layout, where)
        if wanted is None:
            return None
        self._touches(collection, wanted)
        found = await collection.find_one_and_delete(wanted, session=self.session)
        return None if found is None else layout.row(found)

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
        layout, collection = self.place(table)
        wanted = self._by_key(layout, key)
        wanted = None if wanted is None else all_of([wanted, *self._conditions(layout, where)])
        added = {column: layout.codec.integer(column, delta) for column, delta in deltas.items()}
        changes = {layout.paths[column]: Int64(delta) for column, delta in added.items()}
        bounds = {c: layout.codec.integer(c, most) - deltas.get(c, 0) for c, most in (at_most or {}).items()}
        if wanted is None or any(bound < INT_MIN for bound in bounds.values()):
            return False
        limits = [{layout.paths[c]: {"$lte": Int64(min(bound, INT_MAX))}} for c, bound in bounds.items()]
        ends = [
            _room(layout.paths[c], delta) for c, delta in deltas.items() if delta < 0 or (delta and c not in bounds)
        ]
        if table.versioned:
            changes["version"] = Int64(changes.get("version", 0) + 1)
        matched = await self._changed(table, collection, all_of([wanted, *limits, *ends]), {"$inc": changes})
        if matched is None and ends:
            # Rare, and worth a question: was it a condition that stood in the way, or the end of the integers?
            wanted = all_of([wanted, *limits])
            if await collection.find_one(wanted, _ID_ONLY, session=self.session) is not None:
                raise InvalidValue("An integer must fit into 64 bits.")
        return matched is not None

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
        async with self._patience():
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
        async with self._patience():
            return await lists.aggregate(self, table, where, group_by=group_by, sums=sums)

    # --- what the verbs are made of ---------------------------------------------------------------------------------

    def place(self, table: Table[Row]) -> tuple[Layout[Row], Collection]:
        """How and where ``table`` lies within this scope; raises ``OutOfScope`` where it has no such table."""
        self.admit(table)
        name = None if self.space is None else space_names.name_of(self.space)
        collection = (self._server.data if table.home is Home.SPACE else self._server.directory)[name or table.name]
        self.touched = collection.name
        return layout_of(table, shared=name is not None), collection

    def _patience(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._seconds is None else patient(self._server.client, self._seconds)

    def matching(self, layout: Layout[Any], where: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The plain values that ``where`` and the scope ask for, by column; None where they contradict each other."""
        return self._within(
            layout, {column: layout.codec.comparable(column, value) for column, value in (where or {}).items()}
        )

    def _within(self, layout: Layout[Any], values: dict[str, Any]) -> dict[str, Any] | None:
        """Plain values by column and what the scope asks for; None where they contradict each other."""
        scope = layout.table.scope
        if self.org_id is None or scope is None:
            return values
        return values if values.setdefault(scope, self.org_id) == self.org_id else None

    def _conditions(self, layout: Layout[Any], where: Mapping[str, Any] | None) -> list[Document]:
        return [{layout.paths[column]: layout.comparable(column, value)} for column, value in (where or {}).items()]

    def _touches(self, collection: Collection, what: Any) -> None:
        self.touched = collection.name, repr(what)

    def _by_key(self, layout: Layout[Any], key: Sequence[Any]) -> Document | None:
        """The filter of the row of this key; None where there can be none."""
        values = self._within(layout, dict(zip(layout.table.key, layout.codec.key(key), strict=True)))
        return None if values is None else all_of(layout.equal(values))

    def _identity(self, layout: Layout[Any], where: Mapping[str, Any]) -> Document | None:
        """The filter of the one row that ``where`` identifies; None where there can be none."""
        values = self.matching(layout, where) if identified_by(layout.table, where) else None
        return None if values is None else all_of(layout.equal(values))

    async def _find(self, layout: Layout[Row], collection: Collection, wanted: Document | None) -> Row | None:
        if wanted is None:
            return None
        async with self._patience():
            found = await collection.find_one(wanted, session=self.session)
        return None if found is None else layout.row(found)

    async def _insert(self, table: Table[Row], rows: Sequence[Row]) -> None:
        layout, collection = self.place(table)
        if not rows:
            return
        for row in rows:
            self.admit_row(table, row)
        documents = [layout.document(row) for row in rows]
        await self._enter(collection)
        self._touches(collection, documents[0]["_id"])
        try:
            if len(documents) == 1:
                await collection.insert_one(documents[0], session=self.session)
            else:
                await collection.insert_many(documents, session=self.session)
        except PyMongoError as error:
            raise self._violated(layout, error) from error

    async def _enter(self, collection: Collection) -> None:
        """Be sure, before inserting, that a dedicated space is there and stays: an insert would make it.

        Whoever has written one of its slots in this transaction is: the collection is neither renamed nor dropped
        before every slot was closed, and closing one waits for whoever has written it.
        """
        if self._entered or self.space is None or self.space.kind is PlacementKind.POOLED:
            return
        slots = layout_of(tables.slots, shared=True)
        wanted = {"_id": slots.range([self.space.org_id])}
        self._touches(collection, wanted)
        if await self._changed(tables.slots, collection, wanted, {"$inc": {LOCK: _NEXT}}) is None:
            raise PlacementMoved(retry_after=1.0)

    async def _changed(
        self,
        table: Table[Any],
        collection: Collection,
        wanted: Document | None,
        change: Document,
        *,
        whole: bool = False,
    ) -> Document | None:
        """Change the first document that is wanted; returns it, or its ``_id`` only, or None where there is none."""
        if wanted is None:
            return None
        self._touches(collection, wanted)
        found = await collection.find_one_and_update(
            wanted,
            change,
            None if whole else _ID_ONLY,
            sort=[("_id", 1)],
            return_document=ReturnDocument.AFTER,
            session=self.session,
        )
        if found is not None and table is tables.slots:
            self._entered = True
        return found

    def _to_replace(self, layout: Layout[Any], document: Document) -> Document:
        """The filter of what ``document`` is to replace: of the version before it, and within the scope."""
        conditions: list[Document] = [{"_id": document["_id"]}, *self._scoped(layout)]
        if layout.table.versioned:
            conditions.append({"version": Int64(document["version"] - 1)})
        return all_of(conditions)

    def _scoped(self, layout: Layout[Any]) -> list[Document]:
        return [] if self.org_id is None else [{layout.paths[layout.table.scope or ""]: self.org_id}]

    async def _not_replaced(self, layout: Layout[Any], collection: Collection, keys: Sequence[Any]) -> Exception:
        """Why one of the rows of these keys was not replaced: because it is not there, or has another version."""
        wanted = all_of([{"_id": {"$in": list(keys)}}, *self._scoped(layout)])
        there = await collection.count_documents(wanted, session=self.session)
        return StaleRow() if there == len(keys) else NotFound()

    def _violated(self, layout: Layout[Any], error: PyMongoError) -> BaseException:
        """``AlreadyExists`` with our name of the constraint where ``error`` says so, else ``error``."""
        found = failures.duplicate(error)
        return error if found is None else AlreadyExists(layout.constraint(*found))


def _room(path: str, delta: int) -> Document:
    """The condition that adding ``delta`` stays within 64 bits."""
    return {path: {"$lte": Int64(INT_MAX - delta)} if delta > 0 else {"$gte": Int64(INT_MIN - delta)}}
