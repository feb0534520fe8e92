"""What a collection's definition may say: its schema, its indexes, its unique fields; and reading it back.

    {"schema": {…}, "indexes": [["city"], ["city", "-price"], ["tags[]"]], "unique": [["sku"]]}

A unique constraint is an index, too. In ``Collection.indexes`` each has a number that is never given twice, and a
state: ``ready``; ``building`` while records that were there before still lack entries; ``dropping`` while entries are
still being removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import orjson

from orgstead import json_schemas
from orgstead.errors import Problem
from orgstead.field_paths import ID
from orgstead.index_keys import Index, IndexField
from orgstead.model import Collection, Json
from orgstead.record_errors import InvalidDefinition, InvalidQuery

MAX_INDEXES: Final = 16
"""Indexes and unique constraints of a collection together."""

MAX_FIELDS: Final = 4

READY, BUILDING, DROPPING = "ready", "building", "dropping"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

Fields = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition that was read well: the text of its schema, and the fields of each index -> whether it is unique."""

    schema: str | None
    indexes: Mapping[Fields, bool]

    def to_json(self) -> dict[str, Json]:
        """What ``from_json`` makes the same definition of."""
        return {"schema": self.schema, "indexes": [[list(fields), unique] for fields, unique in self.indexes.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Definition:
        """The definition that ``to_json`` was asked of."""
        return cls(value["schema"], {tuple(fields): unique for fields, unique in value["indexes"]})


EMPTY: Final = Definition(None, {})
"""What a collection is that nobody has defined: any object is a record of it."""


def is_name(name: str) -> bool:
    """Can a collection have this name?"""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """The name, if a collection can have it. Raises ``InvalidDefinition``."""
    if not is_name(name):
        raise InvalidDefinition("A collection's name is 1 to 63 of a-z, 0-9 and underscore, and begins with a letter.")
    return name


def parse(schema: Json = None, indexes: Any = (), unique: Any = ()) -> Definition:
    """Read a definition as a client writes it. Raises ``InvalidDefinition`` naming the place."""
    text = None if schema is None else json_schemas.checked(schema)
    found: dict[Fields, bool] = {}
    for word, lists in (("indexes", indexes), ("unique", unique)):
        if not isinstance(lists, Sequence) or isinstance(lists, str):
            raise _wrong(f"/{word}", "This takes a list of lists of fields.")
        for place, names in enumerate(lists):
            fields = _fields(names, f"/{word}/{place}", unique=word == "unique")
            found[fields] = word == "unique"
    if len(found) > MAX_INDEXES:
        raise _wrong("/indexes", f"A collection has at most {MAX_INDEXES} indexes, unique fields included.")
    return Definition(text, found)


def _fields(names: Any, at: str, *, unique: bool) -> Fields:
    if not isinstance(names, Sequence) or isinstance(names, str) or not 1 <= len(names) <= MAX_FIELDS:
        raise _wrong(at, f"An index has 1 to {MAX_FIELDS} fields.")
    fields: list[IndexField] = []
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise _wrong(f"{at}/{place}", "A field's name is text.")
        try:
            fields.append(index_field(name))
        except InvalidQuery as error:
            raise _wrong(f"{at}/{place}", error.detail) from None
        if fields[-1].path == ID:
            raise _wrong(f"{at}/{place}", "Ids need no index; a member of the data that is called id is /id.")
    if len({field.path for field in fields}) < len(fields):
        raise _wrong(at, "An index names a field once.")
    if sum(field.each for field in fields) > (0 if unique else 1):
        raise _wrong(at, "An index has elements ([]) of one array at most, a unique one of none.")
    return tuple(field.name for field in fields)


def _wrong(at: str, detail: str) -> InvalidDefinition:
    return InvalidDefinition(detail, problems=[Problem(at, InvalidDefinition.code, detail)])


# --- reading a collection ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def index_field(name: str) -> IndexField:
    """``IndexField.parse``, remembered."""
    return IndexField.parse(name)


def indexes_of(collection: Collection) -> tuple[Index, ...]:
    """The indexes that every write keeps up, whether they are ready for queries or still being built."""
    return tuple(
        Index(int(number), tuple(map(index_field, index["fields"])), index["unique"], index["state"] == READY)
        for number, index in collection.indexes.items()
        if index["state"] != DROPPING
    )


def numbers_in(collection: Collection, state: str) -> list[int]:
    """The numbers of the collection's indexes in this state."""
    return [int(number) for number, index in collection.indexes.items() if index["state"] == state]


def schemas_of(collection: Collection) -> Iterator[str]:
    """The schemas that every write must satisfy: the one in force, and the one that is to follow it."""
    if collection.schema is not None:
        yield collection.schema
    following = collection.pending.get("schema")
    if following is not None and following != collection.schema:
        yield following


def definition_of(collection: Collection) -> Definition:
    """The definition in force."""
    ready = [index for index in collection.indexes.values() if index["state"] == READY]
    return Definition(collection.schema, {tuple(index["fields"]): index["unique"] for index in ready})


def shown(collection: Collection) -> dict[str, Json]:
    """The definition in force as a client writes it."""
    definition = definition_of(collection)
    return {
        "schema": None if definition.schema is None else orjson.loads(definition.schema),
        "indexes": [list(fields) for fields, unique in definition.indexes.items() if not unique],
        "unique": [list(fields) for fields, unique in definition.indexes.items() if unique],
    }


def violations(collection: Collection, record_id: str, data: Mapping[str, Any], code: str) -> list[Problem]:
    """What in ``data`` the collection's schemas do not allow."""
    return [p for schema in schemas_of(collection) for p in json_schemas.problems_of(schema, data, code)]


# --- changing a collection --------------------------------------------------------------------------------------------


def announced(collection: Collection, wanted: Definition, operation: str | None = None) -> Collection:
    """The collection with the change begun: new indexes are building, and writes satisfy the new schema, too."""
    indexes, number = dict(collection.indexes), collection.next_index
    there = definition_of(collection).indexes
    for fields, unique in wanted.indexes.items():
        if there.get(fields) != unique:
            indexes[str(number)] = {"fields": list(fields), "unique": unique, "state": BUILDING}
            number += 1
    pending = {**wanted.to_json(), "operation": operation, "after": ""}
    return replace(collection, indexes=indexes, next_index=number, pending=pending)


def settled(collection: Collection, *, applied: bool) -> Collection:
    """The collection with the change that was announced in force or, where not ``applied``, given up.

    Indexes that are in the way of the new definition, or belong to the one that was given up, are dropping.
    """
    if not collection.pending:
        return collection
    wanted = Definition.from_json(collection.pending)
    indexes: dict[str, Json] = {}
    for number, index in collection.indexes.items():
        state = index["state"]
        if state == BUILDING:
            state = READY if applied else DROPPING
        elif state == READY and applied and wanted.indexes.get(tuple(index["fields"])) != index["unique"]:
            state = DROPPING
        indexes[number] = {**index, "state": state}
    schema = wanted.schema if applied else collection.schema
    return replace(collection, schema=schema, indexes=indexes, pending={})


def forgotten(collection: Collection, numbers: Sequence[int]) -> Collection:
    """The collection without the indexes of these numbers."""
    return replace(collection, indexes={n: index for n, index in collection.indexes.items() if int(n) not in numbers})
