"""What frameworks raise, said as errors of our own; and where in a request a fault is. No input is ever repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from orgstead.api.errors import Rendered, render
from orgstead.errors import (
    InvalidInput,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    OrgsteadError,
    Problem,
)

_FAULTS: Mapping[str, tuple[str, str]] = {
    "missing": ("value.missing", "This is required."),
    "extra_forbidden": ("value.unknown", "There is something here that this request does not know; see /docs."),
    "string_type": ("value.type", "This must be a text."),
    "dict_type": ("value.type", "This must be an object."),
    "model_type": ("value.type", "This must be an object."),
    "model_attributes_type": ("value.type", "This must be an object."),
    "int_type": ("value.type", "This must be a whole number."),
    "int_parsing": ("value.type", "This must be a whole number."),
    "bool_type": ("value.type", "This must be true or false."),
    "list_type": ("value.type", "This must be a list."),
    "greater_than_equal": ("value.unacceptable", "This must be at least {ge}."),
    "less_than_equal": ("value.unacceptable", "This must be at most {le}."),
    "too_short": ("value.unacceptable", "There must be at least {min_length}."),
    "too_long": ("value.unacceptable", "There must be at most {max_length}."),
    "literal_error": ("value.unacceptable", "This must be {expected}."),
    "value_error": ("value.unacceptable", "This value is not acceptable; leave it out if there is nothing to say."),
}
"""Pydantic's finding -> code and text. What a text names is of the model, as pydantic's context of a finding has it."""
_ANY_FAULT = ("value.unacceptable", "This value is not acceptable.")


@contextmanager
def pointed(pointers: Mapping[type[OrgsteadError], str]) -> Iterator[None]:
    """Say where in this request the fault is that a use case found, which knows values only."""
    try:
        yield
    except InvalidInput as error:
        pointer = pointers.get(type(error))
        if pointer is not None and not error.problems:
            error.problems = (Problem(pointer, error.code, error.detail),)
        raise


def invalid(errors: Sequence[Any], model: type[BaseModel] | None = None) -> InvalidInput:
    """Pydantic's findings about ``model`` as ours: the place, a code, and a text that repeats nothing of the input."""
    return InvalidInput(problems=[_problem(error, model) for error in errors])


def _problem(error: Mapping[str, Any], model: type[BaseModel] | None) -> Problem:
    code, detail = _FAULTS.get(error["type"], _ANY_FAULT)
    place = error["loc"][1:]  # the first part says "body" or "query"
    if error["type"] == "extra_forbidden":
        place = place[:-1]  # the name of an unknown member is the client's: its parent is pointed at
        if known := _members(model, place):
            detail = f"There is something here that this request does not know; it knows {', '.join(known)}."
    else:
        detail = detail.format_map(error.get("ctx", {}))
    return Problem("".join(f"/{_escaped(part)}" for part in place), code, detail)


def _members(model: type[BaseModel] | None, place: Sequence[str | int]) -> list[str]:
    """What the object at this place of the model may have; nothing where that cannot be told."""
    for part in place:
        if model is not None and isinstance(part, str):
            field = next((one for name, one in model.model_fields.items() if part in (one.alias, name)), None)
            model = _model_in(field.annotation) if field else None
    return [field.alias or name for name, field in model.model_fields.items()] if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a member has, or its items have."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _escaped(part: object) -> str:
    """A reference token of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


async def said_once(request: Request) -> None:
    """Refuse a query that gives a parameter twice: which one counts would be a guess. Raises ``InvalidInput``."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) != len(set(names)):
        raise InvalidInput(problems=[Problem("", "query.repeated", "A query parameter is given more than once.")])


def allowed_methods(api: FastAPI, path: str) -> set[str]:
    """Every method that some route has for the path: a router reports those of the first route only."""
    methods: set[str] = set()
    for route in api.routes:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if method in (getattr(route, "methods", None) or ()):
                match, _ = route.matches({"type": "http", "method": method, "path": path, "root_path": ""})
                if match is Match.FULL:
                    methods.add(method)
    return methods | {"HEAD"} if "GET" in methods else methods


def install(api: FastAPI) -> None:
    """Answer what can be foreseen with problem documents; anything else is the outer layer's, which logs it, too."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, OrgsteadError)
        return _response(render(error, _request_id(request)))

    async def invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _response(render(invalid(error.errors(), _query_of(request)), _request_id(request)))

    async def from_framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allow = allowed_methods(api, request.scope["path"])
            return _response(render(MethodNotAllowed(), _request_id(request), allow=allow))
        return _response(render(NotFound() if error.status_code == 404 else MalformedRequest(), _request_id(request)))

    api.add_exception_handler(OrgsteadError, ours)
    api.add_exception_handler(RequestValidationError, invalid_request)
    api.add_exception_handler(HTTPException, from_framework)


def _query_of(request: Request) -> type[BaseModel] | None:
    """The model of the query that the request's route takes."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    return _model_in(dependant.query_params[0].field_info.annotation) if dependant and dependant.query_params else None


def _request_id(request: Request) -> str:
    request_id: str = request.scope["state"]["request_id"]
    return request_id


def _response(rendered: Rendered) -> Response:
    response = Response(rendered.body, rendered.status)
    response.raw_headers = rendered.headers
    return response
