"""Rows as documents and back, and conditions over them, derived from the table declarations.

A document has a field for each column; None is kept as null. Its ``_id`` is the row's key. A key of one column is
``_id`` itself. A key of several is a text, the values in their declared order with a NUL between them, which no text of
ours contains: so it sorts as the values do, and an organization's documents are one range of the index that every
collection has anyway. Where several tables share a collection, ``_id`` begins with the table's name.
``docs/decisions/0018-documents-as-rows.md`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any, Generic, TypeVar

from bson import Int64
from bson.datetime_ms import DatetimeMS

from orgstead.storage import migrations
from orgstead.storage.codec import Column, Kind, TableCodec, codec_of
from orgstead.storage.mongodb.json_values import escaped, unescaped
from orgstead.storage.port import Table

Row = TypeVar("Row")
Document = dict[str, Any]

LOCK = "_lock"
"""The field that ``lock`` writes: two transactions that only read a document would not conflict."""

_BETWEEN, _BEYOND = "\0", "\1"
"""What stands between the values of a key, and what sorts right behind everything that begins with it."""

_NATIVE: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: Int64,
    Kind.BOOLEAN: bool,
    Kind.TIME: DatetimeMS,
}
"""From the codec's plain value to what BSON has for it; text and floats are what they are."""

_SHIFT = 2**63
_PARTS: Mapping[Kind, Callable[[Any], str]] = {Kind.TEXT: str, Kind.INTEGER: lambda value: f"{value + _SHIFT:016x}"}
"""A key's value as a part of ``_id`` that sorts as the value does: integers from 0000000000000000, the lowest."""

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
    """The filter that wants every one of these; a document among the conditions holds operators, never a value."""
    merged: Document = {}
    for condition in conditions:
        for path, wanted in condition.items():
            if path not in merged:
                merged[path] = wanted
                continue
            here, more = _operators(merged[path]), _operators(wanted)
            if path.startswith("$") or here.keys() & more.keys():
                return {"$and": list(conditions)}
            merged[path] = {**here, **more}
    return merged


def _operators(wanted: Any) -> Document:
    return wanted if isinstance(wanted, dict) else {"$eq": wanted}


