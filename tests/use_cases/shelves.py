"""An organization with collections, and short ways to write and ask them, for the tests of records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orgstead import feed, queries, record_collections, record_definitions, records, spaces, usage
from orgstead.app import App
from orgstead.model import Placement, Record, RecordEvent, Slot
from orgstead.queries import Page, Query, Rules
from orgstead.record_batches import Change, Op, Terms
from orgstead.record_collections import Defined
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction
from orgstead.usage import Limits
from tests import apps

EVERYTHING = Rules(max_examined=1_000_000, max_aggregated=1_000_000)


class Shelf:
    """One organization's records. ``limits`` are those of its plan, until a test sets others."""

    def __init__(self, app: App, placement: Placement, plan: str = "free") -> None:
        self.app = app
        self.placement = placement
        self.limits = usage.limits_of(app.settings, plan)
        self.max_bytes = app.settings.records.max_bytes

    @classmethod
    async def made(cls, app: App, name: str = "Acme", plan: str = "free") -> Shelf:
        return cls(app, (await apps.created(app, name, plan)).placement, plan)

    @property
    def terms(self) -> Terms:
        return Terms(actor=apps.TESTER.id, at=self.app.clock(), limits=self.limits, max_bytes=self.max_bytes)

    def limit(self, **limits: int | None) -> None:
        self.limits = Limits(**limits)

    async def run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return await spaces.run(self.app, self.placement, work, *args, **kwargs)

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return await spaces.read(self.app, self.placement, work, *args, **kwargs)

    async def define(self, name: str, *, schema: Any = None, indexes: Any = (), unique: Any = ()) -> Defined:
        definition = record_definitions.parse(schema, indexes, unique)
        return await record_collections.define(self.app, self.placement, name, definition, self.terms, apps.TESTER)

    async def create(self, collection: str, data: Any, id: str | None = None) -> Record:
        created: Record = await self.run(records.create, collection, data, self.terms, id=id)
        return created

    async def fill(self, collection: str, documents: Sequence[Any], prefix: str = "r") -> list[Record]:
        """Create records ``r0``, ``r1`` … of these data, in batches."""
        made: list[Record] = []
        changes = [Change(Op.CREATE, collection, f"{prefix}{n}", data) for n, data in enumerate(documents)]
        for begin in range(0, len(changes), 500):
            made += await self.run(records.batch, changes[begin : begin + 500], self.terms)
        return made

    async def replace(self, collection: str, id: str, data: Any, if_version: int | None = None) -> Record:
        replaced: Record = await self.run(records.replace, collection, id, data, self.terms, if_version=if_version)
        return replaced

    async def patch(self, collection: str, id: str, data: Any, if_version: int | None = None) -> Record:
        patched: Record = await self.run(records.patch, collection, id, data, self.terms, if_version=if_version)
        return patched

    async def delete(self, collection: str, id: str, if_version: int | None = None) -> None:
        await self.run(records.delete, collection, id, self.terms, if_version=if_version)

    async def get(self, collection: str, id: str) -> Record:
        found: Record = await self.read(records.get, collection, id)
        return found

    async def page(
        self,
        collection: str,
        query: Query | None = None,
        *,
        rules: Rules = EVERYTHING,
        after: Any = None,
        limit: int = 50,
    ) -> Page:
        page: Page = await self.read(queries.run, collection, query or queries.parse(), rules, after=after, limit=limit)
        return page

    async def walk(self, collection: str, query: Query, *, limit: int = 50, rules: Rules = EVERYTHING) -> list[Record]:
        """All pages, one after the other."""
        found: list[Record] = []
        mark = None
        while True:
            page = await self.page(collection, query, after=mark, limit=limit, rules=rules)
            assert len(page.records) <= limit
            found += page.records
            assert len(found) < 5000, "this list does not end"
            if page.mark is None:
                return found
            mark = page.mark

    async def ask(self, collection: str, where: Any = None, order: Any = None) -> list[str]:
        """The ids of the records that meet a condition, in order."""
        return [record.id for record in await self.walk(collection, queries.parse(where, order))]

    async def usage(self) -> Slot:
        slot: Slot = await self.read(usage.read)
        return slot

    async def events(self, after: int = 0, limit: int = 1000) -> list[RecordEvent]:
        found: list[RecordEvent] = (await self.read(feed.read, after=after, limit=limit)).events
        return found

    async def entries(self, collection: str) -> set[tuple[int, str, str]]:
        """What the indexes of a collection hold."""
        found: set[tuple[int, str, str]] = set()
        after: Any = None
        while batch := await self.read(_entries, collection, after):
            found |= {(entry.number, entry.key, entry.id) for entry in batch}
            last = batch[-1]
            after = (last.org_id, last.collection, last.number, last.key)
        return found


async def _entries(tx: Transaction, space: Space, collection: str, after: Any) -> list[Any]:
    return await tx.page(tables.index_entries, {"collection": collection}, after=after, limit=1000)
