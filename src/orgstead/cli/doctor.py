"""``orgstead doctor``: is this installation fit to serve?"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer

from orgstead.cli import checks
from orgstead.cli.commands import command, single
from orgstead.cli.config import configuration
from orgstead.cli.errors import CHECK_FAILED
from orgstead.cli.output import Output
from orgstead.findings import Status

app = single()

COLUMNS = ("check", "status", "detail", "next")


@command(app, "doctor")
def doctor(ctx: typer.Context) -> None:
    """Check configuration, rights, keys, schema, disk, clock and limits; ends with 6 if one fails. Changes nothing."""
    findings = asyncio.run(checks.examine(configuration(ctx.obj)))
    Output(ctx.obj).rows((asdict(finding) for finding in findings), COLUMNS, key="check")
    if any(finding.status is Status.FAIL for finding in findings):
        raise typer.Exit(CHECK_FAILED)
