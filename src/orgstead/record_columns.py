"""The columns of a collection as a table: which members its records have, and of which type the values of each are.

Both are only known when every record was seen, so a table is written in two passes over one snapshot: the first learns
the columns, the second writes the rows. Formats differ in how they write values, and agree on all that is here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

from orgstead.model import Record

MAX_COLUMNS: Final = 1000
"""Members that have a column of their own; a collection with more has its data in one."""

ID_COLUMN: Final = "id"
"""The first column of every table."""

DATA_COLUMN: Final = "data"
"""The column of all data, where members have none of their own; otherwise, with a dot, in front of some names."""


class ColumnType(StrEnum):
    """What all values of a column are, apart from null; columns of imports are called the same."""

    TEXT = "text"
    INTEGER = "integer"
    """Within 64 bits."""
    NUMBER = "number"
    """Doubles, among them integers that a double holds exactly."""
    BOOLEAN = "boolean"
    JSON = "json"
    """Lists, objects, or values of several types."""


_EXACT, _INTEGER, _FRACTION, _TEXT, _BOOLEAN, _OTHER = (1 << bit for bit in range(6))
_BITS = {float: _FRACTION, str: _TEXT, bool: _BOOLEAN, type(None): 0}
_TYPES = {
    0: ColumnType.TEXT,
    _TEXT: ColumnType.TEXT,
    _BOOLEAN: ColumnType.BOOLEAN,
    _EXACT: ColumnType.INTEGER,
    _INTEGER: ColumnType.INTEGER,
    _EXACT | _INTEGER: ColumnType.INTEGER,
    _FRACTION: ColumnType.NUMBER,
    _EXACT | _FRACTION: ColumnType.NUMBER,
}
"""Kinds of values seen -> the type of the column; every other mixture is JSON."""


def _kind(value: Any) -> int:
    if type(value) is int:
        if -(2**53) <= value <= 2**53:
            return _EXACT
        return _INTEGER if -(2**63) <= value < 2**63 else _OTHER
    return _BITS.get(type(value), _OTHER)


class Columns:
    """Learns the columns of the records that it is shown, and how much there is of them."""

    def __init__(self) -> None:
        self._kinds: dict[str, int] = {}
        self.records = 0
        self.bytes = 0

    def note(self, records: Iterable[Record]) -> None:
        """Look at these records; of more members than can have columns only a few are remembered."""
        kinds = self._kinds
        for record in records:
            self.records += 1
            self.bytes += record.bytes
            if len(kinds) <= MAX_COLUMNS:
                for name, value in record.data.items():
                    kinds[name] = kinds.get(name, 0) | _kind(value)

    @property
    def members(self) -> list[str] | None:
        """The members that get columns, in the order in which they were first seen; None where there are too many."""
        return list(self._kinds) if len(self._kinds) <= MAX_COLUMNS else None

    def type_of(self, member: str) -> ColumnType:
        """The type of a member's values; text where all of them are null."""
        return _TYPES.get(self._kinds[member], ColumnType.JSON)


def titles(own: Sequence[str], members: Sequence[str] | None) -> list[str]:
    """What the columns are called: the table's own, then the members, or the one of all data. No two are the same.

    A member with the name of an own column is called ``data.id``; and so that this stays the only one, a member that is
    called ``data.id`` itself is called ``data.data.id``.
    """
    if members is None:
        return [*own, DATA_COLUMN]
    return [*own, *(f"{DATA_COLUMN}.{name}" if _collides(name, own) else name for name in members)]


def _collides(name: str, own: Collection[str]) -> bool:
    while name not in own and name.startswith(f"{DATA_COLUMN}."):
        name = name.removeprefix(f"{DATA_COLUMN}.")
    return name in own
