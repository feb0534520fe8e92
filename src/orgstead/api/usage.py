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
from orgstead.storage import tables
from orgstead.storage.port import Transaction

router = APIRouter(tags=["Organizations"], route_class=GuardedRoute)


@router.get(
    OWN + "/usage",
    operation_id="organizations_usage",
    summary="Read usage and limits",
    response_model=record_schemas.Usage,
    responses=problems(401, 403, 404, 423, 429),
)
async def get(caller: CanReadOrganization) -> Response:
    """Counted with every change, and so exact. A limit below what is used stops growth and nothing else."""
    settings, plan = caller.app.settings, caller.principal.organization.plan
    slot = await caller.read_in_space(usage.read)
    members = await caller.read(_members)
    rule = settings.plans.get(plan)
    body = {
        "object": "usage",
        **usage.shown(slot, usage.limits_of(settings, plan)),
        "members": {"used": members, "limit": None},
        "requests_per_second": rule.requests_per_second if rule else None,
    }
    return Json(orjson.dumps(body))


async def _members(tx: Transaction) -> int:
    (counted,) = await tx.aggregate(tables.memberships)
    return int(counted["count"])
