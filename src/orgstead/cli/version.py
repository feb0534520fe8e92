"""``orgstead version``."""

from __future__ import annotations

import platform

import typer

from orgstead import __version__
from orgstead.cli.commands import command, single
from orgstead.cli.output import Output

app = single()


@command(app, "version")
def version(ctx: typer.Context) -> None:
    """Show the version of orgstead and of what it runs on."""
    Output(ctx.obj).item(
        {"orgstead": __version__, "python": platform.python_version(), "platform": platform.platform()}, key="orgstead"
    )
