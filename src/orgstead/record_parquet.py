"""A collection as a Parquet file, for analysis: the rows and columns of its CSV, with types. Needs pyarrow.

This module is imported when a Parquet file is wanted, and by nothing before: pyarrow is an extra, and large.

A file is written group of rows by group of rows, and each is small. What remains in memory until the end is what the
file's last part says of every column of every group, so that their number is bounded, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from orgstead.model import Record
from orgstead.record_columns import ID_COLUMN, Columns, ColumnType, titles
from orgstead.record_tables import Sink

OWN: Final = (ID_COLUMN, "created_at", "updated_at")
"""The columns in front of the members."""

GROUP_ROWS: Final = 100_000
GROUP_BYTES: Final = 16 * 1_048_576
"""Of records, as they count for a quota; a larger record is a group of its own."""

GROUP_CELLS: Final = 2_000_000
"""Rows times columns: an empty cell takes memory, too."""

MAX_CHUNKS: Final = 20_000
"""Columns times groups: each takes 2 KB until the end. Where there were more, all data is in one column."""

_MOMENT: Final = pa.timestamp("us", tz="UTC")
_ARROW: Final[dict[ColumnType, pa.DataType]] = {
    ColumnType.TEXT: pa.string(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.JSON: pa.string(),
}
_JSON_TEXT: Final = {"content": "application/json"}
"""The metadata of a column whose text is JSON: tells it from a column of text."""


class _Stream(RawIOBase):
    """A sink as pyarrow wants it: it asks where it is, and never goes back."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._sink.write(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position


class ParquetTable:
    """Writes records as rows of Parquet. Made by ``parquet_table``, which ends the file, too."""

    def __init__(
        self, writer: pq.ParquetWriter, schema: pa.Schema, columns: Columns, members: Sequence[str] | None
    ) -> None:
        self._writer = writer
        self._schema = schema
        self._members = members
        self._json = {name for name in members or () if columns.type_of(name) is ColumnType.JSON}
        self._most = _rows_of_a_group(len(schema))
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, records: Sequence[Record]) -> None:
        """Add rows, in this order."""
        begin = 0
        for number, record in enumerate(records):
            if self._rows == self._most or (self._rows and self._bytes + record.bytes > GROUP_BYTES):
                self._take(records[begin:number])
                self.end_group()
                begin = number
            self._rows += 1
            self._bytes += record.bytes
        self._take(records[begin:])

    def end_group(self) -> None:
        """Write what was taken as one group, if it is anything."""
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=self._rows)
        self._batches = []
        self._rows = self._bytes = 0

    def _take(self, records: Sequence[Record]) -> None:
        """Keep rows for the group, in a tenth of the memory that they take as records."""
        if records:
            values: list[list[Any]] = [
                [record.id for record in records],
                [record.created_at for record in records],
                [record.updated_at for record in records],
                *self._data(records),
            ]
            arrays = [pa.array(column, kind) for column, kind in zip(values, self._schema.types, strict=True)]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _data(self, records: Sequence[Record]) -> Iterator[list[Any]]:
        if self._members is None:
            yield [_json_text(record.data) for record in records]
            return
        for name in self._members:
            column = [record.data.get(name) for record in records]
            yield [None if value is None else _json_text(value) for value in column] if name in self._json else column


@contextmanager
def parquet_table(sink: Sink, columns: Columns) -> Iterator[ParquetTable]:
    """A table on the sink for the records that the columns were learnt from; the file is whole after the block."""
    members = _members_with_columns(columns)
    schema = _schema(columns, members)
    # Statistics of text would keep two texts of every group in memory; ids are short, and sorted.
    counted = [field.name for field in schema if field.name == ID_COLUMN or not pa.types.is_string(field.type)]
    stream = pa.PythonFile(_Stream(sink), mode="w")
    with pq.ParquetWriter(stream, schema, compression="zstd", write_statistics=counted) as writer:
        table = ParquetTable(writer, schema, columns, members)
        yield table
        table.end_group()


def _members_with_columns(columns: Columns) -> list[str] | None:
    members = columns.members
    if members is None:
        return None
    width = len(OWN) + len(members)
    # A group ends because it has its rows, or because with the beginning of the next one it would have its bytes.
    groups = columns.records / _rows_of_a_group(width) + 2 * columns.bytes / GROUP_BYTES + 1
    return members if groups * width <= MAX_CHUNKS else None


def _rows_of_a_group(width: int) -> int:
    return min(GROUP_ROWS, GROUP_CELLS // width)


def _schema(columns: Columns, members: Sequence[str] | None) -> pa.Schema:
    own = [pa.field(name, pa.string() if name == ID_COLUMN else _MOMENT, nullable=False) for name in OWN]
    names = titles(OWN, members)[len(OWN) :]
    kinds = [ColumnType.JSON] if members is None else [columns.type_of(member) for member in members]
    return pa.schema([*own, *map(_field, names, kinds)])


def _field(name: str, kind: ColumnType) -> pa.Field[Any]:
    return pa.field(name, _ARROW[kind], metadata=_JSON_TEXT if kind is ColumnType.JSON else None)


def _json_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
