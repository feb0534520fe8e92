"""Rows as plain values and back: one codec for every declared table, shared by the engines.

A model's type hints decide how a column is kept: text, 64-bit integers, finite floats, booleans as 0 and 1, enums by
their value, times as milliseconds since 1970 in UTC, dictionaries as JSON text. What would not come back exactly as it
went in is refused with ``InvalidValue`` (promise 5 of the port).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from functools import cache, cached_property, lru_cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

from orgstead.errors import InvalidValue, Problem
from orgstead.model import MAX_JSON_DEPTH
from orgstead.storage.port import Table

Row = TypeVar("Row")
Plain = str | int | float | None
Encoder = Callable[[Any], Plain]
Decoder = Callable[[Any], Any]

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(Enum):
    """How an engine keeps a column."""

    TEXT = "text"
    INTEGER = "integer"
    REAL = "real"
    BOOLEAN = "boolean"
    TIME = "time"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. ``encode`` refuses None unless ``nullable``; both directions pass None on then."""

    name: str
    kind: Kind
    nullable: bool
    encode: Encoder
    decode: Decoder | None
    """None where the plain value is the value."""


class TableCodec(Generic[Row]):
    """Translates the rows of one table. Made once per table by ``codec_of``."""

    def __init__(self, table: Table[Row]) -> None:
        model = table.model
        if "__slots__" not in model.__dict__ or hasattr(model, "__post_init__"):
            raise TypeError(f"{model.__name__} must be a dataclass with slots and without __post_init__.")
        hints = get_type_hints(model)
        self.columns = tuple(_column(name, hints[name]) for name in table.columns)
        self.by_name = {column.name: column for column in self.columns}
        self._model = model
        self._key = table.key
        self._values: Callable[[Any], tuple[Any, ...]] = attrgetter(*table.columns)
        self._encode = _written_out(self.columns, [f"given.{name}" for name in table.columns])
        self._encoders: dict[tuple[str, ...], Callable[[Any], list[Plain]]] = {}
        self.decode: Callable[[Sequence[Any]], Row] = _read_back(model, self.columns)
        """The row of these plain values, in the order of ``table.columns``."""

    def encode(self, row: Row) -> list[Plain]:
        """The plain values of ``row`` in the order of ``table.columns``; raises ``InvalidValue`` naming the columns."""
        try:
            return self._encode(row)
        except InvalidValue as error:
            raise self._explained(self._values(row)) from error

    @cached_property
    def recall(self) -> Callable[[tuple[Any, ...]], Row]:
        """``decode`` for a table that is read again and again: equal values give the same row, made once.

        Never stale, because the values just read are the memory's key. Raises ``TypeError`` for a table with JSON,
        whose dictionaries could be changed by whoever got the row.
        """
        if any(column.kind is Kind.JSON for column in self.columns):
            raise TypeError(f"Rows of {self._model.__name__} can be changed, so they cannot be shared.")
        return lru_cache(maxsize=4096)(self.decode)

    def key(self, values: Sequence[Any]) -> list[Plain]:
        """``plain`` of the key's columns."""
        return self.plain(self._key, values)

    def plain(self, columns: tuple[str, ...], values: Sequence[Any]) -> list[Plain]:
        """The plain values of these columns. Raises ``ValueError`` where they are not as many, and ``InvalidValue``."""
        if len(values) != len(columns):
            raise ValueError(f"Expected {len(columns)} values of {self._model.__name__}, for {', '.join(columns)}.")
        encode = self._encoders.get(columns)
        if encode is None:
            found = [self.by_name[column] for column in columns]
            encode = self._encoders[columns] = _written_out(found, [f"given[{n}]" for n in range(len(found))])
        return encode(values)

    def comparable(self, column: str, value: Any) -> Plain:
        """The plain value that ``column`` is compared with; None for None. Raises ``ValueError`` for a wrong column."""
        found = self.column(column)
        return None if value is None else found.encode(value)

    def column(self, name: str) -> Column:
        """The column ``name``, which values can be compared, sorted and grouped by; else ``ValueError``."""
        found = self.by_name.get(name)
        if found is None or found.kind is Kind.JSON:
            raise ValueError(f"{self._model.__name__} has no column {name} that can be compared.")
        return found

    def integer(self, column: str, value: int) -> int:
        """``value`` as a difference or bound of an integer column. Raises ``ValueError`` for a wrong column."""
        self.check_is_integer(column)
        return integer(value)

    def check_is_integer(self, column: str) -> None:
        """Raise ``ValueError`` unless ``column`` is an integer column."""
        if self.column(column).kind is not Kind.INTEGER:
            raise ValueError(f"{self._model.__name__} has no integer column {column}.")

    def canonical(self, values: Sequence[Any]) -> bytes:
        """The bytes that stand for a row, given its plain values, on every engine: the input of ``digest``."""
        plain = [
            orjson.loads(value) if column.kind is Kind.JSON and value is not None else value
            for column, value in zip(self.columns, values, strict=True)
        ]
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)

    def _explained(self, values: tuple[Any, ...]) -> InvalidValue:
        problems = []
        for column, value in zip(self.columns, values, strict=True):
            try:
                column.encode(value)
            except InvalidValue as error:
                problems.append(Problem(f"/{column.name}", InvalidValue.code, error.detail))
        return InvalidValue(problems=problems)


