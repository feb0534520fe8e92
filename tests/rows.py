"""Valid rows of any declared table, made from its type hints.

A table that is declared tomorrow gets its rows, and with them its generated tests, without a line here.
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from orgstead.storage.port import Table
from orgstead.storage.tables import TABLES

Row = TypeVar("Row")

SCOPED_TABLES: tuple[Table[Any], ...] = tuple(table for table in TABLES if table.scope is not None)
"""The tables that get generated tests "of another organization"."""

UNSCOPED_TABLES: tuple[Table[Any], ...] = tuple(table for table in TABLES if table.scope is None)

MORNING = datetime(2026, 11, 23, 10, tzinfo=UTC)


def token(prefix: str = "x") -> str:
    """A text that no other test uses."""
    return f"{prefix}_{secrets.token_hex(10)}"


def org_id() -> str:
    """A fresh organization for one test."""
    return token("org")


@cache
def column_types(table: Table[Any]) -> dict[str, tuple[Any, bool]]:
    """For each column: its type without None, and whether it may be None."""
    hints = get_type_hints(table.model)
    return {column: _unwrap(hints[column]) for column in table.columns}


def _unwrap(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        inner = [part for part in get_args(hint) if part is not type(None)]
        assert len(inner) == 1, f"{hint}: a column has one type"
        return inner[0], True
    return hint, False


def columns_of(table: Table[Any], kind: type) -> list[str]:
    """The columns whose type is ``kind`` or a subclass of it (a bool is not an int here)."""
    return [name for name, (hint, _) in column_types(table).items() if isinstance(hint, type) and _is_kind(hint, kind)]


def _is_kind(hint: type, kind: type) -> bool:
    return issubclass(hint, kind) and (kind is not int or hint is not bool) and (kind is not str or hint is str)


def value(column: str, hint: Any) -> Any:
    """A value of the column's type that differs, nearly always, from the one made before."""
    if get_origin(hint) is dict:
        inner = get_args(hint)[1]
        return {token(column): value(column, str if inner is Any else inner)}
    if issubclass(hint, Enum):
        return secrets.choice(list(hint))
    if hint is bool:
        return secrets.choice((False, True))
    if hint is int:
        return secrets.randbelow(2**40) + 1000
    if hint is float:
        return secrets.randbelow(2**20) / 2**20
    if hint is datetime:
        return MORNING + timedelta(milliseconds=secrets.randbelow(10**10))
    assert hint is str, f"{column}: no sample for {hint}; teach tests/rows.py this type"
    return token(column)


def sample(table: Table[Row], org: str | None = None, *, sparse: bool = False, **given: Any) -> Row:
    """A valid row, of organization ``org`` where the table is scoped; ``sparse`` leaves None wherever it may be."""
    row: dict[str, Any] = {}
    for column, (hint, optional) in column_types(table).items():
        if column in given:
            row[column] = given[column]
        elif org is not None and column == (table.scope or "org_id"):
            row[column] = org
        elif column == "version":
            row[column] = 1
        else:
            row[column] = None if optional and sparse else value(column, hint)
    return table.model(**row)


def changed(table: Table[Row], row: Row) -> Row:
    """The same key, organization and version; every other column has another value."""
    fixed = {*table.key, table.scope, "version"}
    fresh = {
        column: _other(column, hint, getattr(row, column))
        for column, (hint, _) in column_types(table).items()
        if column not in fixed
    }
    return replace(row, **fresh)  # type: ignore[type-var]  # every model is a dataclass; Table cannot say so


def _other(column: str, hint: Any, old: Any) -> Any:
    while (new := value(column, hint)) == old:
        pass
    return new


def key_of(table: Table[Any], row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in table.key)


def key_where(table: Table[Any], row: Any) -> dict[str, Any]:
    return {column: getattr(row, column) for column in table.key}


def identities(table: Table[Any], row: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and values of the key's and of each unique constraint."""
    yield table.key_constraint, key_where(table, row)
    for name, columns in (table.unique or {}).items():
        yield name, {column: getattr(row, column) for column in columns}
