"""Rows as documents and back, and conditions over them, derived from the table declarations.

A document's ``_id`` is the row's key: the value itself where the key is one column, else an embedded document of the
key's columns in their declared order, so that an organization's documents are one range of the index that every
collection has anyway. Where several tables share a collection, ``_id`` begins with the table's name. The other columns
are fields of their names; None is kept as null. See ``docs/decisions/0012-documents-as-rows.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from bson import Int64, MaxKey
from bson.datetime_ms import DatetimeMS

from orgstead.storage.codec import Column, Kind, TableCodec, codec_of
from orgstead.storage.mongodb.json_values import escaped, unescaped
from orgstead.storage.port import Table

Row = TypeVar("Row")
Document = dict[str, Any]

LOCK = "_lock"
"""The field that ``lock`` writes: two transactions that only read a document would not conflict."""

TABLE = "table"
"""The first field of ``_id`` where several tables share a collection."""

_NATIVE: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: Int64,
    Kind.BOOLEAN: bool,
    Kind.TIME: DatetimeMS,
}
"""From the codec's plain value to what BSON has for it; text and floats are what they are."""

_LOWEST: Mapping[Kind, Any] = {
    Kind.TEXT: "",
    Kind.INTEGER: Int64(-(2**63)),
    Kind.TIME: DatetimeMS(-(2**63)),
    Kind.REAL: float("-inf"),
    Kind.BOOLEAN: False,
}
"""The lowest value of each kind. Comparison is within a type, so that null is none of those above it."""


def native(column: Column, plain: Any) -> Any:
    """The BSON value of a column's plain value."""
    convert = _NATIVE.get(column.kind)
    return plain if plain is None or convert is None else convert(plain)


def all_of(conditions: Sequence[Document]) -> Document:
    """The filter that wants every one of these."""
    merged: Document = {}
    for condition in conditions:
        if merged.keys() & condition.keys():
            return {"$and": list(conditions)}
        merged.update(condition)
    return merged


