"""Reading records for an import: CSV, JSON Lines, or JSON Lines as ``orgstead record export`` writes them.

What a cell of CSV becomes follows from the type of its column: what ``--types`` says, or else what the collection's
schema says where it knows one simple type, or else text. An empty cell is no member at all. JSON says its types itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TextIO

import orjson

from orgstead.cli import lines
from orgstead.cli.errors import UsageError
from orgstead.errors import MalformedRequest
from orgstead.model import MAX_JSON_DEPTH, Json
from orgstead.record_import import Line
from orgstead.record_import_many import Addressed

RECORDS: Final = "records"
FORMATS: Final = (lines.CSV, lines.JSON_LINES, RECORDS)

_INTEGERS = range(-(2**63), 2**63)


def _integer(text: str) -> int:
    number = int(text)
    if number not in _INTEGERS or not text.isascii() or "_" in text:
        raise ValueError
    return number


def _number(text: str) -> int | float:
    """An integer where the text is one, so that nothing is lost; otherwise a float."""
    if text.lstrip("+-").isdigit():
        return _integer(text)
    number = float(text)
    if not math.isfinite(number) or not text.isascii() or "_" in text:
        raise ValueError
    return number


def _boolean(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _json(text: str) -> Json:
    return lines.json_of(text, what="cell", levels=MAX_JSON_DEPTH - 1)  # the record around it is one


TYPES: Final[Mapping[str, Callable[[str], Json]]] = {
    "text": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _json,
}
"""The types of columns -> what makes the value of a cell that is not empty."""

_OF_SCHEMA = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
_OF_SCHEMA |= {"array": "json", "object": "json"}


def types_of(text: str | None) -> dict[str, str]:
    """The types that ``quantity=integer,price=number`` gives to columns. Raises ``UsageError``."""
    types: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        column, _, kind = part.strip().rpartition("=")
        if not column or kind not in TYPES or column in types:
            raise UsageError(
                "--types names each column once, with its type.",
                next=f"use --types COLUMN=TYPE,…; the types are {', '.join(TYPES)}",
            )
        types[column] = kind
    return types


def types_in_schema(schema: str | None) -> dict[str, str]:
    """The types that a collection's schema gives to members of its records, where it names one simple type."""
    parsed = orjson.loads(schema) if schema else None
    properties = parsed.get("properties") if isinstance(parsed, dict) else None
    found: dict[str, str] = {}
    for name, rule in properties.items() if isinstance(properties, dict) else ():
        kinds = rule.get("type") if isinstance(rule, dict) else None
        kinds = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
        if len(kinds) == 1 and kinds[0] in _OF_SCHEMA:
            found[name] = _OF_SCHEMA[kinds[0]]
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    """How lines become records. The columns of the id and of the organization are no members of the data.

    The columns of ``types`` must be there; those that only the schema has need not be.
    """

    format: str
    id_column: str | None = None
    org_column: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    schema_types: Mapping[str, str] = field(default_factory=dict)


def read(stream: TextIO, how: Reading) -> Iterator[Addressed]:
    """The lines of the stream. Raises ``UsageError`` at once where the first line of CSV is of no use."""
    if how.format == lines.CSV:
        return _csv(stream, how)
    return _json_lines(stream, how)


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csv(stream: TextIO, how: Reading) -> Iterator[Addressed]:
    required = [column for column in (how.id_column, how.org_column) if column]
    header = lines.header_of(stream, required, next="name the columns in the first line, as --id-column does")
    named = {*required, *how.types}
    if missing := sorted(named - set(header)):
        raise UsageError(
            f"Options name what is no column of the first line: {lines.named(missing)}.",
            next=f"name columns that it has: {lines.named(header)}",
        )
    return _csv_lines(stream, header, how)


def _csv_lines(stream: TextIO, header: list[str], how: Reading) -> Iterator[Addressed]:
    kinds = {**how.schema_types, **how.types}
    plans = [
        (column, TYPES[kinds.get(column, "text")]) for column in header if column not in (how.id_column, how.org_column)
    ]
    for row in lines.csv_rows(stream, header):
        if row.unreadable is not None:
            yield Addressed("", Line(row.number, None, unreadable=row.unreadable))
            continue
        fields = row.fields
        data: dict[str, Json] = {}
        wrong: str | None = None
        for column, convert in plans:
            if cell := fields[column]:
                try:
                    data[column] = convert(cell)
                except MalformedRequest as error:
                    wrong = f"The column {column} has no JSON that can be kept: {error.detail}"
                    break
                except (ValueError, KeyError):
                    wrong = f"The column {column} does not have its type."
                    break
        record_id = fields[how.id_column] if how.id_column else None
        if how.id_column and not record_id and wrong is None:
            wrong = "The column of the id is empty."
        organization = fields[how.org_column] if how.org_column else ""
        size = sum(map(len, fields.values()))
        yield Addressed(organization, Line(row.number, data, record_id or None, size, wrong))


# --- JSON Lines -------------------------------------------------------------------------------------------------------


def _json_lines(stream: TextIO, how: Reading) -> Iterator[Addressed]:
    for number, text in enumerate(stream, start=1):
        if text.strip():
            why = lines.no_text(text)
            yield _unreadable(number, f"The line {why}.") if why else _json_line(number, text, how)


def _json_line(number: int, text: str, how: Reading) -> Addressed:
    try:
        value = lines.json_of(text, levels=MAX_JSON_DEPTH + (how.format == RECORDS))  # what is around the data is one
    except MalformedRequest as error:
        return _unreadable(number, error.detail)
    if type(value) is not dict:
        return _unreadable(number, "The line is not a JSON object.")
    organization = value.pop(how.org_column, "") if how.org_column else ""
    if type(organization) is not str:
        return _unreadable(number, "The member that names the organization must be text.")
    if how.format == RECORDS:
        record_id, data = value.get("id"), value.get("data")
        if type(record_id) is not str or type(data) is not dict:
            return _unreadable(number, "The line is not as `orgstead record export` writes it: it needs id and data.")
        return Addressed(organization, Line(number, data, record_id, len(text)))
    record_id = None
    if how.id_column is not None:
        record_id = value.pop(how.id_column, None)
        if type(record_id) is not str or not record_id:
            return _unreadable(number, "The member that has the id must be text, and not empty.")
    return Addressed(organization, Line(number, value, record_id, len(text)))


def _unreadable(number: int, why: str) -> Addressed:
    return Addressed("", Line(number, None, unreadable=why))
