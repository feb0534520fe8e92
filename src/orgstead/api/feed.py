"""…/events: the change feed of an organization's records and collections, as lists and as a stream.

It is one feed, of the space. What happens to the organization itself (``organization.*``) is told elsewhere: the
directory may be on another server than the space, so that no order holds for both, and a feed that promises "nothing is
missed, in the order of the commits" must promise no order that there is not. The audit log numbers those changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from orgstead import feed
from orgstead.access import ACTIVE
from orgstead.api import lists, record_schemas
from orgstead.api.caller import Caller, CanReadRecords, authenticated, values_of
from orgstead.api.documented import problems
from orgstead.api.faults import said_once
from orgstead.api.guarded import GuardedRoute
from orgstead.api.heads import IS_HEAD
from orgstead.api.organizations import OWN
from orgstead.api.responses import Json
from orgstead.api.streams import EventStream, Streams
from orgstead.errors import InvalidCursor
from orgstead.feed import Events
from orgstead.policy import Permission
from orgstead.storage.port import Space, Transaction

router = APIRouter(tags=["Events"], route_class=GuardedRoute)

_WEIGHT = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")

_PORTION = 100
"""Events that a stream reads at once."""


class Feed(BaseModel):
    """Where in the feed to begin."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, BeforeValidator(lists.plain_number)] = Field(
        default=lists.DEFAULT_LIMIT, ge=1, le=lists.MAX_LIMIT, description="How many at most; a stream has no limit."
    )
    cursor: str | None = Field(default=None, description="`next_cursor` of the part before, or the `id` of an event.")
    start: Literal["oldest", "now"] = Field(
        default="oldest", description="Without a cursor: with the oldest event that is kept, or with the next one."
    )


@router.get(
    OWN + "/events",
    operation_id="events_list",
    summary="Follow changes of records",
    response_model=record_schemas.EventList,
    responses={
        200: {
            "description": "Events in the order of the commits; with `Accept: text/event-stream` as a stream.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(401, 403, 404, 410, 422, 423),
    },
    dependencies=[Depends(said_once)],
)
async def page(caller: CanReadRecords, query: Annotated[Feed, Query()]) -> Response:
    """What happened to records and collections, in order and without gaps; kept for some days (410 afterwards).

    With `Accept: text/event-stream` the answer goes on: events have the names of their types and their cursors as ids,
    and `Last-Event-ID` resumes after one. It ends with an event `end`, whose `code` says why, when access does.
    """
    if _wants_stream(caller):
        last = values_of(caller.request, b"last-event-id")
        cursor = last[0].decode("latin-1") if last and last[0] else query.cursor
        return await _stream(caller, cursor, query.start)
    found = await caller.scan_in_space(_listed, _number(caller, query.cursor), query.start, query.limit)
    body = {
        "object": "list",
        "data": [feed.shown(event) for event in found.events],
        "next_cursor": _cursor(caller, found.after),
    }
    return Json(orjson.dumps(body))


async def _listed(tx: Transaction, space: Space, after: int | None, start: str, limit: int) -> Events:
    if after is None:
        after = await (feed.end if start == "now" else feed.beginning)(tx, space)
    return await feed.read(tx, space, after=after, limit=limit)


# --- streams --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    type: str
    data: dict[str, Any]


async def _stream(caller: Caller, cursor: str | None, start: str) -> Response:
    streams: Streams = caller.request.scope["app"].streams
    # Once before the answer begins, so that a cursor that is no good is refused as in a list.
    first = await caller.read_in_space(_listed, _number(caller, cursor), start, 1)
    after = first.events[0].seq - 1 if first.events else first.after

    async def look() -> Sequence[_Message]:
        nonlocal after
        current = await authenticated(caller.request, Permission.READ_RECORDS, ACTIVE, repeatable=False, counted=False)
        found = await current.read_in_space(feed.read, after=after, limit=_PORTION)
        after = found.after
        return [_Message(_cursor(caller, event.seq), event.type, feed.shown(event)) for event in found.events]

    return EventStream(streams, caller.app.arrivals, caller.org_id, look)


def _wants_stream(caller: Caller) -> bool:
    """Is a stream asked for? HEAD asks what the headers of an answer are, and a stream has no end to wait for."""
    if caller.request.scope.get(IS_HEAD):
        return False
    weights = _weights(b",".join(values_of(caller.request, b"accept")).lower())
    stream = weights.get(b"text/event-stream", 0.0)
    json = next((weights[name] for name in (b"application/json", b"application/*", b"*/*") if name in weights), 0.0)
    return stream > 0 and stream >= json


def _weights(accepted: bytes) -> dict[bytes, float]:
    """The media types that an Accept header names, with their weights (RFC 9110 §12.4.2); 1 where it says none."""
    weights: dict[bytes, float] = {}
    for part in accepted.split(b","):
        media_type, *parameters = (piece.strip() for piece in part.split(b";"))
        said = (_WEIGHT.fullmatch(parameter) for parameter in parameters)
        weights[media_type] = next((float(found[1]) for found in said if found), 1.0)
    return weights


# --- cursors --------------------------------------------------------------------------------------------------------


def _binding(caller: Caller) -> tuple[str, str]:
    return "events_list", caller.org_id


def _cursor(caller: Caller, number: int) -> str:
    return caller.app.cursors.encode([number], _binding(caller))


def _number(caller: Caller, cursor: str | None) -> int | None:
    position = lists.after(caller.app, cursor, _binding(caller))
    if position is None:
        return None
    (number,) = position
    if not isinstance(number, int):
        raise InvalidCursor
    return number
