"""Lists, queries and figures of a collection's records."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from orgstead import aggregates, queries, records
from orgstead.api import lists, record_schemas
from orgstead.api.caller import Caller, CanReadRecords
from orgstead.api.documented import WITH_BODY, problems
from orgstead.api.faults import said_once
from orgstead.api.guarded import GuardedRoute
from orgstead.api.organizations import OWN
from orgstead.api.records import RECORDS
from orgstead.api.responses import Json
from orgstead.queries import Page
from orgstead.query_plans import Order

router = APIRouter(tags=["Records"], route_class=GuardedRoute)

COLLECTION = OWN + "/collections/{collection}"


class ById(BaseModel):
    """The query of a list of records."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, BeforeValidator(lists.plain_number)] = Field(
        default=lists.DEFAULT_LIMIT, ge=1, le=lists.MAX_LIMIT, description="How many at most."
    )
    cursor: str | None = Field(default=None, description="`next_cursor` of the part before, with the same `order`.")
    order: Literal["id", "-id"] = Field(default="id", description="By id, or `-id` from the last one.")


@router.get(
    RECORDS,
    operation_id="records_list",
    summary="List records",
    response_model=record_schemas.RecordList,
    responses=problems(401, 403, 404, 422, 423),
    dependencies=[Depends(said_once)],
)
async def page(caller: CanReadRecords, query: Annotated[ById, Query()]) -> Response:
    """The collection's records by id."""
    binding = ("records_list", caller.org_id, caller.named("collection"), query.order)
    wanted = queries.Query(order=Order((), query.order == "-id"))
    return await _answered(caller, wanted, query.cursor, query.limit, binding)


@router.post(
    COLLECTION + "/query",
    operation_id="records_query",
    summary="Query records",
    response_model=record_schemas.RecordList,
    responses=problems(401, 403, 404, 423, *WITH_BODY),
)
async def query(caller: CanReadRecords, body: record_schemas.RecordQuery) -> Response:
    """The records that meet a condition, in an order. It reads only, and takes no notice of an ``Idempotency-Key``."""
    wanted = queries.parse(body.where, body.order, body.select)
    asked = orjson.dumps([body.where, body.order], option=orjson.OPT_SORT_KEYS)
    binding = ("records_query", caller.org_id, caller.named("collection"), hashlib.sha256(asked).hexdigest())
    return await _answered(caller, wanted, body.cursor, body.limit, binding)


async def _answered(
    caller: Caller, wanted: queries.Query, cursor: str | None, limit: int, binding: tuple[str, ...]
) -> Response:
    position = lists.after(caller.app, cursor, binding)
    found: Page = await caller.scan_in_space(
        queries.run,
        caller.named("collection"),
        wanted,
        queries.rules_of(caller.app.settings),
        after=None if position is None else tuple(map(str, position)),
        limit=limit,
    )
    data = [queries.shown(record, wanted.select) for record in found.records]
    return lists.shown(caller.app, data, found.mark, binding)


@router.post(
    COLLECTION + "/aggregate",
    operation_id="records_aggregate",
    summary="Aggregate records",
    response_model=record_schemas.Aggregate,
    responses=problems(401, 403, 404, 423, *WITH_BODY),
)
async def aggregate(caller: CanReadRecords, body: record_schemas.RecordAggregate) -> Response:
    """Counts, sums, averages, smallest and greatest values by group. It reads only, as a query does."""
    wanted = aggregates.parse(body.where, body.group_by, body.measures)
    rules = queries.rules_of(caller.app.settings)
    groups = await caller.scan_in_space(aggregates.run, caller.named("collection"), wanted, rules)
    return Json(orjson.dumps(aggregates.shown(groups)))


@router.get(
    RECORDS + ":count",
    operation_id="records_count",
    summary="Count records",
    response_model=record_schemas.Count,
    responses=problems(401, 403, 404, 423),
)
async def count(caller: CanReadRecords) -> Response:
    """How many records the collection has."""
    counted: dict[str, Any] = {"object": "count", "count": 0}
    counted["count"] = await caller.scan_in_space(records.count, caller.named("collection"))
    return Json(orjson.dumps(counted))
