"""…/usage: what an organization has, and what its plan allows."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from orgstead import usage
from orgstead.api import record_schemas
from orgstead.api.caller import CanReadOrganization
from orgstead.api.documented import problems
from orgstead.api.guarded import GuardedRoute
from orgstead.api.organizations import OWN
from orgstead.api.responses import Json

router = APIRouter(tags=["Organizations"], route_class=GuardedRoute)


@router.get(
    OWN + "/usage",
    operation_id="organizations_usage",
    summary="Read usage and limits",
    response_model=record_schemas.Usage,
    responses=problems(401, 403, 404, 423),
)
async def get(caller: CanReadOrganization) -> Response:
    """Counted with every change, and so exact. A limit below what is used stops growth and nothing else."""
    settings, organization = caller.app.settings, caller.principal.organization
    slot = await caller.read_in_space(usage.read)
    rule = settings.plans.get(organization.plan)
    body = {
        "object": "usage",
        **usage.shown(usage.limits_of(settings, organization.plan), slot, organization),
        "requests_per_second": rule.requests_per_second if rule else None,
    }
    return Json(orjson.dumps(body))
