"""How operations are documented: the errors that each may answer with, and examples of its answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

TITLES: dict[int, str] = {
    400: "The request could not be read: malformed JSON, a structural limit, a bad cursor or host.",
    401: "No valid credential.",
    403: "The role in the organization, or the service's sign-up rule, does not allow this.",
    404: "Missing, or of another organization.",
    408: "The request did not arrive completely in time.",
    409: "The state does not allow it: name taken, operation in progress, status conflict.",
    410: "What the cursor goes on after is not kept any more.",
    412: "The resource is not as `If-Match` or `If-None-Match` asks.",
    413: "The body is too large.",
    414: "The request target is too long.",
    415: "The body is not `application/json`.",
    422: "Well-formed, but a value is not acceptable.",
    423: "The organization is suspended.",
    428: "The service asks for `If-Match`, and there is none.",
    429: "Too many requests or attempts; see `Retry-After`.",
    431: "The headers are too large.",
    500: "A fault of the service.",
    503: "Not now: overload, a dependency that is down, or a deadline; see `Retry-After`.",
}

ALWAYS = (400, 408, 414, 431, 500, 503)
"""What any request may be answered with."""

WITH_BODY = (413, 415, 422)


UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` has it."}}
"""``responses`` of a route that reads one resource."""


def later(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that creates an organization, beside its 201: the same model, not complete yet."""
    told = "It takes longer: the organization is `provisioning` and becomes `active`; read it again."
    return {202: {"model": model, "description": told}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that may answer with these statuses, and with those that any may answer with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    return {status: {"description": TITLES[status], "content": content} for status in sorted({*statuses, *ALWAYS})}
