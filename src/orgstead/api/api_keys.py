"""…/api_keys: credentials of an organization for its programs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from msgspec.structs import replace
from starlette.responses import Response

from orgstead import api_keys
from orgstead.api import idempotent, lists, schemas, views
from orgstead.api.caller import CanManageApiKeys
from orgstead.api.documented import UNCHANGED, WITH_BODY, problems
from orgstead.api.faults import said_once
from orgstead.api.guarded import GuardedRoute
from orgstead.api.organizations import OWN
from orgstead.api.responses import Empty
from orgstead.api_keys import Minted, NewApiKey
from orgstead.errors import InvalidInput, Problem
from orgstead.idempotency import Answer
from orgstead.model import Role

router = APIRouter(tags=["API keys"], route_class=GuardedRoute)

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

KEYS = OWN + "/api_keys"
ONE = KEYS + "/{api_key_id}"


@router.post(
    KEYS,
    operation_id="api_keys_create",
    summary="Create an API key",
    status_code=201,
    response_model=schemas.NewApiKey,
    responses=problems(401, 403, 404, 409, 423, *WITH_BODY),
)
async def create(caller: CanManageApiKeys, body: schemas.ApiKeyCreate) -> Response:
    """Make a key that acts for the organization in a role of its own, and answer with its text: this once, never again.

    It is refused once it is deleted or has expired, while the organization is closed, and when whoever was shown it is
    no member any more or in a lower role than the key's (the setting ``api_keys.after_demotion``). What manages keys or
    accounts, or ends the organization, no key may.
    """
    new = NewApiKey(
        name=body.name,
        role=Role(body.role),
        expires_at=None if body.expires_at is None else _moment(body.expires_at),
        user_id=caller.principal.user_id,
    )
    app = caller.app
    return await idempotent.once_sealed(
        caller, _created, api_keys.create, app.settings, caller.org_id, new, caller.actor, app.clock()
    )


@router.get(
    KEYS,
    operation_id="api_keys_list",
    summary="List API keys",
    response_model=schemas.ApiKeyList,
    responses=problems(401, 403, 404, 422, 423),
    dependencies=[Depends(said_once)],
)
async def page(caller: CanManageApiKeys, query: Annotated[lists.Page, Query()]) -> Response:
    """The organization's keys without their texts, oldest first, or newest first with ``order=-created_at``."""
    binding = ("api_keys_list", caller.org_id, query.order)
    after = lists.after(caller.app, query.cursor, binding)
    found, following = await caller.read(
        api_keys.page,
        caller.org_id,
        after=str(after[0]) if after else None,
        limit=query.limit,
        newest_first=query.order == lists.NEWEST_FIRST,
    )
    data = [views.api_key(key) for key in found]
    return lists.shown(caller.app, data, [following] if following else None, binding)


@router.get(
    ONE,
    operation_id="api_keys_get",
    summary="Read an API key",
    response_model=schemas.ApiKey,
    responses={**UNCHANGED, **problems(401, 403, 404, 423)},
)
async def get(caller: CanManageApiKeys) -> Response:
    """One key, without its text."""
    key = await caller.read(api_keys.get, caller.org_id, caller.named("api_key_id"))
    return views.read(caller, views.api_key(key))


@router.post(
    ONE + "/rotate",
    operation_id="api_keys_rotate",
    summary="Rotate an API key",
    response_model=schemas.NewApiKey,
    responses=problems(400, 401, 403, 404, 409, 422, 423),
)
async def rotate(caller: CanManageApiKeys) -> Response:
    """Give the key another text, and answer with it; the one before is refused from the next request on.

    The key is the caller's from then on: it ends with their membership.
    """
    key_id, user_id = caller.named("api_key_id"), caller.principal.user_id
    return await idempotent.once_sealed(
        caller, _shown_once, api_keys.rotate, caller.org_id, key_id, user_id, caller.actor, caller.app.clock()
    )


@router.delete(
    ONE,
    operation_id="api_keys_delete",
    summary="Delete an API key",
    status_code=204,
    responses=problems(401, 403, 404, 423),
)
async def delete(caller: CanManageApiKeys) -> Response:
    """End the key: it is refused from the next request on."""
    await caller.run(api_keys.delete, caller.org_id, caller.named("api_key_id"), caller.actor, caller.app.clock())
    return Empty()


def _shown_once(minted: Minted) -> Answer:
    return views.answered({**views.api_key(minted.key), "token": minted.text})


def _created(minted: Minted) -> Answer:
    location = f"/v1/organizations/{minted.key.org_id}/api_keys/{minted.key.id}"
    return replace(_shown_once(minted), status=201, headers={"location": location})


def _moment(text: str) -> datetime:
    """A time as RFC 3339 writes it, cut to milliseconds. Raises ``InvalidInput``."""
    try:
        if not _RFC_3339.fullmatch(text):
            raise ValueError("not RFC 3339")
        found = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        detail = "A time is written like 2027-11-23T10:00:00Z."
        raise InvalidInput(detail, problems=[Problem("/expires_at", "api_key.expiry_invalid", detail)]) from None
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
