"""Reading the lines of an import, CSV or JSON Lines, so that one bad line never hides another."""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

from orgstead.api import strict_json
from orgstead.cli.errors import UsageError
from orgstead.cli.output import counted, printable
from orgstead.errors import MalformedRequest
from orgstead.importing import Line
from orgstead.model import MAX_JSON_DEPTH, Json

CSV = "csv"
JSON_LINES = "jsonl"
SHOWN_COLUMNS = 5
SEPARATORS: Final = {";": "semicolons", "\t": "tabs"}
"""What other programs put between columns."""

MAX_LINES_OF_A_ROW = 20
"""How many lines a quoted field of CSV may go on for."""


def format_of(path: Path) -> str:
    """The format that a file's name tells. Raises ``UsageError`` where it tells none."""
    formats = {".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}
    found = formats.get(path.suffix.lower())
    if found is None:
        raise UsageError("The file's name says neither .csv nor .jsonl.", next="rename it, or add --format csv|jsonl")
    return found


NOT_UTF8: Final = "is not UTF-8 text; save the file as UTF-8"
HAS_NUL: Final = "has the character NUL, as UTF-16 does and no text; save the file as UTF-8"


def opened(path: Path) -> TextIO:
    """The file as text, or standard input for ``-``. Bytes that are no UTF-8 become lone surrogates (``no_text``)."""
    if str(path) == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="")
        return sys.stdin
    try:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise UsageError(f"The file cannot be read: {error.strerror}.") from None


def no_text(line: str) -> str | None:
    """Why the line is no text, as the rest of a sentence about it; None for text. UTF-16 may happen to be UTF-8."""
    try:
        return HAS_NUL if b"\0" in line.encode() else None
    except UnicodeEncodeError:
        return NOT_UTF8


def json_of(text: str, *, what: str = "line", levels: int = MAX_JSON_DEPTH) -> Json:
    """The value that ``what`` says; read as strictly as the API reads bodies, of whatever size.

    Raises ``MalformedRequest``, which tells what is wrong with it.
    """
    return strict_json.decode(text.rstrip("\r\n").encode(), what=what, max_members=None, max_depth=levels)


def read(stream: TextIO, format: str, columns: Sequence[str], required: Sequence[str]) -> Iterator[Line]:
    """The lines of the stream. Raises ``UsageError`` at once if a CSV file has no usable header."""
    return _csv(stream, columns, required) if format == CSV else _json_lines(stream, columns)


def _csv(stream: TextIO, columns: Sequence[str], required: Sequence[str]) -> Iterator[Line]:
    header = [column.lower() for column in header_of(stream, required, next=f"use the columns {', '.join(columns)}")]
    if unknown := [column for column in header if column not in columns]:
        raise UsageError(
            f"The first line names what an import does not know: {named(unknown)}.",
            next=f"remove {'it' if len(unknown) == 1 else 'them'}; an import knows {', '.join(columns)}",
        )
    return _csv_lines(stream, header)


def named(names: Sequence[str]) -> str:
    """Some names from the input, so that whoever reads them knows which are meant."""
    more = ", and others" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(printable(name)[:40] for name in names[:SHOWN_COLUMNS]) + more


def _csv_lines(stream: TextIO, header: list[str]) -> Iterator[Line]:
    for row in csv_rows(stream, header):
        yield Line(row.number, row.fields, row.unreadable)


def header_of(stream: TextIO, required: Sequence[str], *, next: str) -> list[str]:
    """The columns that the first line of CSV names. Raises ``UsageError``; ``next`` says what to do then."""
    line = stream.readline()
    if why := no_text(line):
        what, _, _ = why.partition("; ")
        raise UsageError(
            f"Line 1 of the file {what}.", next="save it as UTF-8, in spreadsheets as CSV UTF-8, or use iconv"
        )
    header = [column.strip() for column in _fields(line) or []]
    other = [name for mark, name in SEPARATORS.items() if len(header) == 1 and mark in header[0]]
    if other:
        raise UsageError(
            f"The first line separates columns by {other[0]}; an import reads commas.", next="save the file with commas"
        )
    folded = [column.lower() for column in header]
    missing = [column for column in required if column.lower() not in folded]
    if missing or not header or len(set(folded)) < len(header):
        among = f", and {' and '.join(missing or required)} among them" if missing or required else ""
        raise UsageError(f"The first line must name each column once{among}.", next=next)
    return header


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A row of CSV: the number of its first line, and its fields by column, or why it could not be read."""

    number: int
    fields: dict[str, str]
    unreadable: str | None = None


def csv_rows(stream: TextIO, header: Sequence[str]) -> Iterator[CsvRow]:
    """The rows behind the header. A quoted field may go on over a few lines; a quote that is never closed spoils its
    own line only."""
    ahead: deque[str] = deque()
    number = 1
    while True:
        ahead.extend(islice(stream, 1 + MAX_LINES_OF_A_ROW - len(ahead)))
        if not ahead:
            return
        used, row = 1, _fields(ahead[0])
        while row is None and used < min(len(ahead), MAX_LINES_OF_A_ROW):
            used += 1
            row = _fields("".join(islice(ahead, used)))
        number += 1
        bad = next(((at, why) for at, why in enumerate(map(no_text, islice(ahead, used))) if why), None)
        if bad is not None:
            used, (at, why) = 1, bad
            goes_on = f"The line has a field that goes on into line {number + at}, which {why}."
            yield CsvRow(number, {}, goes_on if at else f"The line {why}.")
        elif row is None:
            used = 1
            yield CsvRow(number, {}, "The line is not CSV: look for a quote that is not closed or not doubled.")
        elif row and len(row) != len(header):
            fields, columns = counted(len(row), "field"), counted(len(header), "column")
            yield CsvRow(number, {}, f"The line has {fields}, and the first line names {columns}; give it as many.")
        elif row:
            yield CsvRow(number, dict(zip(header, row, strict=True)))
        for _ in range(used):
            ahead.popleft()
        number += used - 1


def _fields(text: str) -> list[str] | None:
    """The fields of one row of CSV, [] for an empty line, None if it is not exactly one row."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else [] if not rows else None


def _json_lines(stream: TextIO, columns: Sequence[str]) -> Iterator[Line]:
    for number, text in enumerate(stream, start=1):
        if text.strip():
            yield Line(number, {}, f"The line {why}.") if (why := no_text(text)) else _json_line(number, text, columns)


def _json_line(number: int, text: str, columns: Sequence[str]) -> Line:
    try:
        value = json_of(text)
    except MalformedRequest as error:
        return Line(number, {}, error.detail)
    if not isinstance(value, dict):
        return Line(number, {}, "The line is not a JSON object; write each organization as one.")
    fields = {column: text for column, text in value.items() if text is not None}
    if unknown := [name for name in fields if name not in columns]:
        what, them = ("a member", "it") if len(unknown) == 1 else ("members", "them")
        why = f"The line has {what} that an import does not know: {named(unknown)}. Remove {them}; an import knows"
        return Line(number, {}, f"{why} {', '.join(columns)}.")
    if other := [name for name, text in fields.items() if not isinstance(text, str)]:
        return Line(number, {}, f"What the line has for {named(other)} must be text, in quotes.")
    return Line(number, fields)
