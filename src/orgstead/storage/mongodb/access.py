"""The hot read: everything about a caller, and about all who ask at the same moment, in one command of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from orgstead.model import API_KEY_ID, Access
from orgstead.storage import tables
from orgstead.storage.codec import storable
from orgstead.storage.gathering import Caller
from orgstead.storage.mongodb.client import Server
from orgstead.storage.mongodb.documents import Document, layout_of
from orgstead.storage.port import Table

_PART = "_part"

_organization = layout_of(tables.organizations)
_placement = layout_of(tables.placements)
_membership = layout_of(tables.memberships)
_session = layout_of(tables.sessions)
_api_key = layout_of(tables.api_keys)

_PARTS: tuple[Table[Any], ...] = (
    tables.organizations,
    tables.placements,
    tables.memberships,
    tables.sessions,
    tables.users,
    tables.api_keys,
)

Found = tuple[Document | None, ...]
"""The documents of the organization, placement, membership, session, user and API key."""


async def accesses(server: Server, session: AsyncClientSession, callers: Sequence[Caller]) -> list[Found]:
    """What the database has of each of the callers, in their order: each part is found by its key or is not there."""
    wanted = [_ids(*caller) for caller in callers]
    (first, keys), *others = [
        (table, list(dict.fromkeys(one for one in ids if one is not None)))
        for table, ids in zip(_PARTS, zip(*wanted, strict=True), strict=True)
    ]
    pipeline: list[Document] = [
        *_part(first, keys),
        *({"$unionWith": {"coll": table.name, "pipeline": _part(table, ids)}} for table, ids in others if ids),
    ]
    cursor = await server.directory[first.name].aggregate(pipeline, session=session)
    found = {(document[_PART], document["_id"]): document for document in await cursor.to_list()}
    return [tuple(found.get((t.name, one)) for t, one in zip(_PARTS, ids, strict=True)) for ids in wanted]


def decoded(found: Found) -> Access:
    """What was found of one caller; each is decoded alone, so that a row that means nothing to us fails nobody else."""
    organization, placement, membership, session, user, api_key = found
    return Access(
        None if organization is None else _organization.row(organization),
        None if placement is None else _placement.row(placement),
        None if membership is None else _membership.row(membership),
        None if session is None else _session.row(session),
        None if user is None else user["epoch"],
        None if api_key is None else _api_key.row(api_key),
    )


def _ids(org_id: str, user_id: str, credential_id: str) -> tuple[Any, ...]:
    """The ``_id`` of each part; None of what is not asked for, and of what none can have."""
    by_key = credential_id.startswith(API_KEY_ID)
    return (
        _id(tables.organizations, org_id),
        _id(tables.placements, org_id),
        _id(tables.memberships, org_id, user_id),
        None if by_key else _id(tables.sessions, credential_id),
        _id(tables.users, user_id),
        _id(tables.api_keys, org_id, credential_id) if by_key else None,
    )


def _part(table: Table[Any], ids: Sequence[Any]) -> list[Document]:
    """The stages that find the documents of these ``_id``s and say which table they are of."""
    return [{"$match": {"_id": ids[0] if len(ids) == 1 else {"$in": ids}}}, {"$set": {_PART: table.name}}]


def _id(table: Table[Any], *key: str) -> Any:
    return None if None in map(storable, key) else layout_of(table).id(key)
