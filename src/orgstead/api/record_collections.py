"""…/collections: what an organization's records are called, must be like, and can be found by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from orgstead import record_collections, record_definitions
from orgstead.api import lists, record_schemas, schemas, views
from orgstead.api.caller import Caller, CanDefineCollections, CanReadRecords
from orgstead.api.documented import UNCHANGED, WITH_BODY, problems
from orgstead.api.faults import said_once
from orgstead.api.guarded import GuardedRoute
from orgstead.api.organizations import OWN
from orgstead.api.preconditions import content_tag
from orgstead.api.responses import Empty, Json
from orgstead.model import Collection
from orgstead.representations import operation as operation_shown

router = APIRouter(tags=["Collections"], route_class=GuardedRoute)

COLLECTIONS = OWN + "/collections"
ONE = COLLECTIONS + "/{collection}"


class ByName(BaseModel):
    """The query of a list of collections."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, BeforeValidator(lists.plain_number)] = Field(
        default=lists.DEFAULT_LIMIT, ge=1, le=lists.MAX_LIMIT, description="How many at most."
    )
    cursor: str | None = Field(default=None, description="`next_cursor` of the part before.")


@router.get(
    COLLECTIONS,
    operation_id="collections_list",
    summary="List collections",
    response_model=record_schemas.CollectionList,
    responses=problems(401, 403, 404, 422, 423),
    dependencies=[Depends(said_once)],
)
async def page(caller: CanReadRecords, query: Annotated[ByName, Query()]) -> Response:
    """The organization's collections by name."""
    binding = ("collections_list", caller.org_id)
    position = lists.after(caller.app, query.cursor, binding)
    name = str(position[0]) if position else None
    found = await caller.scan_in_space(record_collections.page, after=name, limit=query.limit + 1)
    following = found[query.limit - 1].name if len(found) > query.limit else None
    data = [record_collections.shown(collection) for collection in found[: query.limit]]
    return lists.shown(caller.app, data, [following] if following else None, binding)


@router.get(
    ONE,
    operation_id="collections_get",
    summary="Read a collection",
    response_model=record_schemas.Collection,
    responses={**UNCHANGED, **problems(401, 403, 404, 423)},
)
async def get(caller: CanReadRecords) -> Response:
    """The definition in force. ``state`` is ``changing`` while another one is being checked."""
    collection = await caller.read_in_space(record_collections.get, caller.named("collection"))
    return views.read(caller, record_collections.shown(collection))


@router.put(
    ONE,
    operation_id="collections_define",
    summary="Define a collection",
    response_model=record_schemas.Collection,
    responses={
        201: {"model": record_schemas.Collection, "description": "It is new."},
        202: {"model": schemas.Operation, "description": "It takes longer; follow the operation at `Location`."},
        **problems(401, 403, 404, 409, 412, 423, *WITH_BODY),
    },
)
async def define(caller: CanDefineCollections, body: record_schemas.CollectionDefine) -> Response:
    """Give a collection this definition and no other; make it where there is none of that name.

    Records that are there must satisfy it: otherwise it is refused (409), naming some that do not, and nothing changes.
    """
    definition = record_definitions.parse(body.schema_, body.indexes or (), body.unique or ())
    app, placement = caller.app, caller.principal.placement
    defined = await record_collections.define(
        app, placement, caller.named("collection"), definition, caller.terms, caller.actor, permit=_permit(caller)
    )
    app.arrivals.tell(caller.org_id)
    if defined.operation is not None:
        location = f"/v1/operations/{defined.operation.id}".encode("ascii")
        return Json(orjson.dumps(operation_shown(defined.operation)), 202, [(b"location", location)])
    return _shown(defined.collection, 201 if defined.created else 200)


@router.delete(
    ONE,
    operation_id="collections_delete",
    summary="Delete a collection",
    status_code=204,
    responses=problems(401, 403, 404, 409, 412, 423),
)
async def delete(caller: CanDefineCollections) -> Response:
    """Remove an empty collection and its definition."""
    name = caller.named("collection")
    await caller.run_in_space(record_collections.remove, name, caller.terms, permit=_permit(caller))
    return Empty()


def _permit(caller: Caller) -> Callable[[Collection | None], None]:
    """What raises where the collection, None where there is none, is not as the request asks."""
    conditions = caller.conditions

    def permit(current: Collection | None) -> None:
        conditions.require(None if current is None else content_tag(_body(current)))

    return permit


def _body(collection: Collection) -> bytes:
    return orjson.dumps(record_collections.shown(collection))


def _shown(collection: Collection, status: int = 200) -> Json:
    body = _body(collection)
    return Json(body, status, [(b"etag", content_tag(body))])
