"""The hot read: everything about a caller in one command over five keys, of one moment."""

from __future__ import annotations

from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from orgstead.model import Access
from orgstead.storage import tables
from orgstead.storage.codec import storable
from orgstead.storage.mongodb.client import Server
from orgstead.storage.mongodb.documents import Document, layout_of
from orgstead.storage.port import Table

_PART = "_part"

_organization = layout_of(tables.organizations)
_placement = layout_of(tables.placements)
_membership = layout_of(tables.memberships)
_session = layout_of(tables.sessions)


async def access(server: Server, session: AsyncClientSession, org_id: str, user_id: str, session_id: str) -> Access:
    """``Storage.access``: each part is found by its key or is not there, and none is needed to find another."""
    pipeline: list[Document] = [
        {"$match": {"_id": _id(tables.organizations, org_id)}},
        {"$set": {_PART: "organization"}},
        _also(tables.placements, org_id),
        _also(tables.memberships, org_id, user_id),
        _also(tables.sessions, session_id),
        _also(tables.users, user_id),
    ]
    cursor = await server.directory[tables.organizations.name].aggregate(pipeline, session=session)
    found: dict[str, Document] = {document[_PART]: document for document in await cursor.to_list()}
    organization, placement = found.get("organization"), found.get("placements")
    membership, login, user = found.get("memberships"), found.get("sessions"), found.get("users")
    return Access(
        None if organization is None else _organization.row(organization),
        None if placement is None else _placement.row(placement),
        None if membership is None else _membership.row(membership),
        None if login is None else _session.row(login),
        None if user is None else user["epoch"],
    )


def _also(table: Table[Any], *key: str) -> Document:
    pipeline = [{"$match": {"_id": _id(table, *key)}}, {"$set": {_PART: table.name}}]
    return {"$unionWith": {"coll": table.name, "pipeline": pipeline}}


def _id(table: Table[Any], *key: str) -> Any:
    """The ``_id`` of a row; for a key that none can have the one that none has."""
    return None if None in map(storable, key) else layout_of(table).id(key)
