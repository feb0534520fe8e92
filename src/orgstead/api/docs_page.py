"""/openapi.json and /docs: Swagger UI from files of this package. Nothing is loaded from anywhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from orgstead.api.caller import public
from orgstead.api.limits import Scope
from orgstead.api.openapi import document
from orgstead.errors import NotFound

ASSETS: Mapping[str, str] = MappingProxyType(
    {
        "swagger-ui.css": "text/css; charset=utf-8",
        "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        "start.js": "text/javascript; charset=utf-8",
        "page.css": "text/css; charset=utf-8",
        "favicon.svg": "image/svg+xml",
    }
)
"""The files that the page may load, and their types. Nothing else of the package can be asked for."""

_WHY = "The documentation holds nothing of any organization."
_A_DAY = {"cache-control": "public, max-age=86400"}


class _Page(Route):
    """A route that says in the scope that it took the request, as the framework's own do: for log and metrics."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}


def _read(name: str) -> bytes:
    return files("orgstead.api").joinpath("assets", name).read_bytes()


def install(api: FastAPI) -> None:
    """Add the routes of the documentation; the files are read when first asked for."""
    kept: dict[str, bytes] = {}

    @public(_WHY)
    async def openapi(request: Request) -> Response:
        if "openapi.json" not in kept:
            kept["openapi.json"] = orjson.dumps(document(api))
        return Response(kept["openapi.json"], media_type="application/json", headers={"cache-control": "no-cache"})

    @public(_WHY)
    async def page(request: Request) -> Response:
        if "index.html" not in kept:
            kept["index.html"] = _read("index.html")
        return Response(
            kept["index.html"], media_type="text/html; charset=utf-8", headers={"cache-control": "no-cache"}
        )

    @public(_WHY)
    async def asset(request: Request) -> Response:
        name: str = request.path_params["name"]
        if name not in ASSETS:
            raise NotFound
        if name not in kept:
            kept[name] = _read(name)
        return Response(kept[name], media_type=ASSETS[name], headers=_A_DAY)

    def add(path: str, endpoint: Callable[[Request], Awaitable[Any]]) -> None:
        api.router.routes.append(_Page(path, endpoint, methods=["GET"], include_in_schema=False))

    add("/openapi.json", openapi)
    add("/docs", page)
    add("/docs/{name}", asset)
