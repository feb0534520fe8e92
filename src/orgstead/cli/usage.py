"""``orgstead usage``: what an organization uses of what its plan allows."""

from __future__ import annotations

import typer

from orgstead import spaces, usage
from orgstead.app import App
from orgstead.cli import within
from orgstead.cli.commands import command, single
from orgstead.cli.local import reading
from orgstead.cli.org import Which
from orgstead.cli.output import Output

app = single()

COLUMNS = ("what", "used", "limit")


@command(app, "usage")
def usage_(ctx: typer.Context, organization: Which) -> None:
    """Show how many records, bytes, collections, members and API keys an organization has and may have."""

    async def work(app: App, out: Output) -> None:
        found = await within.organization(app, organization)
        slot = await spaces.read(app, found.placement, usage.read)
        shown = usage.shown(usage.limits_of(app.settings, found.organization.plan), slot, found.organization)
        out.rows(({"what": what, **numbers} for what, numbers in shown.items()), COLUMNS, key="what")

    reading(ctx, work)