@cache
def codec_of(table: Table[Row]) -> TableCodec[Row]:
    """The codec of a declared table."""
    return TableCodec(table)


_AT_ONCE = {
    Kind.TEXT: "type(v) is str and v.isascii() and NUL not in v",
    Kind.INTEGER: "type(v) is int and INT_MIN <= v <= INT_MAX",
}
"""What is true of the values that need no encoding: nearly all of them."""


def _written_out(columns: Sequence[Column], values: Sequence[str]) -> Callable[[Any], list[Plain]]:
    """A function that encodes the values of these columns, made the way dataclasses make theirs. ``values`` are the
    expressions for them, in terms of what the function is ``given``.

    It looks at the usual values in place and calls a column's ``encode`` for the others, which takes a third of the
    time of calling it for each: encoding is most of what a bulk import does in Python.
    """
    namespace: dict[str, Any] = {"INT_MIN": INT_MIN, "INT_MAX": INT_MAX, "NUL": "\0"}
    lines = ["def encode(given):"]
    for number, (column, value) in enumerate(zip(columns, values, strict=True)):
        namespace[f"encode_{number}"] = column.encode
        tests = ["v is None"] if column.nullable else []
        if column.decode is None and column.kind in _AT_ONCE:
            tests.append(_AT_ONCE[column.kind])
        lines.append(f"    v = {value}")
        otherwise = f"encode_{number}(v)"
        lines.append(
            f"    v{number} = v if {' or '.join(tests)} else {otherwise}" if tests else f"    v{number} = {otherwise}"
        )
    lines.append(f"    return [{', '.join(f'v{number}' for number in range(len(columns)))}]")
    exec("\n".join(lines), namespace)  # noqa: S102  # text made of the declared names of columns only
    encode: Callable[[Any], list[Plain]] = namespace["encode"]
    return encode


def _read_back(model: type[Row], columns: Sequence[Column]) -> Callable[[Sequence[Any]], Row]:
    """The reverse of ``_written_out``, made the same way.

    Filling the slots directly takes half the time of calling a frozen dataclass's ``__init__`` by keyword, and half of
    that again when it is written out.
    """
    namespace: dict[str, Any] = {"new": object.__new__, "model": model}
    names = [f"v{number}" for number in range(len(columns))]
    lines = ["def decode(values):", f"    {', '.join(names)}, = values", "    row = new(model)"]
    for number, column in enumerate(columns):
        namespace[f"fill_{number}"] = model.__dict__[column.name].__set__
        value = f"v{number}"
        if column.decode is not None:
            namespace[f"decode_{number}"] = column.decode
            value = f"decode_{number}(v{number})"
            value = f"None if v{number} is None else {value}" if column.nullable else value
        lines.append(f"    fill_{number}(row, {value})")
    lines.append("    return row")
    exec("\n".join(lines), namespace)  # noqa: S102  # text made of the number of columns only
    decode: Callable[[Sequence[Any]], Row] = namespace["decode"]
    return decode


# --- a column from its type hint ------------------------------------------------------------------------------------


def _column(name: str, hint: Any) -> Column:
    nullable = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
    if nullable:
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    kind, encode, decode = _conversion(name, hint)
    return Column(name, kind, nullable, _nullable(encode) if nullable else encode, decode)


