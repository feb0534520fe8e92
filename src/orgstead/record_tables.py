"""A collection as a file: JSON Lines with everything about each record, or CSV with a column for each member.

Records are read within one transaction, page by page and in the order of their ids, so that a file is consistent at one
point and takes little memory however many there are.
"""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import orjson

from orgstead.csv_cells import data_cell, neutralized
from orgstead.kit import rfc3339
from orgstead.model import Json, Record
from orgstead.record_columns import ID_COLUMN, Columns, titles
from orgstead.record_reads import READ_BYTES, may_go_on
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

BATCH: Final = 1000
"""Records that are read at once where they are small."""


async def pages(tx: Transaction, collection: str) -> AsyncIterator[list[Record]]:
    """The records of a collection of the transaction's space by id, a few megabytes at a time."""
    where, after = {"collection": collection}, None
    while batch := await tx.page(tables.records, where, order=("id",), after=after, limit=BATCH, max_weight=READ_BYTES):
        yield batch
        if not may_go_on(batch, BATCH):
            return
        last = batch[-1]
        after = (last.id, last.org_id, last.collection)


def as_line(record: Record) -> bytes:
    """A record as one line of JSON: all of it but whose it is, and its collection's name.

    The same record has the same line on every engine and placement.
    """
    line: dict[str, Json] = {
        "id": record.id,
        "version": record.version,
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
        "data": record.data,
    }
    return orjson.dumps(line, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


class Sink(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes, /) -> object: ...


class _Utf8:
    """Writes text to what takes bytes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, text: str, /) -> object:
        return self._sink.write(text.encode())


class Table(Protocol):
    """What takes the records of a collection as rows, in order."""

    def add(self, records: Sequence[Record], /) -> None: ...


class CsvTable:
    """Writes records as rows of CSV; text that a spreadsheet would run is neutralized, members' names included."""

    def __init__(self, stream: Sink, columns: Columns) -> None:
        self._writer = csv.writer(_Utf8(stream))
        self._members = columns.members
        self._writer.writerow(map(neutralized, titles((ID_COLUMN,), self._members)))

    def add(self, records: Sequence[Record], /) -> None:
        """Add rows, in this order."""
        self._writer.writerows([neutralized(record.id), *self._cells(record)] for record in records)

    def _cells(self, record: Record) -> Iterator[str]:
        values = [record.data] if self._members is None else map(record.data.get, self._members)
        return map(data_cell, values)


@contextmanager
def csv_table(sink: Sink, columns: Columns) -> Iterator[CsvTable]:
    """A table on the sink for the records that the columns were learnt from; the file is whole after the block."""
    yield CsvTable(sink, columns)


async def write_lines(
    tx: Transaction, space: Space, collection: str, begin: Callable[[], Sink], advance: Callable[[int], None]
) -> int:
    """Write the collection as JSON Lines; returns how many records. ``begin`` gives an empty stream, each time that
    the transaction is begun. Raises ``NotFound``."""
    await tx.get(tables.collections, space.org_id, collection)
    stream, count = begin(), 0
    async for batch in pages(tx, collection):
        stream.write(b"".join(map(as_line, batch)))
        count += len(batch)
        advance(len(batch))
    return count


async def write_csv(
    tx: Transaction, space: Space, collection: str, begin: Callable[[], Sink], advance: Callable[[int], None]
) -> int:
    """The same as CSV, for which the collection is read twice: its columns are the members of all its records."""
    await tx.get(tables.collections, space.org_id, collection)
    columns = Columns()
    async for batch in pages(tx, collection):
        columns.note(batch)
    table = CsvTable(begin(), columns)
    async for batch in pages(tx, collection):
        table.add(batch)
        advance(len(batch))
    return columns.records
