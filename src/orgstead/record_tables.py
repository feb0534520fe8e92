"""A collection as a file: JSON Lines with everything about each record, or CSV with a column for each member.

Records are read within one transaction, page by page and in the order of their ids, so that a file is consistent at one
point and takes little memory however many there are.
"""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

import orjson

from orgstead.csv_cells import data_cell, neutralized
from orgstead.kit import rfc3339
from orgstead.model import Json, Record
from orgstead.record_reads import READ_BYTES, may_go_on
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

MAX_COLUMNS: Final = 1000
"""Members that have a column of their own; a collection with more has its data in one."""

BATCH: Final = 1000
"""Records that are read at once where they are small."""

ID_COLUMN: Final = "id"
"""The first column; a member of the data that is called so is in the column ``data.id``."""


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


def columns_of(names: dict[str, None]) -> list[str] | None:
    """The members that get columns, in the order in which they were first seen; None where there are too many."""
    return list(names) if len(names) <= MAX_COLUMNS else None


def note_columns(names: dict[str, None], record: Record) -> None:
    """Remember the members of the record's data, up to a few more than can have columns."""
    if len(names) <= MAX_COLUMNS:
        names.update(dict.fromkeys(record.data))


class Sink(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes, /) -> object: ...


class _Utf8:
    """Writes text to what takes bytes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, text: str, /) -> object:
        return self._sink.write(text.encode())


class CsvTable:
    """Writes records as rows of CSV; text that a spreadsheet would run is neutralized, members' names included."""

    def __init__(self, stream: Sink, columns: Sequence[str] | None) -> None:
        self._writer = csv.writer(_Utf8(stream))
        self._columns = columns
        shown = ["data"] if columns is None else [f"data.{name}" if name == ID_COLUMN else name for name in columns]
        self._writer.writerow([ID_COLUMN, *map(neutralized, shown)])

    def row(self, record: Record) -> None:
        record_id = neutralized(record.id)
        if self._columns is None:
            self._writer.writerow([record_id, data_cell(record.data)])
        else:
            self._writer.writerow([record_id, *(data_cell(record.data.get(name)) for name in self._columns)])


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
    names: dict[str, None] = {}
    async for batch in pages(tx, collection):
        for record in batch:
            note_columns(names, record)
    table, count = CsvTable(begin(), columns_of(names)), 0
    async for batch in pages(tx, collection):
        for record in batch:
            table.row(record)
        count += len(batch)
        advance(len(batch))
    return count
