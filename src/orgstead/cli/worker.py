"""``orgstead worker``: the background work in a process of its own."""

from __future__ import annotations

import typer

from orgstead.api import server
from orgstead.cli import service
from orgstead.cli.commands import command, single
from orgstead.settings import Settings

app = single()


@command(app, "worker")
def worker(ctx: typer.Context) -> None:
    """Resume operations, purge what is due, forget what has expired; beside processes that serve with --role api."""
    server.run(_work(service.settings_for(ctx.obj, {})))


async def _work(settings: Settings) -> None:
    async with service.prepared(settings) as app:
        await service.work_until_signal(app)
