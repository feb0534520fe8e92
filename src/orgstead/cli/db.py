"""``orgstead db``: the database itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from orgstead.app import open_directory, pending_migrations
from orgstead.cli import dry
from orgstead.cli.commands import command, group
from orgstead.cli.config import configuration
from orgstead.cli.dry import DryRun
from orgstead.cli.errors import CHECK_FAILED, report
from orgstead.cli.output import Options, Output
from orgstead.errors import ConfigurationError
from orgstead.storage.port import Storage

VERSIONS = ("version", "title")

app = group("Upgrade, check and back up the database.")


@asynccontextmanager
async def storage(options: Options, *, writable: bool) -> AsyncIterator[Storage]:
    """The database as it is, whatever its schema."""
    opened = await open_directory(configuration(options).settings, writable=writable)
    try:
        yield opened
    finally:
        await opened.close()


@command(app, "upgrade")
def upgrade(ctx: typer.Context, dry_run: DryRun = False) -> None:
    """Bring the database's schema to this version's. May be repeated.

    With --dry-run it lists the versions that it would apply. The rights of the service's role on a database server,
    which it gives anew each time, are not in that list.
    """

    async def work() -> None:
        if dry_run:
            missing = await pending_migrations(configuration(ctx.obj).settings)
            out = Output(ctx.obj)
            out.rows(({"version": number, "title": title} for number, title in missing), VERSIONS, key="version")
            dry.end(out, differs=bool(missing))
            return
        async with storage(ctx.obj, writable=True) as opened:
            Output(ctx.obj).item({"schema_version": await opened.migrate()}, key="schema_version")

    asyncio.run(work())


@command(app, "current")
def current(ctx: typer.Context) -> None:
    """Show the database's schema version, size and server."""

    async def work() -> None:
        async with storage(ctx.obj, writable=False) as opened:
            Output(ctx.obj).item({"url": opened.url, **await opened.stats()}, key="schema_version")

    asyncio.run(work())


@command(app, "check")
def check(ctx: typer.Context) -> None:
    """Check that this version can serve the database; ends with 6 if not."""

    async def work() -> None:
        async with storage(ctx.obj, writable=False) as opened:
            await opened.check()
            Output(ctx.obj).item({"status": "ready", "url": opened.url}, key="status")

    try:
        asyncio.run(work())
    except ConfigurationError as error:
        report(error)
        raise typer.Exit(CHECK_FAILED) from None


@command(app, "backup")
def backup(
    ctx: typer.Context, target: Annotated[str, typer.Argument(help="The file to write; it must not exist.")]
) -> None:
    """Write a consistent copy of the database, also while a server is running."""

    async def work() -> None:
        async with storage(ctx.obj, writable=False) as opened:
            await opened.backup(target)
            Output(ctx.obj).item({"backup": target}, key="backup")

    asyncio.run(work())
