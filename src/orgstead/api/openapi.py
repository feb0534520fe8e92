"""The OpenAPI document: what FastAPI finds out by itself, completed with what it cannot know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from orgstead import __version__
from orgstead.api import record_schemas, schemas
from orgstead.api.documented import problems

DESCRIPTION = """\
Organizations of a B2B service: who they are, who may act for them, and where their data lives.

Create one (`POST /org/create` or `POST /v1/organizations`), log in, and send the access token as
`Authorization: Bearer …`. Errors are problem documents (RFC 9457) with a stable `code`. Every POST takes an
`Idempotency-Key`: sent again with the same key, a request has its effect once and gets the same answer.
"""

_TAGS = (
    "Organization service",
    "Organizations",
    "Collections",
    "Records",
    "Events",
    "Authentication",
    "Account",
    "API keys",
    "Operations",
)
"""The order of the documentation."""

_MODELS: Mapping[str, type] = {
    name: model
    for module in (schemas, record_schemas)
    for name, model in vars(module).items()
    if isinstance(model, type) and issubclass(model, BaseModel)
}

_MEMBERS = {
    "organization_id": "Id of the caller's organization.",
    "operation_id": "Id of the operation.",
    "collection": "Name of the collection.",
    "record_id": "Id of the record.",
    "api_key_id": "Id of the API key.",
}

_TAGGED = (schemas.Organization, record_schemas.Collection, record_schemas.Record)
"""Answers of a single resource, whose state has a tag."""


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """A header that a request may have: a text, of which ``schema`` says more."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
    }


_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "Any text of 1 to 255 printable ASCII characters, unique for this request; remembered for 24 hours.",
    minLength=1,
    maxLength=255,
    pattern="^[ -~]+$",
)
_IF_MATCH = _header("If-Match", "The `ETag` that the change is based on; 412 if the resource has changed since.")
_IF_NONE_MATCH_TO_CHANGE = _header(
    "If-None-Match", "`*` changes nothing that exists, an `ETag` nothing that is as it says: 412."
)
_IF_NONE_MATCH = _header("If-None-Match", "An `ETag` that the client has; 304 if it is still current.")
_ETAG = {"description": "Changes with what is shown.", "schema": {"type": "string"}}
_REQUEST_ID = {"description": "Names the request in the service's log.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
_CHALLENGE = {"description": "How to authenticate (RFC 6750).", "schema": {"type": "string"}}


def document(api: FastAPI) -> dict[str, Any]:
    """The document of every route of ``api``, made once."""
    if api.openapi_schema is None:
        made = get_openapi(
            title="orgstead",
            version=__version__,
            summary="Organization management for B2B services.",
            description=DESCRIPTION,
            routes=api.routes,
            tags=[{"name": name} for name in _TAGS],
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            servers=[{"url": "/", "description": "This server"}],
        )
        _complete(made, api)
        api.openapi_schema = made
    return api.openapi_schema


def _complete(made: dict[str, Any], api: FastAPI) -> None:
    components = made.setdefault("components", {})
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT or API key",
            "description": "The access token of a login, or an API key (`ok_…`); to sign up, the sign-up token if one "
            "is asked for.",
        }
    }
    defined = schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"].update(defined.pop("$defs"))
    components["schemas"]["Problem"] = defined
    routes = {(path, method.lower()): route for path, method, route in _routes(api)}
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            _complete_operation(operation, path, method, routes[path, method])
    _without_null_defaults(components["schemas"])
    for name, schema in components["schemas"].items():
        if issubclass(_MODELS.get(name, schemas.Output), schemas.Input):
            schema["examples"] = [_example(schema)]
            for member in schema["properties"].values():
                _without_null(member)


def _routes(api: FastAPI) -> Iterator[tuple[str, str, APIRoute]]:
    for route in api.routes:
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                yield route.path, method, route


def _complete_operation(operation: dict[str, Any], path: str, method: str, route: APIRoute) -> None:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in _MEMBERS.items()
        if f"{{{name}}}" in path
    ]
    responses: dict[str, Any] = operation["responses"]
    if not hasattr(route.endpoint, "__public__"):
        # Every guard counts the request against its organization's rate (``caller.authenticated``).
        responses.setdefault("429", problems(429)[429])
        operation["responses"] = responses = dict(sorted(responses.items()))
    if method == "post":
        parameters.append(_IDEMPOTENCY_KEY)
    if "412" in responses:
        parameters += [_IF_MATCH, _IF_NONE_MATCH_TO_CHANGE]
    if "304" in responses:
        parameters.append(_IF_NONE_MATCH)
    parameters += operation.get("parameters", [])
    if parameters:
        operation["parameters"] = parameters
    if "401" in responses and not hasattr(route.endpoint, "__public__"):
        # An empty requirement says that the credential may be left out, where the endpoint or a setting allows it.
        optional: list[dict[str, Any]] = [{}] if _admits_strangers(route.dependant) else []
        operation["security"] = [{"bearer": []}, *optional]
    for status, response in responses.items():
        headers = response.setdefault("headers", {})
        headers["X-Request-Id"] = _REQUEST_ID
        if status in ("429", "503"):
            headers["Retry-After"] = _RETRY_AFTER
        if status == "401":
            headers["WWW-Authenticate"] = _CHALLENGE
        single = "304" in responses or route.response_model in _TAGGED
        if single and status in ("200", "201", "304"):
            headers["ETag"] = _ETAG


def _admits_strangers(dependant: Dependant) -> bool:
    return any(getattr(part.call, "__optional__", False) for part in dependant.dependencies)


def _example(schema: dict[str, Any]) -> dict[str, Any]:
    """A whole body, made of the examples of its members; what cannot be made up, such as a cursor, has none."""
    return {name: member["examples"][0] for name, member in schema["properties"].items() if "examples" in member}


def _without_null(member: dict[str, Any]) -> None:
    """A member of a request may be left out, but never be null, whatever its type in Python says."""
    if "anyOf" in member:
        (offered,) = (schema for schema in member.pop("anyOf") if schema != {"type": "null"})
        member.update(offered)


def _without_null_defaults(node: Any) -> None:
    """What may be left out has no value then; a default of null would say that null may be sent."""
    if isinstance(node, dict):
        if "default" in node and node["default"] is None and "type" in node:
            del node["default"]
        for child in node.values():
            _without_null_defaults(child)
    elif isinstance(node, list):
        for child in node:
            _without_null_defaults(child)
