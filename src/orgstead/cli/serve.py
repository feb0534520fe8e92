"""``orgstead serve``: the service, for production."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from orgstead.api import server
from orgstead.api.server import Bound
from orgstead.cli import service
from orgstead.cli.commands import command, single
from orgstead.cli.errors import UsageError
from orgstead.settings import Settings

app = single()

Host = Annotated[str | None, typer.Option(help="Address that the API listens on.", show_default=False)]
Port = Annotated[int | None, typer.Option(help="Port of the API.", show_default=False)]
ManagementPort = Annotated[int | None, typer.Option(help="Port of health and metrics.", show_default=False)]


class Role(StrEnum):
    ALL = "all"
    API = "api"


@command(app, "serve")
def serve(
    ctx: typer.Context,
    host: Host = None,
    port: Port = None,
    management_port: ManagementPort = None,
    role: Annotated[
        Role, typer.Option(help="all: with the background work; api: without, see orgstead worker.")
    ] = Role.ALL,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve; the embedded database takes one.")] = 1,
) -> None:
    """Serve the API. The database's schema must be up to date: orgstead db upgrade"""
    flags = {"http.host": host, "http.port": port, "management.port": management_port}
    if workers > 1:
        raise UsageError(
            "One process writes this database, so one process serves it.",
            next="leave --workers out; one process answers thousands of requests a second",
        )
    server.run(_serve(service.settings_for(ctx.obj, flags), role))


async def _serve(settings: Settings, role: Role) -> None:
    def ready(bound: Bound) -> None:
        api, management = service.addresses(settings, bound)
        service.log.info("service.started", api=api, management=management, mode=settings.mode, role=role)

    async with service.prepared(settings) as app:
        await service.run(app, ready, with_worker=role is Role.ALL)
    service.log.info("service.stopped")
