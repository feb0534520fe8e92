"""``orgstead org import``: organizations in bulk, with an account of every line."""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orgstead import importing
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.cli import lines
from orgstead.cli.errors import UsageError
from orgstead.cli.output import Format, Output, Printer, csv_cell
from orgstead.cli.progress import progress
from orgstead.errors import LinesRefused
from orgstead.importing import Outcome, Result
from orgstead.placements import kind_of

REQUIRED = ("external_id", "name")
COLUMNS = ("line", "external_id", "result", "organization_id", "slug", "reason")
SHOWN_REFUSALS = 20


async def run(app: App, out: Output, file: Path, format: str | None, plan: str | None, report: Path | None) -> None:
    """Import the file; print each line's outcome (JSON, JSON Lines, CSV) or the totals (table).

    Raises ``LinesRefused`` at the end if any was, ``UsageError`` before anything is done if the file cannot be read.
    """
    if plan:
        kind_of(app.settings, plan)
    totals: Counter[Result] = Counter()
    with ExitStack() as stack:
        stream = stack.enter_context(lines.opened(file)) if str(file) != "-" else sys.stdin
        read = lines.read(stream, format or lines.format_of(file), importing.COLUMNS, REQUIRED)
        write = stack.enter_context(_report(report)) if report else None
        printer = None if out.options.format is Format.TABLE else out.printer(COLUMNS, key="organization_id")
        advance = stack.enter_context(progress(out, "Importing organizations", _count(file)))
        began = time.monotonic()
        try:
            async for outcomes in importing.import_organizations(app, read, OPERATOR, plan=plan):
                _account(out, outcomes, totals, printer, write)
                advance(len(outcomes))
        finally:
            if printer:
                printer.end()
            _summarize(out, totals, time.monotonic() - began)
    if refused := totals[Result.REFUSED]:
        raise LinesRefused(
            f"{refused} of {totals.total()} lines were refused; everything else was done.",
            next="mend those lines and run the same command again: what is there already stays as it is",
        )


def _account(
    out: Output, outcomes: list[Outcome], totals: Counter[Result], printer: Printer | None, write: Any
) -> None:
    for outcome in outcomes:
        totals[outcome.result] += 1
        if printer:
            printer.row(asdict(outcome))
        if write:
            write.writerow([csv_cell(value) for value in asdict(outcome).values()])
        if outcome.result is Result.REFUSED and totals[Result.REFUSED] <= SHOWN_REFUSALS:
            out.say(f"line {outcome.line}: refused: {outcome.reason}")
    sys.stdout.flush()  # what is durable is said, whatever ends the import


def _summarize(out: Output, totals: Counter[Result], seconds: float) -> None:
    """The totals: what a table shows, and on standard error beside other formats; also of an import cut short."""
    done = totals.total()
    summary = {**{result.value: totals[result] for result in Result}, "lines": done}
    if out.options.format is Format.TABLE:
        out.item(summary)
    out.say(f"{done} lines in {seconds:.1f} s" + (f", {done / seconds:.0f} a second" if seconds >= 1 else ""))


@contextmanager
def _report(path: Path) -> Iterator[Any]:
    try:
        with path.open("x", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            yield writer
    except FileExistsError:
        raise UsageError("The report's file exists already.", next="name another file for --report") from None
    except OSError as error:
        raise UsageError(f"The report cannot be written: {error.strerror}.") from None


def _count(file: Path) -> int | None:
    """How many lines a file has, about: what the progress bar counts towards."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
