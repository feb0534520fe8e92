"""Keys of indexes: texts that sort, by code point, as the values they stand for.

Values are ordered by type (missing < null < false < true < numbers < text < arrays < objects), then by value: numbers
exactly as numbers, whether integer or float, text by code point. Arrays are not ordered among each other, nor are
objects. ``order_key`` is that order as Python sees it, the reference that the keys are tested against.

The key of an entry is its values' components, one after the other, and a tie: the record's id, or one constant where
the index is unique, so that the engine itself refuses a second record. A descending component, and the id behind it,
is spelt with inverted digits. No component begins another, and everything that can follow one sorts before ``HIGH``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orgstead import field_paths
from orgstead.errors import Problem
from orgstead.field_paths import ID, MISSING, Ordered, Path
from orgstead.record_errors import InvalidRecord

HIGH: Final = "\x7f"
"""Sorts after everything that can follow a component."""

MAX_TEXT: Final = 500
"""Bytes (UTF-8) of a text that is indexed."""

MAX_KEY: Final = 1500
"""Bytes of an entry's components: engines bound the rows of their indexes, one at 2,700 bytes."""

MAX_ELEMENTS: Final = 100
"""Different elements of an array that is indexed by element."""

CLAIM: Final = "!"
"""What the key of a claim ends with: an entry in a unique index that no other record may have."""

_ASCENDING_END: Final = "\x01"
_DESCENDING_END: Final = "~"
_ESCAPES = {1: "\x02\x03", 2: "\x02\x04"}
_UNESCAPES = {"\x02\x03": "\x01", "\x02\x04": "\x02"}
_HEX = "0123456789abcdef"
_INVERTED = str.maketrans(_HEX, _HEX[::-1])
_INVERTED_BYTES = bytes(255 - byte for byte in range(256))
_SIGN = 1 << 63
_ALL = (1 << 64) - 1

Scalar = str | int | float | bool | None


# --- the order of values ----------------------------------------------------------------------------------------------


def order_key(value: Any) -> tuple[Any, ...]:
    """What Python compares values by, in the order of types and values; equal for equal values only of scalars."""
    kind = type(value)
    if kind is str:
        return (5, value)
    if kind is int or kind is float:
        return (4, value)
    if kind is bool:
        return (3,) if value else (2,)
    if value is None:
        return (1,)
    if value is MISSING:
        return (0,)
    return (6,) if kind is list else (7,)


def rank_of(value: Any) -> str:
    """The first character of the value's component: its type."""
    return str(order_key(value)[0])


def component(value: Any) -> str:
    """The ascending component of a value."""
    kind = type(value)
    if kind is str:
        return f"5{escaped(value)}{_ASCENDING_END}"
    if kind is int or kind is float:
        return "4" + _number(value)
    return rank_of(value)


def escaped(text: str) -> str:
    """``text`` without the characters that have a meaning in keys, in the same order."""
    return text.translate(_ESCAPES) if "\x01" in text or "\x02" in text else text


def _number(value: int | float) -> str:
    """Sixteen digits for the nearest float, in the order of floats, and three for how far an integer is from it."""
    nearest = float(value) + 0.0  # never the negative zero
    (bits,) = struct.unpack(">Q", struct.pack(">d", nearest))
    rest = value - int(nearest) if type(value) is int else 0
    return f"{bits ^ _ALL if bits & _SIGN else bits | _SIGN:016x}{rest + 1024:03x}"


def inverted(part: str) -> str:
    """The descending component for an ascending one."""
    rank = str(9 - int(part[0]))
    if part[0] == "5":
        text = part[1:-1]
        if "\x02" in text:
            for escape, character in _UNESCAPES.items():
                text = text.replace(escape, character)
        return rank + inverted_text(text) + _DESCENDING_END
    return rank + part[1:].translate(_INVERTED)


def inverted_text(text: str) -> str:
    """Digits that sort the other way round than ``text``; those of a longer text begin with those of a shorter."""
    return text.encode().translate(_INVERTED_BYTES).hex()


# --- indexes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexField:
    """A field of an index. ``each`` stands for the elements of an array: one entry for each that differs."""

    path: Path
    down: bool = False
    each: bool = False

    @classmethod
    def parse(cls, name: str) -> IndexField:
        """``tags[]`` is each element of tags, ``-price`` price descending. Raises ``InvalidQuery``."""
        each = name.endswith("[]")
        ordered = Ordered.parse(name.removesuffix("[]"))
        return cls(ordered.path, ordered.down, each)

    @property
    def name(self) -> str:
        return Ordered(self.path, self.down).name + "[]" * self.each


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a collection: its number there, its fields, and whether values must differ between records.

    ``ready`` says that it has an entry for every record, so that queries may use it.
    """

    number: int
    fields: tuple[IndexField, ...]
    unique: bool = False
    ready: bool = True

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    @property
    def down(self) -> bool:
        """Do ids follow in descending order where everything else is equal? As the last field does."""
        return self.fields[-1].down


def tie(record_id: str, *, down: bool) -> str:
    """What the key of a record ends with where its values may be another record's, too."""
    return inverted_text(record_id) + _DESCENDING_END if down else record_id


