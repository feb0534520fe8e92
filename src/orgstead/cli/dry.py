"""Dry runs: what a command would do, with nothing changed. Only commands that can say it truthfully have the option."""

from __future__ import annotations

from typing import Annotated

import typer

from orgstead.cli.errors import DIFFERENCES
from orgstead.cli.output import Output

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, change nothing; end with 3 if anything would be.")
]


def end(out: Output, *, differs: bool) -> None:
    """Say in plain words that nothing was changed, and end with 3 where something would have been."""
    out.say("Dry run: nothing was changed." if differs else "Dry run: nothing to do; nothing was changed.")
    if differs:
        raise typer.Exit(DIFFERENCES)
