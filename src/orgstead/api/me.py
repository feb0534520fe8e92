"""/v1/me: who the caller is."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from orgstead.api import schemas, views
from orgstead.api.caller import CanUseOwnAccount
from orgstead.api.documented import UNCHANGED, problems
from orgstead.api.guarded import GuardedRoute

router = APIRouter(tags=["Account"], route_class=GuardedRoute)


@router.get(
    "/v1/me",
    operation_id="me_get",
    summary="Read your account",
    response_model=schemas.Me,
    responses={**UNCHANGED, **problems(401, 423)},
)
async def get(caller: CanUseOwnAccount) -> Response:
    """The caller, and the organization that the access token is for."""
    principal = caller.principal
    user = await caller.account()
    return views.read(caller, views.me(user, principal.membership, principal.session.id))