def _conversion(name: str, hint: Any) -> tuple[Kind, Encoder, Decoder | None]:
    if hint is str:
        return Kind.TEXT, _text, None
    if hint is bool:
        return Kind.BOOLEAN, _boolean, bool
    if hint is int:
        return Kind.INTEGER, integer, None
    if hint is float:
        return Kind.REAL, _real, None
    if hint is datetime:
        return Kind.TIME, _milliseconds, _moment
    if get_origin(hint) is dict and get_args(hint)[0] is str:
        return Kind.JSON, _json, orjson.loads
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        members = {member.value: member for member in hint}
        return Kind.TEXT, _enum(hint), members.__getitem__
    raise TypeError(f"The column {name} has a type that no engine can keep.")


def _nullable(encode: Encoder) -> Encoder:
    def encode_or_none(value: Any) -> Plain:
        return None if value is None else encode(value)

    return encode_or_none


def _enum(kind: type[StrEnum]) -> Encoder:
    def encode(value: Any) -> str:
        if not isinstance(value, kind):
            raise InvalidValue("The value is not one of those that the column allows.")
        return value.value

    return encode


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidValue("The value must be text.")
    if "\0" in value:
        raise InvalidValue("Text must not contain the character NUL.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValue("Text must be valid Unicode, without lone surrogates.") from None
    return value if type(value) is str else str.__str__(value)


def storable(text: str) -> str | None:
    """The text, None where no row can have it: what is looked for need not be what could be written."""
    if text.isascii() and "\0" not in text:
        return text
    try:
        return _text(text)
    except InvalidValue:
        return None


def _boolean(value: Any) -> int:
    if value is True:
        return 1
    if value is False:
        return 0
    raise InvalidValue("The value must be true or false.")


def integer(value: Any) -> int:
    """``value``, which must be an integer of 64 bits. Raises ``InvalidValue``."""
    if type(value) is not int:
        raise InvalidValue("The value must be an integer.")
    if not INT_MIN <= value <= INT_MAX:
        raise InvalidValue("An integer must fit into 64 bits.")
    return value


def _real(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise InvalidValue("The value must be a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value or not math.isfinite(number):
        raise InvalidValue("A number must be finite and exact as a 64-bit float.")
    return number + 0.0  # engines do not keep the sign of zero


_latest: Final[list[tuple[object, int]]] = [(_EPOCH, 0)]
"""The time that was encoded last, and what it is: what is written together happened at one time, the same object."""


def _milliseconds(value: Any) -> int:
    known, milliseconds = _latest[0]
    if value is known:
        return milliseconds
    if not isinstance(value, datetime):
        raise InvalidValue("The value must be a time.")
    if value.tzinfo is not UTC and value.utcoffset() != timedelta(0):
        raise InvalidValue("A time must be in UTC.")
    passed = value - _EPOCH
    if passed.microseconds % 1000:
        raise InvalidValue("A time must be in whole milliseconds.")
    milliseconds = (passed.days * 86_400 + passed.seconds) * 1000 + passed.microseconds // 1000
    _latest[0] = value, milliseconds
    return milliseconds


@lru_cache(maxsize=8192)
def _moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _json(value: Any) -> str:
    if type(value) is not dict:
        raise InvalidValue("The value must be a JSON object.")
    if not value:
        return "{}"
    _check_json(value, 1)
    return orjson.dumps(value).decode()


def _check_json(container: dict[Any, Any] | list[Any], depth: int) -> None:
    """Refuse what JSON or one of the engines would lose. Exact types: a subclass would not come back as itself."""
    if depth > MAX_JSON_DEPTH:
        raise InvalidValue(f"JSON must not be nested deeper than {MAX_JSON_DEPTH} levels.")
    items: Iterable[Any] = container
    if type(container) is dict:
        items = container.values()
        for key in container:
            if type(key) is not str:
                raise InvalidValue("The keys of a JSON object must be text.")
            if not key.isascii() or "\0" in key:
                _text(key)
    for item in items:
        kind = type(item)
        if kind is str:
            if not item.isascii() or "\0" in item:
                _text(item)
        elif kind is int:
            integer(item)
        elif kind is dict or kind is list:
            _check_json(item, depth + 1)
        elif kind is float:
            if not math.isfinite(item):
                raise InvalidValue("Numbers in JSON must be finite.")
        elif item is not None and kind is not bool:
            raise InvalidValue("The value has a type that JSON does not know.")