class Layout(Generic[Row]):
    """How one table lies in a collection. ``shared`` says that other tables live in it, too."""

    def __init__(self, table: Table[Row], *, shared: bool) -> None:
        self.table = table
        self.codec: TableCodec[Row] = codec_of(table)
        self._mark = [table.name] if shared else []
        self.joined = shared or len(table.key) > 1
        self.paths = {column: self._path(column) for column in table.columns}
        places = {column: place for place, column in enumerate(table.columns)}
        self._fields = tuple((c, places[c.name]) for c in self.codec.columns if self.paths[c.name] == c.name)
        self._added = {column.name: column.default for column in migrations.added_to(table)}
        self._keys = tuple(map(self.codec.by_name.__getitem__, table.key))
        self._key_places = tuple(places[column] for column in table.key)
        self._setters = tuple(
            (table.model.__dict__[column.name].__set__, self.paths[column.name], _decoder(column))
            for column in self.codec.columns
        )
        if self.joined and any(column.kind not in _PARTS for column in self._keys):
            raise TypeError(f"The key of {table.name} has a column that no key can be made of.")

    def _path(self, column: str) -> str:
        return "_id" if column in self.table.key and not self.joined else column

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
        document: Document = {"_id": self.id_of([plain[place] for place in self._key_places])}
        for column, place in self._fields:
            value = plain[place]
            if column.kind is Kind.JSON and value is not None:
                document[column.name] = escaped(getattr(row, column.name))
            else:
                document[column.name] = native(column, value)
        return document

    def row(self, document: Document) -> Row:
        """The row of a document. What an earlier version wrote has the defaults of columns that were added since."""
        row = object.__new__(self.table.model)
        for fill, path, decode in self._setters:
            try:
                value = document[path]
            except KeyError:
                value = self._added[path]
            fill(row, value if decode is None or value is None else decode(value))
        return row

    # --- keys -------------------------------------------------------------------------------------------------------

    def id(self, key: Sequence[Any]) -> Any:
        """The ``_id`` of these values. Raises ``ValueError`` where they are not as many as the key's columns."""
        return self.id_of(self.codec.key(key))

    def id_of(self, plain: Sequence[Any]) -> Any:
        """The ``_id`` of these plain values of the key's columns."""
        if not self.joined:
            return native(self._keys[0], plain[0])
        return _BETWEEN.join(self._parts(plain))

    def _parts(self, plain: Sequence[Any]) -> list[str]:
        return [*self._mark, *(_PARTS[c.kind](value) for c, value in zip(self._keys, plain, strict=False))]

    def comparable(self, column: str, value: Any) -> Any:
        """The BSON value that ``column`` is compared with. Raises ``ValueError`` for a wrong column."""
        return native(self.codec.column(column), self.codec.comparable(column, value))

    def natives(self, columns: Sequence[str], plain: Sequence[Any]) -> Document:
        """The condition that columns equal these plain values."""
        by_name = self.codec.by_name
        return {self.paths[c]: native(by_name[c], value) for c, value in zip(columns, plain, strict=True)}

    def range(self, leading: Sequence[Any]) -> Document:
        """The condition on ``_id`` of the documents whose key begins with these plain values; empty for all of them."""
        parts = self._parts(leading)
        if not parts:
            return {}
        prefix = _BETWEEN.join(parts)
        return {"$gte": prefix + _BETWEEN, "$lt": prefix + _BEYOND}

    def between(self, beyond: Sequence[Any], within: Sequence[Any]) -> Document:
        """The condition on ``_id`` of what begins with ``within`` and sorts after all that begins with ``beyond``."""
        return {"$gte": self.range(beyond)["$lt"], "$lt": self.range(within)["$lt"]}

    # --- conditions -------------------------------------------------------------------------------------------------

    def equal(self, values: Mapping[str, Any], *, ranged: bool = True) -> list[Document]:
        """The conditions that columns equal these plain values.

        ``ranged`` adds the range of ``_id`` that the documents are in, where their values decide one.
        """
        key = self.table.key
        if all(column in values for column in key):
            rest = [column for column in values if column not in key]
            return [{"_id": self.id_of([values[c] for c in key])}, *({c: self.native(c, values[c])} for c in rest)]
        conditions = [{self.paths[column]: self.native(column, value)} for column, value in values.items()]
        if ranged and self.joined and (bounds := self.range(self.leading(values))):
            conditions.append({"_id": bounds})
        return conditions

    def leading(self, values: Mapping[str, Any]) -> list[Any]:
        """The plain values of as many leading columns of the key as ``values`` has."""
        return [values[column] for column in takewhile(values.__contains__, self.table.key)]

    def native(self, column: str, plain: Any) -> Any:
        return native(self.codec.by_name[column], plain)

    # --- indexes ----------------------------------------------------------------------------------------------------

    def indexes(self) -> list[Document]:
        """What ``createIndexes`` is told: the declared unique constraints by our name, and the declared indexes.

        Where other tables share the collection, an index holds the documents that have its first column.
        """
        if self._mark and self.table.unique:
            raise TypeError(f"{self.table.name} shares a collection, where only keys can be unique.")
        wanted: list[Document] = []
        for name, columns in (self.table.unique or {}).items():
            index: Document = {"name": name, "key": self._index_key(columns), "unique": True}
            optional = [column for column in map(self.codec.by_name.__getitem__, columns) if column.nullable]
            if optional:
                # Not "$exists" nor "$type": the first lets null in, the second serves no query that asks for a value.
                index["partialFilterExpression"] = {self.paths[c.name]: {"$gte": _LOWEST[c.kind]} for c in optional}
            wanted.append(index)
        for columns in self.table.indexes:
            index = {"name": ".".join((self.table.name, *columns)), "key": self._index_key(columns)}
            if self._mark:
                index["partialFilterExpression"] = {self.paths[columns[0]]: {"$exists": True}}
            wanted.append(index)
        return wanted

    def _index_key(self, columns: Sequence[str]) -> Document:
        return {self.paths[column]: 1 for column in columns}

    def constraint(self, paths: Sequence[str], text: str) -> str:
        """Our name of the constraint that an index over ``paths`` stands for; ``text`` is the server's about it."""
        for name, columns in (self.table.unique or {}).items():
            if tuple(paths) == tuple(self.paths[column] for column in columns):
                return name
            if not paths and f"index: {name} " in text:
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
