"""The account that an import gives of each line: printed, written into a report, counted."""

from __future__ import annotations

import asyncio
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orgstead.cli import dry
from orgstead.cli.errors import UsageError
from orgstead.cli.output import Format, Output, Printer, counted, csv_cell
from orgstead.errors import FileExists, LinesRefused, StorageFull, Unavailable

REFUSED = "refused"
SHOWN_REFUSALS = 20


WOULD = {"created": "would_create", "renamed": "would_rename"}
"""What a dry run calls the results of what it did not do."""


class Account:
    """The account of one import. Each line is a mapping with ``columns``, among them ``line`` and ``result``.

    ``repeatable`` says that what is there already stays as it is when the same lines are imported again; ``dry_run``
    that nothing is changed at all.
    """

    def __init__(
        self,
        out: Output,
        columns: Sequence[str],
        key: str,
        report: Any,
        *,
        repeatable: bool = True,
        dry_run: bool = False,
    ) -> None:
        self.totals: Counter[str] = Counter()
        self._repeatable = repeatable
        self._dry_run = dry_run
        self._last = 1
        self._out = out
        self._columns = columns
        self._report = report
        self._printer: Printer | None = None
        if out.options.format is not Format.TABLE:
            self._printer = out.printer(columns, key=key)

    def take(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Take what has become durable, and say so at once, whatever ends the import."""
        if self._dry_run:
            outcomes = [{**outcome, "result": WOULD.get(outcome["result"], outcome["result"])} for outcome in outcomes]
        for outcome in outcomes:
            self._last = outcome["line"]
            self.totals[outcome["result"]] += 1
            if self._printer and (self._out.options.format is not Format.ID or outcome["result"] != REFUSED):
                self._printer.row(outcome)
            if self._report:
                self._report.writerow([csv_cell(outcome[column]) for column in self._columns])
            if outcome["result"] == REFUSED and self.totals[REFUSED] <= SHOWN_REFUSALS:
                print(f"line {outcome['line']}: refused: {outcome['reason']}", file=sys.stderr)
        sys.stdout.flush()

    @contextmanager
    def kept(self, results: Sequence[str]) -> Iterator[None]:
        """Print the totals when the block ends, those of ``results`` in any case; where it was cut short, say so and
        how to go on."""
        began = time.monotonic()
        try:
            try:
                yield
            finally:
                self._end(results, time.monotonic() - began)
        except asyncio.CancelledError:
            saved = f"the account has all that was saved.\nnext: {self._go_on()}"
            print(f"interrupted: {'nothing was changed.' if self._dry_run else saved}", file=sys.stderr)
            raise
        except Unavailable as error:
            if self._dry_run:
                raise
            error.detail = f"{error.detail.replace('; nothing was changed', '')} The account has all that was saved."
            error.next = f"make room, then {self._go_on()}" if isinstance(error, StorageFull) else self._go_on()
            raise

    def _go_on(self) -> str:
        """How to go on with an import that was cut short, at any line behind what the account has."""
        if not self._repeatable:
            return (
                f"import the lines behind line {self._last}, and refused ones: without ids, the others would become"
                " records once more"
            )
        return f"run the same command again{self._new_report()}: what is there already stays as it is"

    def _new_report(self) -> str:
        return ", with another file for --report" if self._report else ""

    def _end(self, results: Sequence[str], seconds: float) -> None:
        """What a table shows, and on standard error beside other formats."""
        if self._printer:
            self._printer.end()
        done = self.totals.total()
        if self._out.options.format is Format.TABLE:
            names = [WOULD.get(result, result) if self._dry_run else result for result in results]
            self._out.item({**dict.fromkeys(names, 0), **self.totals, "lines": done})
        self._out.say(
            f"{counted(done, 'line')} in {seconds:.1f} s" + (f", {done / seconds:.0f} a second" if seconds >= 1 else "")
        )

    def judge(self) -> None:
        """Raise ``LinesRefused`` if any was; else end a dry run with 3 if anything would be done."""
        if self.totals[REFUSED]:
            raise self._refusal()
        if self._dry_run:
            dry.end(self._out, differs=any(self.totals[would] for would in WOULD.values()))

    def _refusal(self) -> LinesRefused:
        refused, total = self.totals[REFUSED], self.totals.total()
        those = "that line" if refused == 1 else "those lines"
        was = "would be" if self._dry_run else "was" if refused == 1 else "were"
        if refused < total:
            detail = f"{refused} of {total} lines {was} refused"
        else:
            detail = f"{'The only line' if total == 1 else f'All {total} lines'} {was} refused"
        if self._dry_run:
            rest = ", or import the file as it is: the others would be done" if refused < total else ""
            return LinesRefused(f"{detail}. Dry run: nothing was changed.", next=f"mend {those}{rest}")
        return LinesRefused(
            f"{detail}; the rest was done." if refused < total else f"{detail}.",
            next=f"mend {those} and {self._go_on()}" if self._repeatable else f"import {those} alone, mended",
        )


@contextmanager
def report(path: Path | None, columns: Sequence[str]) -> Iterator[Any]:
    """A writer of rows into a new CSV file; None without a path. Raises ``FileExists``, ``UsageError``."""
    if path is None:
        yield None
        return
    try:
        with path.open("x", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            yield writer
    except FileExistsError:
        raise FileExists(next="name another file for --report") from None
    except OSError as error:
        raise UsageError(f"The report cannot be written: {error.strerror}.") from None


def count_lines(file: Path, *, header: bool) -> int | None:
    """How many lines a file has, about, but for its header: what the progress bar counts towards."""
    if not file.is_file():
        return None
    count, last = 0, b"\n"
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return max(0, count + (last != b"\n") - header)
