"""Reading the records that a plan names, in the plan's order, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orgstead.index_keys import KeyRange
from orgstead.model import Collection, IndexEntry, Record
from orgstead.query_plans import Mark, Plan, ranges_after
from orgstead.record_reads import KEYS, READ_BYTES, may_go_on, weight
from orgstead.storage import tables
from orgstead.storage.port import Transaction

FIRST: Final = 100
"""Records that are read first where most may be read in vain."""


class Source:
    """The records of a plan behind ``after``; about ``wanted`` of them first, then more and more at once."""

    def __init__(self, tx: Transaction, collection: Collection, plan: Plan, after: Mark | None, wanted: int) -> None:
        self._tx = tx
        self._collection = collection
        self._plan = plan
        self._size = wanted
        self._ids = list(plan.ids or ())
        self._portion = KEYS
        self._readers: list[_Reader] = []
        if plan.index is None:
            self._ranges: Iterator[KeyRange] = (keys for keys, _ in ranges_after(plan, after))
            self._range = next(self._ranges, None)
        else:
            self._readers = [_Reader(tx, collection, plan, keys, head) for keys, head in ranges_after(plan, after)]

    async def read(self) -> list[Record]:
        """The next records; none at the end."""
        if self._plan.index is None and self._plan.ids is None:
            return await self._by_id()
        while True:
            if not self._ids and self._readers:
                entries = await (self._merged() if self._plan.merged else self._in_turn())
                self._ids = [entry.id for entry in entries]
                self._grow()
            if not self._ids:
                return []
            if batch := await self._fetched():
                return batch

    async def _by_id(self) -> list[Record]:
        if self._range is None:
            return []
        collection, down = self._collection, self._plan.backwards
        begin, until = (self._range.high, self._range.low) if down else (self._range.low, self._range.high)
        batch = await self._tx.page(
            tables.records,
            {"collection": collection.name},
            order=("-id" if down else "id",),
            after=(begin, collection.org_id, collection.name),
            until=until or None,
            limit=self._size,
            max_weight=READ_BYTES,
        )
        if may_go_on(batch, self._size):
            last = batch[-1].id
            self._range = KeyRange(until, last) if down else KeyRange(last, until)
        else:
            self._range = next(self._ranges, None)
        self._grow()
        return batch

    async def _in_turn(self) -> list[IndexEntry]:
        """The next entries of the ranges, one range after the other."""
        while self._readers:
            if batch := await self._readers[0].read(self._size):
                return batch
            del self._readers[0]
        return []

    async def _merged(self) -> list[IndexEntry]:
        """The next entries of all ranges side by side, by what follows in their keys."""
        choose = max if self._plan.backwards else min
        batch: list[IndexEntry] = []
        while len(batch) < self._size:
            for reader in self._readers:
                if not reader.waiting:
                    reader.waiting = (await reader.read(self._size))[::-1]
            self._readers = [reader for reader in self._readers if reader.waiting]
            if not self._readers:
                break
            batch.append(choose(self._readers, key=_Reader.standing).waiting.pop())
        return batch

    async def _fetched(self) -> list[Record]:
        """The records of the next ids, in their order: of fewer and fewer ids where they are large."""
        collection = self._collection
        while True:
            ids = self._ids[: self._portion]
            keys = [(collection.org_id, collection.name, one) for one in ids]
            found = await self._tx.find_many(tables.records, keys, max_weight=READ_BYTES)
            if weight(found) < READ_BYTES or len(ids) == 1:
                break
            self._portion = max(1, len(ids) // 4)  # some may have been left out, and not the last ones
        self._portion = min(KEYS, 2 * self._portion)
        del self._ids[: len(ids)]
        by_id = {record.id: record for record in found}
        return [by_id[one] for one in ids if one in by_id]

    def _grow(self) -> None:
        """Read more the next time."""
        self._size = min(KEYS, 4 * self._size)


class _Reader:
    """Reads one range of an index. ``waiting`` holds what was read and not yet taken, the next one last."""

    def __init__(self, tx: Transaction, collection: Collection, plan: Plan, keys: KeyRange, head: str) -> None:
        assert plan.index is not None
        self._tx = tx
        self._where = {"collection": collection.name, "number": plan.index.number}
        self._fixed = (collection.org_id, collection.name, plan.index.number)
        self._order = ("-key" if plan.backwards else "key",)
        self._begin, self._until = (keys.high, keys.low) if plan.backwards else (keys.low, keys.high)
        self._head = head
        self._ended = False
        self.waiting: list[IndexEntry] = []

    async def read(self, size: int) -> list[IndexEntry]:
        """The next entries, none at the end."""
        if self._ended:
            return []
        batch = await self._tx.page(
            tables.index_entries,
            self._where,
            order=self._order,
            after=(self._begin, *self._fixed),
            until=self._until,
            limit=size,
        )
        self._ended = len(batch) < size
        if batch:
            self._begin = batch[-1].key
        return batch

    def standing(self) -> str:
        """Where the next entry stands among those of the other readers."""
        return self.waiting[-1].key[len(self._head) :]
