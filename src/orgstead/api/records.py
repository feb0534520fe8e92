"""…/collections/{collection}/records: an organization's records by id, and batches of changes."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from orgstead import records
from orgstead.api import idempotent, record_schemas
from orgstead.api.caller import Caller, CanReadRecords, CanWriteRecords
from orgstead.api.documented import UNCHANGED, WITH_BODY, problems
from orgstead.api.guarded import GuardedRoute
from orgstead.api.organizations import OWN
from orgstead.api.preconditions import dated_tag
from orgstead.api.responses import Empty, Json
from orgstead.errors import InvalidInput, NotFound, PreconditionRequired, Problem
from orgstead.idempotency import Answer
from orgstead.kit import rfc3339
from orgstead.model import Json as JsonValue
from orgstead.model import Record
from orgstead.placements import hold
from orgstead.queries import shown
from orgstead.record_batches import Change, Op, is_id
from orgstead.storage.port import Space, Transaction

router = APIRouter(tags=["Records"], route_class=GuardedRoute)

RECORDS = OWN + "/collections/{collection}/records"
ONE = RECORDS + "/{record_id}"

_WRITTEN = (401, 403, 404, 409, 412, 423, 428)


# --- reading --------------------------------------------------------------------------------------------------------


@router.get(
    ONE,
    operation_id="records_get",
    summary="Read a record",
    response_model=record_schemas.Record,
    responses={**UNCHANGED, **problems(401, 403, 404, 423)},
)
async def get(caller: CanReadRecords) -> Response:
    """One record of the collection."""
    record = await caller.read_in_space(records.get, caller.named("collection"), _id_of(caller))
    tag = tag_of(record)
    if caller.has_seen(tag):
        return Empty(304, [(b"etag", tag)])
    return Json(orjson.dumps(shown(record)), 200, [(b"etag", tag)])


@router.post(
    RECORDS + ":batchGet",
    operation_id="records_batch_get",
    summary="Read records by their ids",
    response_model=record_schemas.FoundRecords,
    responses=problems(401, 403, 404, 423, *WITH_BODY),
)
async def batch_get(caller: CanReadRecords, body: record_schemas.RecordIds) -> Response:
    """Up to 200 records at once, each once, in the order of ``ids``."""
    ids = list(dict.fromkeys(body.ids))
    found = await caller.scan_in_space(records.get_many, caller.named("collection"), ids)
    there = {record.id for record in found}
    data = [shown(record) for record in found]
    missing = [one for one in ids if one not in there]
    return Json(orjson.dumps({"object": "list", "data": data, "missing": missing}))


# --- changing -------------------------------------------------------------------------------------------------------


@router.post(
    RECORDS,
    operation_id="records_create",
    summary="Create a record",
    status_code=201,
    response_model=record_schemas.Record,
    responses=problems(401, 403, 404, 409, 423, *WITH_BODY),
)
async def create(caller: CanWriteRecords, body: record_schemas.RecordCreate) -> Response:
    """Add a record, and with the first one its collection, if nobody has defined it."""

    def finish(answer: Answer) -> Answer:
        """The answer with the data, which the request has: it is not kept twice for a key."""
        data = orjson.dumps(body.data).decode()
        return Answer(answer.status, f'{answer.body[:-1]},"data":{data}}}', answer.headers)

    return await idempotent.in_space(
        caller, _created, finish, records.create, caller.named("collection"), body.data, caller.terms, id=body.id
    )


def _created(record: Record) -> Answer:
    headers = {
        "etag": tag_of(record).decode("ascii"),
        "location": f"/v1/organizations/{record.org_id}/collections/{record.collection}/records/{record.id}",
    }
    return Answer(201, orjson.dumps(_without_data(record)).decode(), headers)


@router.put(
    ONE,
    operation_id="records_replace",
    summary="Replace a record",
    response_model=record_schemas.Record,
    responses=problems(*_WRITTEN, *WITH_BODY),
)
async def replace(caller: CanWriteRecords, body: record_schemas.RecordReplace) -> Response:
    """Give an existing record other data, and no other."""
    return _written(await caller.run_in_space(_changed, caller, Op.REPLACE, body.data))


@router.patch(
    ONE,
    operation_id="records_update",
    summary="Change a record",
    response_model=record_schemas.Record,
    responses=problems(*_WRITTEN, *WITH_BODY),
)
async def update(caller: CanWriteRecords, body: record_schemas.RecordPatch) -> Response:
    """Merge into the data of an existing record."""
    return _written(await caller.run_in_space(_changed, caller, Op.PATCH, body.data))


@router.delete(
    ONE,
    operation_id="records_delete",
    summary="Delete a record",
    status_code=204,
    responses=problems(*_WRITTEN),
)
async def delete(caller: CanWriteRecords) -> Response:
    """Remove a record."""
    await caller.run_in_space(_deleted, caller)
    return Empty()


async def _changed(tx: Transaction, space: Space, caller: Caller, op: Op, data: dict[str, JsonValue]) -> Record:
    version = await _matched(tx, space, caller)
    change = records.replace if op is Op.REPLACE else records.patch
    return await change(tx, space, caller.named("collection"), _id_of(caller), data, caller.terms, if_version=version)


async def _deleted(tx: Transaction, space: Space, caller: Caller) -> None:
    version = await _matched(tx, space, caller)
    await records.delete(tx, space, caller.named("collection"), _id_of(caller), caller.terms, if_version=version)


async def _matched(tx: Transaction, space: Space, caller: Caller) -> int | None:
    """The version that the conditions hold for, found under the lock of the change; None where any will do.

    Raises ``NotFound``, ``PreconditionFailed``, ``PreconditionRequired``.
    """
    conditions = caller.conditions
    if not conditions.match and caller.app.settings.records.require_if_match:
        raise PreconditionRequired
    if not conditions:
        return None
    await hold(tx, space)
    record = await records.get(tx, space, caller.named("collection"), _id_of(caller))
    conditions.require(tag_of(record))
    return record.version


def _written(record: Record) -> Response:
    return Json(orjson.dumps(shown(record)), 200, [(b"etag", tag_of(record))])


# --- batches --------------------------------------------------------------------------------------------------------


@router.post(
    OWN + "/records:batch",
    operation_id="records_batch",
    summary="Change many records",
    response_model=record_schemas.BatchResult,
    responses=problems(401, 403, 404, 409, 412, 423, 428, *WITH_BODY),
)
async def batch(caller: CanWriteRecords, body: record_schemas.RecordBatch) -> Response:
    """Make up to 500 changes in any collections of the organization, all or none. The records that are changed may have
    32 MiB together.

    What stands in the way of one is answered as if it had been sent alone, with pointers to ``/operations/N``.
    """
    changes = [_change(caller, place, operation) for place, operation in enumerate(body.operations)]

    def answer(done: list[Record | None]) -> Answer:
        pairs = zip(body.operations, done, strict=True)
        data = [_gone(operation) if record is None else _kept(record) for operation, record in pairs]
        return Answer(200, orjson.dumps({"object": "batch", "data": data}).decode(), {})

    return await idempotent.in_space(caller, answer, idempotent.as_kept, records.batch, changes, caller.terms)


def _change(caller: Caller, place: int, operation: record_schemas.BatchOperation) -> Change:
    """The change that an operation asks for. Raises where its members do not belong together."""
    op = Op(operation.op)
    at = f"/operations/{place}"
    if op is Op.CREATE:
        if operation.if_version is not None:
            raise _wrong(f"{at}/if_version", "What is created has no version yet.")
    elif operation.id is None:
        raise _wrong(f"{at}/id", "Say which record is to be changed.")
    elif operation.if_version is None and caller.app.settings.records.require_if_match:
        detail = "This service changes records only by the version that was read: give it as if_version."
        raise PreconditionRequired(problems=[Problem(f"{at}/if_version", PreconditionRequired.code, detail)])
    if (operation.data is None) is not (op is Op.DELETE):
        raise _wrong(f"{at}/data", "Every operation has data, except delete.")
    return Change(op, operation.collection, operation.id, operation.data, operation.if_version)


def _wrong(at: str, detail: str) -> InvalidInput:
    return InvalidInput(problems=[Problem(at, InvalidInput.code, detail)])


def _kept(record: Record) -> dict[str, Any]:
    return {**_without_data(record), "deleted": False}


def _gone(operation: record_schemas.BatchOperation) -> dict[str, Any]:
    named = {"object": "record", "id": operation.id, "collection": operation.collection, "deleted": True}
    return {**named, "version": None, "created_at": None, "updated_at": None}


# --- what they share ------------------------------------------------------------------------------------------------


def tag_of(record: Record) -> bytes:
    """The record's entity tag."""
    return dated_tag(record.version, record.created_at)


def _without_data(record: Record) -> dict[str, Any]:
    return {
        "object": "record",
        "id": record.id,
        "collection": record.collection,
        "version": record.version,
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
    }


def _id_of(caller: Caller) -> str:
    """The record that the path names. Raises ``NotFound`` for what no record can be called."""
    found = caller.named("record_id")
    if not is_id(found):
        raise NotFound
    return found
