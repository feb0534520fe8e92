"""Running the service: ``up``, ``serve`` and ``worker`` share what is here."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from select import PIPE_BUF
from typing import Any

import orjson
import structlog

from orgstead import logs, worker
from orgstead.api import application, management
from orgstead.api.http_protocol import ConnectionOptions
from orgstead.api.limits import Application
from orgstead.api.listening import Address, bind
from orgstead.api.metrics import RequestMetrics
from orgstead.api.server import Bound, ServerOptions, listening, serve, stopped_by_signals
from orgstead.app import App
from orgstead.cli.config import configuration
from orgstead.cli.output import Options, Output
from orgstead.settings import Settings

log = structlog.get_logger("orgstead.service")
requests = structlog.get_logger("orgstead.http")


def settings_for(options: Options, flags: Mapping[str, Any]) -> Settings:
    """The settings under the global options and these flags (by dotted path), and logging set up as they say."""
    settings = configuration(options, flags).settings
    logs.configure(format=settings.log.format, level=settings.log.level, color=Output(options).color)
    return settings


@asynccontextmanager
async def opened(settings: Settings, *, make: bool, processes: int = 1) -> AsyncIterator[App]:
    """The App over the database, whatever its schema is; ``make`` one that is a file where there is none."""
    app = await App.open(settings, make=make, processes=processes)
    try:
        yield app
    finally:
        await app.close()


@asynccontextmanager
async def prepared(settings: Settings, *, processes: int = 1) -> AsyncIterator[App]:
    """The App, able to serve; a schema that is missing or not up to date is refused. ``processes`` as for ``App``."""
    async with opened(settings, make=False, processes=processes) as app:
        await app.check()
        yield app


async def run(app: App, ready: Callable[[Bound], object], *, with_worker: bool) -> None:
    """Serve until a signal ends it. A worker that breaks ends the service too, for a supervisor to start it again."""
    metrics = RequestMetrics()
    async with serving(app, metrics, with_worker=with_worker) as public:
        await serve(public, management.build(app, metrics=metrics), server_options(app.settings), ready=ready)


@asynccontextmanager
async def serving(app: App, metrics: RequestMetrics, *, with_worker: bool) -> AsyncIterator[Application]:
    """The API with its log of requests, and, if wanted, the background work within the block.

    Where the background work breaks, this process gets a SIGTERM.
    """
    ended = application.accounts(metrics, _written(app.settings))
    try:
        async with _working(app) if with_worker else contextlib.nullcontext():
            yield application.build(app, ended=ended)
    finally:
        ended.flush()


async def work(app: App, ready: Callable[[int], object]) -> None:
    """The background work with a management port, until a signal ends it. ``ready`` is told the port."""
    options = server_options(app.settings)
    with bind(options.management) as bound:
        async with listening(management.build(app), bound, options) as port, _working(app):
            stopped = asyncio.Event()
            with stopped_by_signals(stopped.set, port.force):
                ready(bound.getsockname()[1])
                await stopped.wait()


def _written(settings: Settings) -> Callable[[bytes], object] | None:
    """Writes the lines of requests to standard error with all others; none where ``log.level`` is above info."""
    if settings.log.level not in ("debug", "info"):
        return None
    return _as_text if logs.is_text(settings.log.format, sys.stderr) else _as_json


def _as_json(lines: bytes) -> None:
    """Whole lines at a time, as many as a pipe takes in one piece: several processes may write to the same one."""
    begin = 0
    while begin < len(lines):
        end = lines.rfind(b"\n", begin, begin + PIPE_BUF) + 1 or lines.find(b"\n", begin) + 1 or len(lines)
        sys.stderr.buffer.write(lines[begin:end])
        sys.stderr.buffer.flush()
        begin = end


def _as_text(lines: bytes) -> None:
    for line in lines.splitlines():
        fields = orjson.loads(line)
        del fields["time"], fields["level"]
        requests.info(fields.pop("event"), **fields)


@asynccontextmanager
async def _working(app: App) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(app, stop))

    def end_service(_task: asyncio.Task[None]) -> None:
        if not stop.is_set():
            signal.raise_signal(signal.SIGTERM)

    task.add_done_callback(end_service)
    try:
        yield
    finally:
        stop.set()
        await task


async def work_until_signal(app: App) -> None:
    """The background loops alone, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("worker.started")
    await worker.run(app, stop)
    log.info("worker.stopped")


def server_options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        public=Address(settings.http.host, settings.http.port),
        management=Address(settings.management.host, settings.management.port, flag="--management-port"),
        connections=ConnectionOptions(
            header_seconds=settings.http.header_timeout_seconds,
            max_connections=settings.http.max_connections,
            https=settings.https,
        ),
        shutdown_seconds=settings.http.shutdown_seconds,
    )


def on_terminal() -> bool:
    """Whether people are watching: they get a few words, machines a log line."""
    return sys.stderr.isatty()


def addresses(settings: Settings, bound: Bound) -> tuple[str, str]:
    """Where the API and the management port answer."""
    public = settings.public_url or f"http://{_in_url(settings.http.host)}:{bound.public}"
    return public, management_address(settings, bound.management)


def log_started(settings: Settings, bound: Bound, **more: object) -> None:
    """Say that the service has started: where it is asked, and where it listens, which a proxy may be in front of."""
    api, management = addresses(settings, bound)
    host = settings.http.host
    listening = f"[{host}]:{bound.public}" if ":" in host else f"{host}:{bound.public}"
    log.info("service.started", api=api, listening=listening, management=management, mode=settings.mode, **more)


def management_address(settings: Settings, port: int) -> str:
    return f"http://{_in_url(settings.management.host)}:{port}"


def _in_url(host: str) -> str:
    """The host as a person on this machine can reach it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not listened on
    return f"[{reachable}]" if ":" in reachable else reachable
