"""Progress of long work, on standard error: a bar on a terminal, elsewhere a plain line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orgstead.cli.output import Output

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int], None]
"""Takes the number of further units that are done."""


@contextmanager
def progress(
    output: Output, title: str, total: int | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Advance]:
    """Show how far a piece of work is. ``total`` None: its size is unknown. Silent with ``--quiet``.

    On a terminal the bar appears after the first second, so that short work shows nothing.
    """
    if output.options.quiet:
        yield lambda _count: None
    elif sys.stderr.isatty():
        with _bar(output, title, total, clock) as advance:
            yield advance
    else:
        yield _lines(title, total, clock)


def _lines(title: str, total: int | None, clock: Callable[[], float]) -> Advance:
    done, said = 0, clock()

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if clock() - said >= SECONDS_BETWEEN_LINES:
            said = clock()
            print(f"{title}: {done}{f' of {total}' if total is not None else ''}", file=sys.stderr, flush=True)

    return advance


@contextmanager
def _bar(output: Output, title: str, total: int | None, clock: Callable[[], float]) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True, no_color=not output.color), transient=True)
    task = bar.add_task(title, total=total)
    began = clock()

    def advance(count: int) -> None:
        bar.advance(task, count)
        if not bar.live.is_started and clock() - began >= 1.0:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
