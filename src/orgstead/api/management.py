"""The management port: is it alive, is it ready, how does it do. Keep it private: it asks for no credential.

It answers to every IP address, as probes name it, and to names of its own, but to no other: a web page could give its
own name this machine's address, and have the browser of somebody who can reach this port read it (DNS rebinding).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orgstead.api.errors import render
from orgstead.api.hosts import Hosts
from orgstead.api.limits import Application, Receive, Scope, Send
from orgstead.api.metrics import RequestMetrics, of_this_process
from orgstead.api.outgoing import outgoing
from orgstead.api.request_ids import new_request_id
from orgstead.app import App
from orgstead.errors import MethodNotAllowed, NotFound, OrgsteadError
from orgstead.settings import Settings
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

READY = SystemScope("readiness")
READY_SECONDS = 2.0
"""A database that takes longer than this to answer is not ready."""

_log = structlog.get_logger("orgstead.management")
_FRESH = {"cache-control": "no-store"}


def build(app: App, *, metrics: RequestMetrics | None = None) -> Application:
    """The port of a service that is one process."""
    registry = of_this_process()
    if metrics is not None:
        registry.register(metrics)

    async def check() -> str | None:
        return await unready(app)

    async def collect() -> CollectorRegistry:
        return registry

    return answering(app.settings, check, collect)


def answering(
    settings: Settings,
    check: Callable[[], Awaitable[str | None]],
    collect: Callable[[], Awaitable[CollectorRegistry]],
) -> Application:
    """``/healthz`` (the process runs), ``/readyz`` (it can serve), ``/metrics`` (Prometheus).

    ``check`` gives the code of what keeps the service from serving, or None; ``collect`` what ``/metrics`` shows.
    """

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_FRESH)

    async def readyz(request: Request) -> Response:
        reason = await check()
        if reason is None:
            return JSONResponse({"status": "ready"}, headers=_FRESH)
        return JSONResponse({"status": "unready", "code": reason}, 503, headers={**_FRESH, "retry-after": "1"})

    async def show_metrics(request: Request) -> Response:
        return Response(generate_latest(await collect()), media_type=CONTENT_TYPE_LATEST, headers=_FRESH)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show_metrics)]
    names = ("localhost", settings.management.host, *settings.hosts)
    port = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
    port.router.redirect_slashes = False
    return _to_own_names(port, Hosts(names, addresses=True))


async def _refused(request: Request, error: Exception) -> Response:
    """A path that is not there, or not with this method."""
    assert isinstance(error, HTTPException)
    refusal = MethodNotAllowed() if error.status_code == 405 else NotFound()
    status, headers, body = render(refusal, request.scope["state"]["request_id"], allow=("GET", "HEAD"))
    response = Response(body, status)
    response.raw_headers = headers
    return response


def _to_own_names(app: Application, hosts: Hosts) -> Application:
    """Name requests, and refuse one for a foreign host. One that says none is a probe's: browsers always say it."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        answer, send = outgoing(scope, send)
        answer.lines = b"x-request-id: %b\r\n" % request_id.encode()
        try:
            for name, value in scope.get("headers", ()):
                if name == b"host":
                    hosts.check(value)
        except OrgsteadError as error:
            status, headers, body = render(error, request_id)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return checked


async def unready(app: App) -> str | None:
    """The code of what keeps the service from serving, or None."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await app.storage.check()
            await app.storage.read(READY, _touch)
    except OrgsteadError as error:
        _log.warning("unready", code=error.code, detail=error.detail)
        return error.code
    except TimeoutError:
        _log.warning("unready", code="storage.slow")
        return "storage.slow"
    return None


async def _touch(tx: Transaction) -> None:
    await tx.find(tables.cells, name="")
