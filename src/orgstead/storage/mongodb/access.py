"""The hot read: everything about a caller, and about all who ask at the same moment, in one command of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from orgstead.model import Access
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

_OTHERS: tuple[Table[Any], ...] = (tables.placements, tables.memberships, tables.sessions, tables.users)
_ALL: tuple[Table[Any], ...] = (tables.organizations, *_OTHERS)


Found = tuple[Document | None, ...]
"""The documents of the organization, placement, membership, session and user."""


async def accesses(server: Server, session: AsyncClientSession, callers: Sequence[Caller]) -> list[Found]:
    """What the database has of each of the callers, in their order: each part is found by its key or is not there."""
    wanted = [_ids(*caller) for caller in callers]
    organizations, *others = zip(*wanted, strict=True)
    pipeline: list[Document] = [
        *_part(tables.organizations, organizations),
        *({"$unionWith": {"coll": t.name, "pipeline": _part(t, ids)}} for t, ids in zip(_OTHERS, others, strict=True)),
    ]
    cursor = await server.directory[tables.organizations.name].aggregate(pipeline, session=session)
    found = {(document[_PART], document["_id"]): document for document in await cursor.to_list()}
    return [tuple(found.get((t.name, one)) for t, one in zip(_ALL, ids, strict=True)) for ids in wanted]


def decoded(found: Found) -> Access:
    """What was found of one caller; each is decoded alone, so that a row that means nothing to us fails nobody else."""
    organization, placement, membership, session, user = found
    return Access(
        None if organization is None else _organization.row(organization),
        None if placement is None else _placement.row(placement),
        None if membership is None else _membership.row(membership),
        None if session is None else _session.row(session),
        None if user is None else user["epoch"],
    )


def _ids(org_id: str, user_id: str, session_id: str) -> tuple[Any, ...]:
    """The ``_id`` of each part."""
    keys: tuple[tuple[str, ...], ...] = ((org_id,), (org_id,), (org_id, user_id), (session_id,), (user_id,))
    return tuple(_id(table, key) for table, key in zip(_ALL, keys, strict=True))


def _part(table: Table[Any], ids: Sequence[Any]) -> list[Document]:
    """The stages that find the documents of these ``_id``s and say which table they are of."""
    one = ids[0] if len(ids) == 1 else {"$in": list(dict.fromkeys(ids))}
    return [{"$match": {"_id": one}}, {"$set": {_PART: table.name}}]


def _id(table: Table[Any], key: tuple[str, ...]) -> Any:
    """The ``_id`` of a row; for a key that none can have the one that none has."""
    return None if None in map(storable, key) else layout_of(table).id(key)
