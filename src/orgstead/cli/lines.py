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
from orgstead.cli.output import printable
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


NOT_UTF8: Final = "The line is not UTF-8 text."


def opened(path: Path) -> TextIO:
    """The file as text, or standard input for ``-``. Bytes that are no UTF-8 become lone surrogates (``is_text``)."""
    if str(path) == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="")
        return sys.stdin
    try:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise UsageError(f"The file cannot be read: {error.strerror}.") from None


def is_text(line: str) -> bool:
    """Was the line UTF-8? NUL is in no text; it shows UTF-16 that happens to be UTF-8."""
    try:
        return b"\0" not in line.encode()
    except UnicodeEncodeError:
        return False


def json_of(text: str, *, what: str = "line", levels: int = MAX_JSON_DEPTH) -> Json:
    """The value that ``what`` says; read as strictly as the API reads bodies, of whatever size.

    Raises ``MalformedRequest``, which tells what is wrong with it.
    """
    return strict_json.decode(text.encode(), what=what, max_members=None, max_depth=levels)


def read(stream: TextIO, format: str, columns: Sequence[str], required: Sequence[str]) -> Iterator[Line]:
    """The lines of the stream. Raises ``UsageError`` at once if a CSV file has no usable header."""
    return _csv(stream, columns, required) if format == CSV else _json_lines(stream, columns)


def _csv(stream: TextIO, columns: Sequence[str], required: Sequence[str]) -> Iterator[Line]:
    header = [column.lower() for column in header_of(stream, required, next=f"use the columns {', '.join(columns)}")]
    if unknown := [printable(column)[:40] for column in header if column not in columns]:
        more = ", and others" if len(unknown) > SHOWN_COLUMNS else ""
        raise UsageError(
            f"The first line names columns that an import does not know: {', '.join(unknown[:SHOWN_COLUMNS])}{more}.",
            next=f"remove them; it knows {', '.join(columns)}",
        )
    return _csv_lines(stream, header)


def _csv_lines(stream: TextIO, header: list[str]) -> Iterator[Line]:
    for row in csv_rows(stream, header):
        yield Line(row.number, row.fields, row.unreadable)


def header_of(stream: TextIO, required: Sequence[str], *, next: str) -> list[str]:
    """The columns that the first line of CSV names. Raises ``UsageError``; ``next`` says what to do then."""
    line = stream.readline()
    if not is_text(line):
        raise UsageError(
            "Line 1 of the file is not UTF-8 text.", next="save it as UTF-8, in spreadsheets as CSV UTF-8, or use iconv"
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
        if not all(map(is_text, islice(ahead, used))):
            used = 1
            yield CsvRow(number, {}, NOT_UTF8)
        elif row is None:
            used = 1
            yield CsvRow(number, {}, "The line is not CSV: look for a quote that is not closed or not doubled.")
        elif row and len(row) != len(header):
            yield CsvRow(number, {}, f"The line has {len(row)} fields, and the first line names {len(header)} columns.")
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
            yield _json_line(number, text, columns) if is_text(text) else Line(number, {}, NOT_UTF8)


def _json_line(number: int, text: str, columns: Sequence[str]) -> Line:
    try:
        value = json_of(text)
    except MalformedRequest as error:
        return Line(number, {}, error.detail)
    if not isinstance(value, dict):
        return Line(number, {}, "The line is not a JSON object.")
    fields = {column: text for column, text in value.items() if text is not None}
    if not all(isinstance(text, str) for text in fields.values()):
        return Line(number, {}, "Every value of the line must be text.")
    if not fields.keys() <= set(columns):
        return Line(number, {}, f"The line has members that an import does not know; it knows {', '.join(columns)}.")
    return Line(number, fields)
