"""``orgstead serve``: the service, for production."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from orgstead.api import server
from orgstead.api.server import Bound
from orgstead.cli import processes, service
from orgstead.cli.commands import command, single
from orgstead.cli.errors import UsageError
from orgstead.cli.output import Output
from orgstead.settings import Settings
from orgstead.storage import describe

app = single()

Host = Annotated[str | None, typer.Option(help="Address that the API listens on.", show_default=False)]
Port = Annotated[int | None, typer.Option(help="Port of the API.", show_default=False)]
ManagementPort = Annotated[int | None, typer.Option(help="Port of health and metrics.", show_default=False)]


class Role(StrEnum):
    ALL = "all"
    API = "api"
    WORKER = "worker"


@command(app, "serve")
def serve(
    ctx: typer.Context,
    host: Host = None,
    port: Port = None,
    management_port: ManagementPort = None,
    role: Annotated[
        Role,
        typer.Option(
            help="all: the API and the background work; api: without the latter; worker: only that, and the management"
            " port."
        ),
    ] = Role.ALL,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that serve; the embedded database takes one.", show_default=False),
    ] = None,
) -> None:
    """Serve the API. The database's schema must be up to date: orgstead db upgrade"""
    flags = {"http.host": host, "http.port": port, "management.port": management_port, "http.workers": workers}
    settings = service.settings_for(ctx.obj, flags)
    if role is Role.WORKER:
        server.run(_work(settings))
    elif settings.http.workers > 1:
        if not describe(settings.database_url).concurrent:
            raise UsageError(
                "One process writes this database, so one process serves it.",
                next="leave --workers out (ORGSTEAD_HTTP__WORKERS too); one process answers thousands of requests a"
                " second",
            )
        server.run(_serve_together(settings, role, color=Output(ctx.obj).color))
    else:
        server.run(_serve(settings, role))


def _started(settings: Settings, role: Role, bound: Bound) -> None:
    processes = {"processes": settings.http.workers} if settings.http.workers > 1 else {}
    service.log_started(settings, bound, role=role, **processes)


async def _serve(settings: Settings, role: Role) -> None:
    async with service.prepared(settings) as app:
        await service.run(app, lambda bound: _started(settings, role, bound), with_worker=role is Role.ALL)
    service.log.info("service.stopped")


async def _serve_together(settings: Settings, role: Role, *, color: bool) -> None:
    await processes.run(
        settings, lambda bound: _started(settings, role, bound), with_worker=role is Role.ALL, color=color
    )
    service.log.info("service.stopped")


async def _work(settings: Settings) -> None:
    def ready(port: int) -> None:
        management = service.management_address(settings, port)
        service.log.info("service.started", management=management, mode=settings.mode, role=Role.WORKER)

    async with service.prepared(settings) as app:
        await service.work(app, ready)
    service.log.info("service.stopped")
