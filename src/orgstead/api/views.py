"""What the API answers with, as JSON; what the command line shows too is in ``representations.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from starlette.responses import Response

from orgstead.api.caller import Caller
from orgstead.api.preconditions import content_tag, etag
from orgstead.api.responses import Empty, Json
from orgstead.idempotency import Answer
from orgstead.kit import rfc3339
from orgstead.model import Membership, Operation, Organization, Placement, User
from orgstead.organizations import Located
from orgstead.representations import api_key as api_key
from orgstead.representations import operation as operation
from orgstead.representations import organization as organization
from orgstead.sessions import LoginResult


def shown(organization_: Organization, placement: Placement) -> Json:
    """The organization as an answer, with its entity tag."""
    body = orjson.dumps(organization(organization_, placement))
    return Json(body, 200, [(b"etag", etag(organization_, placement))])


def read_organization(caller: Caller) -> Response:
    """The caller's organization as the answer to a GET: 304 where the client has it as it is."""
    organization_, placement = caller.principal.organization, caller.principal.placement
    if caller.has_seen(tag := etag(organization_, placement)):
        return Empty(304, [(b"etag", tag)])
    return shown(organization_, placement)


def read(caller: Caller, shown_: dict[str, Any]) -> Response:
    """Anything else that the caller reads, in the same way."""
    body = orjson.dumps(shown_)
    headers = [(b"etag", content_tag(body))]
    return Empty(304, headers) if caller.has_seen(headers[0][1]) else Json(body, 200, headers)


def answer(located: Located, status: int = 200, *, location: bool = False) -> Answer:
    """The organization as an answer that can be remembered."""
    body = organization(located.organization, located.placement)
    headers = tag(located)
    if location:
        headers["location"] = f"/v1/organizations/{located.organization.id}"
    return answered(body, status, headers)


def tag(located: Located) -> dict[str, str]:
    return {"etag": etag(located.organization, located.placement).decode("ascii")}


def answered(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Any body as an answer that can be remembered."""
    return Answer(status, orjson.dumps(body).decode(), headers or {})


def running(operation_: Operation) -> Answer:
    """An operation that goes on after the answer."""
    return answered(operation(operation_), 202, {"location": f"/v1/operations/{operation_.id}"})


def tokens(granted: LoginResult) -> dict[str, Any]:
    return {
        "access_token": granted.access_token,
        "token_type": "bearer",
        "expires_in": granted.expires_in,
        "refresh_token": granted.refresh_token,
        "organization_id": granted.organization_id,
    }


def admin(user: User) -> dict[str, Any]:
    return {"id": user.id, "email": user.email}


def deletion(org_id: str, status: str, purge_at: datetime) -> Json:
    return Json(orjson.dumps({"id": org_id, "status": status, "purge_at": rfc3339(purge_at)}))


def me(user: User, membership: Membership, session_id: str) -> dict[str, Any]:
    return {
        "object": "user",
        "id": user.id,
        "email": user.email,
        "organization_id": membership.org_id,
        "role": membership.role,
        "session_id": session_id,
        "created_at": rfc3339(user.created_at),
    }
