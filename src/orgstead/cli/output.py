"""Printing: results to standard output in the format asked for, everything meant for people to standard error."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TextIO

from orgstead.cli.errors import UsageError
from orgstead.csv_cells import neutralized
from orgstead.kit import rfc3339

Row = Mapping[str, Any]

TABLE_SAMPLE = 100
"""Rows that decide the width of a table's columns; a longer list is not held back for its width."""
MAX_CELL = 60


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    ID = "id"


@dataclass(frozen=True, slots=True)
class Options:
    """The options that every command takes."""

    format: Format = Format.TABLE
    quiet: bool = False
    no_color: bool = False
    no_input: bool = False
    yes: bool = False
    config: Path | None = None
    database_url: str | None = None


# --- the formats ----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON; times as RFC 3339."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain, indent=indent)


def _text(value: Any) -> str:
    """A value as people and spreadsheets read it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return rfc3339(value)
        case dict() | list() | tuple():
            return to_json(value)
    return str(value)


def csv_cell(value: Any) -> str:
    """A value for a CSV cell. Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    text = _text(value)
    return neutralized(text) if isinstance(value, str) else text


def printable(text: str) -> str:
    """``text`` without anything that could move the cursor or forge a line of a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, one: str) -> str:
    """``1 line``, ``2 lines``: the number with the word for so many."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


class Printer(Protocol):
    """Prints a list, row by row."""

    def row(self, row: Row) -> None: ...

    def end(self) -> None: ...


class _Json:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._any = False

    def row(self, row: Row) -> None:
        self._stream.write((",\n " if self._any else "[\n ") + to_json(dict(row)))
        self._any = True

    def end(self) -> None:
        self._stream.write("\n]\n" if self._any else "[]\n")


class _JsonLines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def row(self, row: Row) -> None:
        self._stream.write(to_json(dict(row)) + "\n")

    def end(self) -> None:
        self._stream.flush()


class _Csv:
    def __init__(self, stream: TextIO, columns: Sequence[str]) -> None:
        self._writer = csv.writer(stream)
        self._columns = columns
        self._begun = False

    def row(self, row: Row) -> None:
        self._begin()
        self._writer.writerow([csv_cell(row.get(column)) for column in self._columns])

    def _begin(self) -> None:
        """The first line, once it is sure that there is a list: what fails before prints no data."""
        if not self._begun:
            self._begun = True
            self._writer.writerow(self._columns)

    def end(self) -> None:
        self._begin()


class _Ids:
    def __init__(self, stream: TextIO, key: str) -> None:
        self._stream = stream
        self._key = key

    def row(self, row: Row) -> None:
        self._stream.write(printable(_text(row[self._key])) + "\n")

    def end(self) -> None:
        self._stream.flush()


class _Table:
    def __init__(self, stream: TextIO, columns: Sequence[str]) -> None:
        self._stream = stream
        self._columns = columns
        self._sample: list[list[str]] = []
        self._widths: list[int] | None = None

    def row(self, row: Row) -> None:
        cells = [printable(_text(row.get(column))) for column in self._columns]
        if self._widths is not None:
            self._write(cells)
            return
        self._sample.append(cells)
        if len(self._sample) == TABLE_SAMPLE:
            self._begin()

    def _begin(self) -> None:
        header = [column.upper() for column in self._columns]
        self._widths = [
            min(MAX_CELL, max(_width(cell) for cell in column)) for column in zip(header, *self._sample, strict=True)
        ]
        self._write(header)
        for cells in self._sample:
            self._write(cells)

    def _write(self, cells: Sequence[str]) -> None:
        padded = (c + " " * max(0, w - _width(c)) for c, w in zip(cells, self._widths or (), strict=True))
        self._stream.write("  ".join(padded).rstrip() + "\n")

    def end(self) -> None:
        if self._widths is None:
            if self._sample:
                self._begin()
            else:
                self._stream.write("[]\n")


# --- what commands use ----------------------------------------------------------------------------------------------


class Output:
    """Where a command prints. ``columns`` are what a table and CSV show; JSON shows whole rows."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def color(self) -> bool:
        """Whether people see colours: on a terminal, without ``--no-color`` and ``NO_COLOR`` (no-color.org)."""
        return not self.options.no_color and not os.environ.get("NO_COLOR") and sys.stderr.isatty()

    def printer(self, columns: Sequence[str], *, key: str = "id") -> Printer:
        """A printer of a list in the format asked for; ``key`` is what ``-o id`` prints."""
        match self.options.format:
            case Format.JSON:
                return _Json(sys.stdout)
            case Format.JSONL:
                return _JsonLines(sys.stdout)
            case Format.CSV:
                return _Csv(sys.stdout, columns)
            case Format.ID:
                return _Ids(sys.stdout, key)
        return _Table(sys.stdout, columns)

    def rows(self, rows: Iterable[Row], columns: Sequence[str], *, key: str = "id") -> None:
        printer = self.printer(columns, key=key)
        for row in rows:
            printer.row(row)
        printer.end()

    async def stream(self, rows: AsyncIterable[Row], columns: Sequence[str], *, key: str = "id") -> None:
        printer = self.printer(columns, key=key)
        async for row in rows:
            printer.row(row)
        printer.end()

    def item(self, item: Row, *, key: str = "id") -> None:
        """One thing: an object in JSON, a line per field in a table."""
        match self.options.format:
            case Format.JSON:
                sys.stdout.write(to_json(dict(item), indent=2) + "\n")
            case Format.TABLE:
                width = max(len(name) for name in item)
                for name, value in item.items():
                    sys.stdout.write(f"{name:<{width}}  {printable(_text(value))}".rstrip() + "\n")
            case _:
                self.rows([item], tuple(item), key=key)

    def text(self, text: str) -> None:
        """Ready text, such as a script or a document."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def say(self, text: str) -> None:
        """Tell the person, unless ``--quiet``."""
        if not self.options.quiet:
            print(text, file=sys.stderr)

    def confirm(self, question: str) -> None:
        """Go on only if the person agrees. Without a terminal nobody is asked: ``UsageError`` names the option."""
        if self.options.yes:
            return
        if self.options.no_input or not sys.stdin.isatty():
            why = "--no-input keeps it from asking" if self.options.no_input else "there is no terminal to ask at"
            raise UsageError(f"This needs your confirmation, and {why}.", next="add --yes")
        if _answer(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise UsageError("Nothing was done.")


def _answer(question: str) -> str:
    """The line that the person types. Ctrl-C ends the command at once, as everywhere: an event loop that runs would
    only note it, and go on waiting for the line."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(question, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, before)
