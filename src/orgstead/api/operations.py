"""/v1/operations: how the work of several steps stands."""

from __future__ import annotations

import re

from fastapi import APIRouter
from starlette.responses import Response

from orgstead import operations
from orgstead.api import schemas, views
from orgstead.api.caller import CanReadOperations
from orgstead.api.documented import UNCHANGED, problems
from orgstead.api.guarded import GuardedRoute
from orgstead.errors import NotFound

router = APIRouter(tags=["Operations"], route_class=GuardedRoute)

_ID = re.compile("op_[0-9a-hjkmnp-tv-z]{26}")


@router.get(
    "/v1/operations/{operation_id}",
    operation_id="operations_get",
    summary="Read an operation",
    response_model=schemas.Operation,
    responses={**UNCHANGED, **problems(401, 404, 423)},
)
async def get(caller: CanReadOperations) -> Response:
    """An operation of the caller's organization: its step, progress and error."""
    operation_id: str = caller.request.scope["path_params"]["operation_id"]
    if not _ID.fullmatch(operation_id):
        raise NotFound
    found = await caller.read(operations.get, caller.org_id, operation_id)
    return views.read(caller, views.operation(found))
