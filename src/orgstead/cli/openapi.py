"""``orgstead openapi``."""

from __future__ import annotations

import json

import typer

from orgstead.api import application
from orgstead.cli.commands import command, single
from orgstead.cli.output import Output

app = single()


@command(app, "openapi")
def openapi(ctx: typer.Context) -> None:
    """Print the OpenAPI document of the HTTP API, as JSON."""
    Output(ctx.obj).text(json.dumps(application.openapi(), ensure_ascii=False, indent=2))
