"""Routes that ask for a caller, and at most for one body, are called without FastAPI's general machinery.

Solving dependencies, exit stacks and parameters cost a read several times what the read itself does. The route is
declared like any other, so that its signature, documentation and guard are where they always are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orgstead.api.faults import invalid
from orgstead.api.limits import NO_VALUE, WholeBody

_PARAMETERS = ("path_params", "query_params", "header_params", "cookie_params", "body_params")
_SPECIALS = ("request", "websocket", "http_connection", "response", "background_tasks", "security_scopes")

_MISSING = {"type": "missing", "loc": ("body",)}


class _Body(NamedTuple):
    """The name of the parameter that takes the body, and its model."""

    name: str
    model: type[BaseModel]


class GuardedRoute(APIRoute):
    """An ``APIRoute`` whose endpoint is called directly where a guard, the request and one body are all it takes.

    ``is_direct`` says so: then ``app`` needs nothing of the framework's layers, and raises what they would answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_direct = False
        guard, body = _only_guard(self.dependant), _only_body(self.dependant)
        if guard is not None and guard.call is not None and guard.name is not None:
            if not _takes(self.dependant):
                self.app, self.is_direct = _direct(guard.call, self.endpoint, guard.name), True
            elif body is not None and _takes(self.dependant) <= {"body_params", "request"}:
                request = self.dependant.request_param_name
                self.app = _direct_with_body(guard.call, self.endpoint, guard.name, body, request)
                self.is_direct = True


def _only_guard(dependant: Dependant) -> Dependant | None:
    """The guard, if it is the only dependency of the endpoint and takes the request only itself."""
    if len(dependant.dependencies) != 1:
        return None
    guard = dependant.dependencies[0]
    plain = getattr(guard.call, "__guard__", False) and not guard.dependencies and _takes(guard) == {"request"}
    return guard if plain and guard.request_param_name == "request" else None


def _only_body(dependant: Dependant) -> _Body | None:
    """The parameter that the whole body is for, if there is one and it is required."""
    if len(dependant.body_params) != 1:
        return None
    (field,) = dependant.body_params
    model = field.field_info.annotation
    if isinstance(model, type) and issubclass(model, BaseModel) and field.field_info.is_required():
        return _Body(field.name, model)
    return None


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


def _direct_with_body(
    guard: Callable[[Request], Awaitable[Any]],
    endpoint: Callable[..., Awaitable[Response]],
    name: str,
    body: _Body,
    request_name: str | None,
) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        values = {name: await guard(request)}
        # Judged after the guard: nobody without a valid credential learns anything about bodies.
        value = receive.value if isinstance(receive, WholeBody) else _value_of(await request.body())
        values[body.name] = _held(body.model, value)
        if request_name is not None:
            values[request_name] = request
        response = await endpoint(**values)
        await response(scope, receive, send)

    return app


def _value_of(body: bytes) -> object:
    """What the body says, where no layer around the routes has read it."""
    return orjson.loads(body) if body else NO_VALUE


def _held(model: type[BaseModel], value: object) -> BaseModel:
    """The body's value as the model has it. Raises ``InvalidInput``."""
    if value is NO_VALUE:
        raise invalid([_MISSING])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise invalid([{**fault, "loc": ("body", *fault["loc"])} for fault in found], model) from None