def is_claim(key: str) -> bool:
    """Is it the key of an entry in a unique index that no other record may have?"""
    return key.endswith(CLAIM)


def keys_of(index: Index, record_id: str, data: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a record's entries in an index: one, or one for each different element of an array.

    Raises ``InvalidRecord``, naming the place, for what cannot be indexed.
    """
    parts: list[Sequence[str]] = []
    exempt = not index.unique
    for field in index.fields:
        value = record_id if field.path == ID else field_paths.value_at(data, field.path)
        if field.each:
            parts.append(_elements(field, value))
            continue
        if index.unique:
            exempt = exempt or value is None or value is MISSING
            if type(value) in (list, dict):
                raise _refused(field.path, "A unique field must be text, a number, true, false or null.")
        part = _checked(field, value)
        parts.append([inverted(part) if field.down else part])
    ending = tie(record_id, down=index.down) if exempt else CLAIM
    heads = [""]
    for choices in parts:
        heads = [head + choice for head in heads for choice in choices]
    for head in heads:
        if len(head) > MAX_KEY // 4 and len(head.encode()) > MAX_KEY:
            raise _refused(index.fields[0].path, f"The values of an index's fields must not exceed {MAX_KEY} bytes.")
        yield head + ending


def _elements(field: IndexField, value: Any) -> list[str]:
    if type(value) is not list:
        return []
    parts = sorted({_checked(field, element) for element in value})
    if len(parts) > MAX_ELEMENTS:
        detail = f"An array that is indexed by element has at most {MAX_ELEMENTS} different ones."
        raise _refused(field.path, detail)
    return [inverted(part) for part in parts] if field.down else parts


def _checked(field: IndexField, value: Any) -> str:
    if type(value) is str and len(value) * 4 > MAX_TEXT and len(value.encode()) > MAX_TEXT:
        raise _refused(field.path, f"Text in an indexed field must not exceed {MAX_TEXT} bytes.")
    return component(value)


def _refused(path: Path, detail: str) -> InvalidRecord:
    return InvalidRecord(problems=[Problem(field_paths.pointer(("data", *path)), InvalidRecord.code, detail)])


# --- ranges of keys ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys strictly between two texts, neither of which is a key itself."""

    low: str
    high: str


def at(head: str, value: Any, *, down: bool) -> str:
    """``head`` and the component of ``value``: where the keys with that value begin."""
    part = component(value)
    return head + (inverted(part) if down else part)


def everything(head: str) -> KeyRange:
    """The keys that begin with ``head``."""
    return KeyRange(head, head + HIGH)


def present(head: str, *, down: bool) -> KeyRange:
    """The keys whose next value is not missing, which as the lowest comes first, or last where descending."""
    return KeyRange(head, head + "9") if down else KeyRange(head + "1", head + HIGH)


def between(
    head: str,
    *,
    down: bool,
    rank: str,
    above: tuple[Scalar, bool] | None = None,
    below: tuple[Scalar, bool] | None = None,
) -> KeyRange:
    """The keys whose next value is of the type ``rank`` and within bounds, each a value and whether it is included."""
    first, last = (below, above) if down else (above, below)
    begin = head + (str(9 - int(rank)) if down else rank)
    low, high = begin, head + str(int(begin[-1]) + 1)
    if first is not None:
        low = at(head, first[0], down=down) + ("" if first[1] else HIGH)
    if last is not None:
        high = at(head, last[0], down=down) + (HIGH if last[1] else "")
    return KeyRange(low, high)


def beginning(head: str, text: str, *, down: bool) -> KeyRange:
    """The keys whose next value is text that begins with ``text``."""
    if down:
        low = f"{head}4{inverted_text(text)}"
        return KeyRange(low, low + HIGH)
    low = f"{head}5{escaped(text)}"
    return KeyRange(low, _above_all(low, len(head) + 1))


def _above_all(text: str, fixed: int) -> str:
    """The lowest text above all that begin with ``text``, whose first ``fixed`` characters have something above."""
    for place in range(len(text) - 1, fixed - 1, -1):
        code = ord(text[place]) + 1
        if code <= 0x10FFFF:
            return text[:place] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    return text[: fixed - 1] + chr(ord(text[fixed - 1]) + 1)
