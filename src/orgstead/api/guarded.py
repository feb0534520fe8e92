"""Routes that ask for a caller and nothing else are called without FastAPI's general machinery.

Solving dependencies, exit stacks and parameters cost a read several times what the read itself does. The route is
declared like any other, so that its signature, documentation and guard are where they always are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_PARAMETERS = ("path_params", "query_params", "header_params", "cookie_params", "body_params")
_SPECIALS = ("request", "websocket", "http_connection", "response", "background_tasks", "security_scopes")


class GuardedRoute(APIRoute):
    """An ``APIRoute`` whose endpoint is called directly where its guard is all that it takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        guard = _only_guard(self.dependant)
        if guard is not None and guard.call is not None and guard.name is not None:
            self.app = _direct(guard.call, self.endpoint, guard.name)


def _only_guard(dependant: Dependant) -> Dependant | None:
    """The guard, if it is everything that the endpoint takes and it takes the request only itself."""
    if len(dependant.dependencies) != 1 or _takes(dependant):
        return None
    guard = dependant.dependencies[0]
    plain = getattr(guard.call, "__guard__", False) and not guard.dependencies and _takes(guard) == {"request"}
    return guard if plain and guard.request_param_name == "request" else None


def _takes(dependant: Dependant) -> set[str]:
    """The kinds of parameters that a dependency or endpoint has beside its own dependencies."""
    parameters = {name for name in _PARAMETERS if getattr(dependant, name)}
    return parameters | {name for name in _SPECIALS if getattr(dependant, f"{name}_param_name") is not None}


def _direct(
    guard: Callable[[Request], Awaitable[Any]], endpoint: Callable[..., Awaitable[Response]], name: str
) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await guard(Request(scope, receive, send))
        response = await endpoint(**{name: caller})
        await response(scope, receive, send)

    return app
