"""The HTTP application: every route, with the layer around them that holds for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_network
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from orgstead import __version__
from orgstead.api import (
    access_log,
    api_keys,
    auth,
    docs_page,
    faults,
    feed,
    heads,
    management,
    me,
    operations,
    org_routes,
    organizations,
    record_collections,
    record_queries,
    records,
    usage,
)
from orgstead.api.direct_routes import DirectRoutes
from orgstead.api.ended import Ended, EndedRequests
from orgstead.api.errors import render
from orgstead.api.limits import Application, BodyOptions, Receive, Scope, Send
from orgstead.api.metrics import RequestMetrics
from orgstead.api.openapi import document
from orgstead.api.outer import Outer, OuterOptions
from orgstead.api.rate_limits import RateLimits
from orgstead.api.streams import Streams
from orgstead.app import App
from orgstead.settings import Settings

ROUTERS = (
    records.router,
    record_queries.router,
    organizations.router,
    record_collections.router,
    feed.router,
    usage.router,
    api_keys.router,
    auth.router,
    me.router,
    operations.router,
    org_routes.router,
)
"""In the order in which a request tries them: what is asked most comes first."""


_ENVELOPE_BYTES = 65_536
"""What a request may have beside the largest record: the members around it, and white space."""


class Serving(NamedTuple):
    """What a server serves: the API on the public port, ``/healthz`` and its like on the private one."""

    public: Application
    management: Application


class Routes(FastAPI):
    """The routes, without the framework's layers for what ``Outer`` does around all of them.

    Those are unforeseen errors, limits of bodies, and telemetry that is off; each costs every request a coroutine.
    Direct routes are called without any layer, and what they raise is for ``Outer`` to answer.
    """

    orgstead: App
    """What the routes are over, for ``caller.app_of``. Not in ``state``, which looks attributes up the slow way."""

    streams: Streams

    in_flight: set[tuple[str, str]]
    """Idempotency keys, with whose they are, of requests that are under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        route = self._direct.find(scope) if scope["type"] == "http" else None
        if route is not None:
            scope["app"], scope["route"], scope["endpoint"] = self, route, route.endpoint
            await route.app(scope, receive, send)
        elif scope.get("method") == "HEAD":
            await heads.as_get(self, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    @cached_property
    def _direct(self) -> DirectRoutes:
        return DirectRoutes(self.router.routes)

    def build_middleware_stack(self) -> ASGIApp:
        return ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=self.exception_handlers)


def routed() -> Routes:
    """The routes without an App to serve them: what documentation and tests of the routes need."""
    api = Routes(
        title="orgstead",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    for router in ROUTERS:
        api.router.routes.extend(router.routes)
    docs_page.install(api)
    faults.install(api)
    return api


def routes() -> list[BaseRoute]:
    """Every route of the application."""
    return list(routed().routes)


def openapi() -> dict[str, object]:
    """The OpenAPI document."""
    return document(routed())


def build(
    app: App,
    *,
    ended: EndedRequests | None = None,
    extra: Sequence[BaseRoute] = (),
    streams: Streams | None = None,
) -> Application:
    """The whole application over ``app``, as ASGI. It neither starts nor stops anything: background work is the
    server's to run (``worker.run``), and tests need none. ``ended`` is given the requests that have ended; ``extra``
    are routes beside the product's own, for a bench; ``streams`` are those of the settings where None.
    """
    api = routes_over(app, extra=extra, streams=streams)
    return Outer(
        api,
        _options(app.settings),
        render=render,
        ended=ended,
        admit=RateLimits(app).check,
    )


def routes_over(app: App, *, extra: Sequence[BaseRoute] = (), streams: Streams | None = None) -> Routes:
    """What ``build`` puts its layers around: the routes, with all the state that they need."""
    api = routed()
    api.router.routes.extend(extra)
    api.orgstead = app
    api.in_flight = set()
    api.streams = streams or streams_of(app.settings)
    return api


def serving(app: App, *, write: Callable[[bytes], object] | None = None) -> Serving:
    """Both applications of a server over ``app``; what the one counts the other shows at ``/metrics``.

    ``write`` as in ``accounts``. Nothing flushes at the end: this is for whoever can do without the last lines.
    """
    metrics = RequestMetrics()
    ended = accounts(metrics, write)
    return Serving(build(app, ended=ended), management.build(app, metrics=metrics))


def accounts(metrics: RequestMetrics, write: Callable[[bytes], object] | None = None) -> EndedRequests:
    """What counts requests in ``metrics``, and, if wanted, gives ``write`` their lines for the log.

    A log that cannot be written loses its lines and fails nobody: ``/metrics`` hands them on, too.
    """

    def log(requests: Sequence[Ended]) -> None:
        if write is not None:
            with suppress(OSError, ValueError):  # ValueError: the file is closed
                write(access_log.lines(requests))

    ended = EndedRequests(metrics.count, log)
    metrics.settle = ended.flush
    return ended


def streams_of(settings: Settings) -> Streams:
    """The event streams of one process, as the settings bound them."""
    return Streams(total=settings.records.max_streams, each=settings.records.max_organization_streams)


def _options(settings: Settings) -> OuterOptions:
    return OuterOptions(
        allowed_hosts=settings.hosts,
        trusted_proxies=[ip_network(network) for network in settings.trusted_proxies],
        https=settings.https,
        deadline_seconds=settings.http.deadline_seconds,
        body=BodyOptions(
            max_bytes=settings.http.max_body_bytes,
            large_bytes=settings.records.max_bytes + _ENVELOPE_BYTES,
            idle_seconds=settings.http.body_timeout_seconds,
        ),
    )