class Layout(Generic[Row]):
    """How one table lies in a collection. ``shared`` says that other tables live in it, too."""

    def __init__(self, table: Table[Row], *, shared: bool) -> None:
        self.table = table
        self.codec: TableCodec[Row] = codec_of(table)
        self._mark: Document = {TABLE: table.name} if shared else {}
        self.embedded = shared or len(table.key) > 1
        self.paths = {column: self._path(column) for column in table.columns}
        self._fields = tuple((c, i) for i, c in enumerate(self.codec.columns) if c.name not in table.key)
        self._keys = tuple((c, table.columns.index(c.name)) for c in map(self.codec.by_name.__getitem__, table.key))
        self._setters = tuple(
            (table.model.__dict__[column.name].__set__, self._source(column.name), _decoder(column))
            for column in self.codec.columns
        )

    def _path(self, column: str) -> str:
        if column not in self.table.key:
            return column
        return f"_id.{column}" if self.embedded else "_id"

    def _source(self, column: str) -> str:
        return "_id" if column in self.table.key and not self.embedded else column

    # --- rows -------------------------------------------------------------------------------------------------------

    def document(self, row: Row) -> Document:
        """The document of ``row``; raises ``InvalidValue`` naming the columns."""
        return self._document(row, self.codec.encode(row))

    def replacement(self, row: Row) -> tuple[Document, Row]:
        """The document that replaces the stored one of ``row``, and the row that it is then: of the next version."""
        plain = self.codec.encode(row)
        if self.table.versioned:
            place = self.table.columns.index("version")
            plain[place] = int(plain[place] or 0) + 1
        return self._document(row, plain), self.codec.decode(plain)

    def _document(self, row: Row, plain: Sequence[Any]) -> Document:
        document: Document = {"_id": self._id([native(column, plain[place]) for column, place in self._keys])}
        for column, place in self._fields:
            value = plain[place]
            if column.kind is Kind.JSON and value is not None:
                document[column.name] = escaped(getattr(row, column.name))
            else:
                document[column.name] = native(column, value)
        return document

    def row(self, document: Document) -> Row:
        """The row of a document."""
        values = {**document["_id"], **document} if self.embedded else document
        row = object.__new__(self.table.model)
        for fill, source, decode in self._setters:
            value = values[source]
            fill(row, value if decode is None or value is None else decode(value))
        return row

    # --- keys -------------------------------------------------------------------------------------------------------

    def id(self, key: Sequence[Any]) -> Any:
        """The ``_id`` of these key values. Raises ``ValueError`` where they are not as many as the key's columns."""
        return self._id(self.natives(self.table.key, key))

    def from_natives(self, key: Sequence[Any]) -> Any:
        """The ``_id`` of these BSON values of the key's columns."""
        return self._id(key)

    def _id(self, natives: Sequence[Any]) -> Any:
        if not self.embedded:
            return natives[0]
        return {**self._mark, **dict(zip(self.table.key, natives, strict=True))}

    def natives(self, columns: Sequence[str], values: Sequence[Any]) -> list[Any]:
        """The BSON values of these columns. Raises ``ValueError`` where they are not as many."""
        if len(values) != len(columns):
            raise ValueError(f"Expected {len(columns)} values, for {', '.join(columns)} of {self.table.name}.")
        found = [self.codec.by_name[column] for column in columns]
        return [native(column, column.encode(value)) for column, value in zip(found, values, strict=True)]

    def comparable(self, column: str, value: Any) -> Any:
        """The BSON value that ``column`` is compared with. Raises ``ValueError`` for a wrong column."""
        return native(self.codec.column(column), self.codec.comparable(column, value))

    def prefix(self, equal: Mapping[str, Any]) -> Document:
        """The leading fields of ``_id`` that ``equal`` (BSON values by column) decides."""
        leading = dict(self._mark)
        for column in self.table.key:
            if column not in equal:
                break
            leading[column] = equal[column]
        return leading

    def range(self, leading: Document) -> Document:
        """The condition on ``_id`` of all documents whose ``_id`` begins with ``leading``."""
        order = (*self._mark, *self.table.key)
        return {"$gte": leading, "$lt": {**leading, order[len(leading)]: MaxKey()}}

    # --- conditions -------------------------------------------------------------------------------------------------

    def equal(self, values: Mapping[str, Any]) -> list[Document]:
        """The conditions that columns equal these BSON values, the range of ``_id`` that they are in included."""
        if all(column in values for column in self.table.key):
            rest = [column for column in values if column not in self.table.key]
            identity = {"_id": self._id([values[column] for column in self.table.key])}
            return [identity, *({self.paths[column]: values[column]} for column in rest)]
        conditions = [{self.paths[column]: value} for column, value in values.items()]
        if self.embedded and (leading := self.prefix(values)):
            conditions.append({"_id": self.range(leading)})
        return conditions

    # --- indexes ----------------------------------------------------------------------------------------------------

    def indexes(self) -> list[Document]:
        """What ``createIndexes`` is told: the declared unique constraints by our name, and the declared indexes."""
        wanted: list[Document] = []
        for name, columns in (self.table.unique or {}).items():
            index: Document = {"name": name, "key": self._index_key(columns), "unique": True}
            optional = [column for column in map(self.codec.by_name.__getitem__, columns) if column.nullable]
            if optional:
                # Not "$exists" nor "$type": the first lets null in, the second serves no query that asks for a value.
                index["partialFilterExpression"] = {self.paths[c.name]: {"$gte": _LOWEST[c.kind]} for c in optional}
            wanted.append(index)
        for columns in self.table.indexes:
            name = ".".join((self.table.name, *columns))
            wanted.append({"name": name, "key": self._index_key(columns)})
        return wanted

    def _index_key(self, columns: Sequence[str]) -> Document:
        marks = {f"_id.{mark}": 1 for mark in self._mark}
        return {**marks, **{self.paths[column]: 1 for column in columns}}

    def constraint(self, paths: Sequence[str], text: str) -> str:
        """Our name of the constraint that an index over ``paths`` stands for; ``text`` is the server's about it."""
        wanted = tuple(path for path in paths if path != f"_id.{TABLE}")
        for name, columns in (self.table.unique or {}).items():
            if wanted == tuple(self.paths[column] for column in columns) or (not wanted and f"index: {name} " in text):
                return name
        return self.table.key_constraint


def _decoder(column: Column) -> Callable[[Any], Any] | None:
    """What turns a BSON value into the row's; None where it is that value."""
    if column.kind is Kind.JSON:
        return unescaped
    return column.decode if column.kind is Kind.TEXT else None


@lru_cache(maxsize=256)
def layout_of(table: Table[Row], *, shared: bool = False) -> Layout[Row]:
    """The layout of a declared table."""
    return Layout(table, shared=shared)
