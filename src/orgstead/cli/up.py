"""``orgstead up``: from nothing to a running service in one command."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orgstead import __version__
from orgstead.api import server
from orgstead.api.server import Bound
from orgstead.app import KEY_FILE, App
from orgstead.cli import service
from orgstead.cli.commands import command, single
from orgstead.cli.output import Options, Output
from orgstead.cli.serve import Host, ManagementPort, Port
from orgstead.errors import SchemaOutdated
from orgstead.settings import Settings
from orgstead.storage import describe

if TYPE_CHECKING:
    from orgstead.cli.demo import Loaded

app = single()


@command(app, "up")
def up(
    ctx: typer.Context,
    host: Host = None,
    port: Port = None,
    management_port: ManagementPort = None,
    with_demo: Annotated[bool, typer.Option("--demo", help="Load demo data: organizations with members.")] = False,
) -> None:
    """Start the service here, making what it needs: the data folder, the key, the database."""
    flags = {"http.host": host, "http.port": port, "management.port": management_port}
    server.run(_up(ctx.obj, service.settings_for(ctx.obj, flags), with_demo))


@dataclass(frozen=True, slots=True)
class Start:
    """What was found and made before the service began to answer."""

    settings: Settings
    new: bool
    schema_version: int
    server: str
    url: str
    demo: Loaded | None


async def _up(options: Options, settings: Settings, with_demo: bool) -> None:
    async with service.opened(settings, make=True) as opened:
        new = (await opened.storage.stats())["schema_version"] == 0
        await _ready(opened, may_upgrade=new or settings.mode == "dev")
        loaded = await _demo(opened, options) if with_demo else None
        stats = await opened.storage.stats()
        start = Start(settings, new, int(stats["schema_version"]), str(stats["server"]), opened.storage.url, loaded)

        def ready(bound: Bound) -> None:
            if service.on_terminal():
                print(told(start, *service.addresses(settings, bound)), file=sys.stderr, flush=True)
            else:
                service.log_started(settings, bound, new=new)

        await service.run(opened, ready, with_worker=True)
    service.log.info("service.stopped")


async def _ready(app: App, *, may_upgrade: bool) -> None:
    """See that the service could serve; the schema is upgraded only where it must be, since that takes more rights."""
    try:
        await app.check()
    except SchemaOutdated:
        if not may_upgrade:
            raise
        await app.storage.migrate()
        await app.check()


async def _demo(app: App, options: Options) -> Loaded:
    # Not loaded where nobody wants it: people wait for this command.
    from orgstead.cli import demo

    return await demo.load(app, Output(options))


def told(start: Start, api: str, management: str) -> str:
    """The words at the start: all there is to know the first time, one line from then on."""
    if not start.new:
        return f"orgstead {__version__}   API {api}/v1   management {management}   stop with Ctrl+C"
    settings = start.settings
    lines = [f" orgstead {__version__} · Python {platform.python_version()}", *_made(start), ""]
    lines += [
        f"   API         {api}/v1       docs: /docs · /openapi.json",
        f"   Management  {management}/readyz   /metrics",
        "",
        *_first_step(settings, api),
        "",
    ]
    if settings.mode == "dev":
        key = "" if settings.secret_key else " the key was made for you,"
        lines.append(f" ! Mode dev:{key} one process.   Before production: orgstead doctor")
    return "\n".join([*lines, " Stop with Ctrl+C. Try: orgstead org list", ""])


def _made(start: Start) -> list[str]:
    settings, folder = start.settings, describe(start.settings.database_url).folder
    own_key = settings.secret_key is None
    together = folder is not None and folder.absolute() == settings.data_folder.absolute()
    if folder is not None:
        key = ", key file mode 0600" if own_key and together else ""
        made = [f" ✓ Data folder      {_relative(folder)} (new; {start.server}{key})"]
    else:
        made = [f" ✓ Database         {start.server}, {start.url}"]
    if own_key and not together:
        made.append(f" ✓ Key file         {_relative(settings.data_folder / KEY_FILE)} (mode 0600)")
    made.append(f" ✓ Schema           version {start.schema_version}")
    if start.demo:
        counts = f"{start.demo.organizations} organizations, {start.demo.members} members"
        made.append(f" ✓ Demo data        {counts} (remove: orgstead demo drop)")
    return made


def _relative(folder: Path) -> str:
    here = os.path.relpath(folder)
    return str(folder) if here.startswith("..") else f"./{here}"


def _first_step(settings: Settings, api: str) -> list[str]:
    """The command that makes the first organization, ready to be copied; with a password nobody else knows."""
    if settings.signup == "closed":
        when = "" if describe(settings.database_url).concurrent else " (while the service is stopped)"
        return [f" → Sign-up is closed. Create organizations with: orgstead org create{when}"]
    body = {
        "organization_name": "Acme Labs",
        "email": "you@example.com",
        "password": secrets.token_urlsafe(12),
    }
    token = ' \\\n     -H "Authorization: Bearer $ORGSTEAD_SIGNUP_TOKEN"' if settings.signup == "token" else ""
    return [
        " → Create the first organization (this password was made up just now; put yours in its place)",
        f"   curl -X POST {api}/org/create -H 'Content-Type: application/json'{token} \\",
        f"     -d {shlex.quote(json.dumps(body))}",
    ]
