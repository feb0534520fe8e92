"""The hot read: everything about a caller in one prepared statement over five primary keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from orgstead.model import API_KEY_ID, Access
from orgstead.storage import tables
from orgstead.storage.codec import codec_of, storable
from orgstead.storage.port import Table
from orgstead.storage.sqlite.statements import quoted

_organization = codec_of(tables.organizations)
_placement = codec_of(tables.placements)
_membership = codec_of(tables.memberships)
_session = codec_of(tables.sessions)
_api_key = codec_of(tables.api_keys)

_P = len(_organization.columns)
_M = _P + len(_placement.columns)
_C = _M + len(_membership.columns)


def _all(alias: str, columns: Sequence[str]) -> str:
    return ", ".join(f"{alias}.{quoted(column)}" for column in columns)


def _selecting(credential: Table[Any], found: str) -> str:
    """The statement for callers with such a credential, which is ``found`` by this condition; the epoch comes last."""
    return (
        f"SELECT {_all('o', tables.organizations.columns)}, {_all('p', tables.placements.columns)},"  # noqa: S608
        f" {_all('m', tables.memberships.columns)}, {_all('c', credential.columns)}, u.epoch"
        " FROM (SELECT 1)"
        " LEFT JOIN organizations AS o ON o.id = ?1"
        " LEFT JOIN placements AS p ON p.org_id = ?1"
        " LEFT JOIN memberships AS m ON m.org_id = ?1 AND m.user_id = ?2"
        f" LEFT JOIN {credential.name} AS c ON {found}"
        " LEFT JOIN users AS u ON u.id = ?2"
    )


ABOUT_CALLERS: Final[frozenset[Table[Any]]] = frozenset(
    {
        tables.organizations,
        tables.placements,
        tables.memberships,
        tables.sessions,
        tables.api_keys,
        tables.users,
    }
)
"""Every table that is read here."""

_WITH_SESSION = _selecting(tables.sessions, "c.id = ?3")
_WITH_API_KEY = _selecting(tables.api_keys, "c.org_id = ?1 AND c.id = ?3")


def access(connection: sqlite3.Connection, org_id: str, user_id: str, credential_id: str) -> Access:
    """``Storage.access`` as of the last commit."""
    by_key = credential_id.startswith(API_KEY_ID)
    statement = _WITH_API_KEY if by_key else _WITH_SESSION
    try:
        (row,) = connection.execute(statement, (org_id, user_id, credential_id)).fetchall()
    except UnicodeEncodeError:
        (row,) = connection.execute(statement, tuple(map(storable, (org_id, user_id, credential_id)))).fetchall()
    # The first column of each part belongs to its key, so it is None only where there is no row.
    there = row[_C] is not None
    return Access(
        _organization.decode(row[:_P]) if row[0] is not None else None,
        _placement.recall(row[_P:_M]) if row[_P] is not None else None,
        _membership.recall(row[_M:_C]) if row[_M] is not None else None,
        _session.recall(row[_C:-1]) if there and not by_key else None,
        row[-1],
        _api_key.recall(row[_C:-1]) if there and by_key else None,
    )
