"""The hot read: everything about a caller in one prepared statement over five primary keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from orgstead.model import Access
from orgstead.storage import tables
from orgstead.storage.codec import codec_of, storable
from orgstead.storage.sqlite.statements import quoted

_organization = codec_of(tables.organizations)
_placement = codec_of(tables.placements)
_membership = codec_of(tables.memberships)
_session = codec_of(tables.sessions)

_P = len(_organization.columns)
_M = _P + len(_placement.columns)
_S = _M + len(_membership.columns)
_U = _S + len(_session.columns)


def _all(alias: str, columns: Sequence[str]) -> str:
    return ", ".join(f"{alias}.{quoted(column)}" for column in columns)


_SELECT = (
    f"SELECT {_all('o', tables.organizations.columns)}, {_all('p', tables.placements.columns)},"  # noqa: S608  # declared
    f" {_all('m', tables.memberships.columns)}, {_all('s', tables.sessions.columns)}, u.epoch"
    " FROM (SELECT 1)"
    " LEFT JOIN organizations AS o ON o.id = ?1"
    " LEFT JOIN placements AS p ON p.org_id = ?1"
    " LEFT JOIN memberships AS m ON m.org_id = ?1 AND m.user_id = ?2"
    " LEFT JOIN sessions AS s ON s.id = ?3"
    " LEFT JOIN users AS u ON u.id = ?2"
)


def access(connection: sqlite3.Connection, org_id: str, user_id: str, session_id: str) -> Access:
    """``Storage.access`` as of the last commit."""
    try:
        (row,) = connection.execute(_SELECT, (org_id, user_id, session_id)).fetchall()
    except UnicodeEncodeError:
        (row,) = connection.execute(_SELECT, tuple(map(storable, (org_id, user_id, session_id)))).fetchall()
    # The first column of each part belongs to its key, so it is None only where there is no row.
    return Access(
        _organization.decode(row[:_P]) if row[0] is not None else None,
        _placement.recall(row[_P:_M]) if row[_P] is not None else None,
        _membership.recall(row[_M:_S]) if row[_M] is not None else None,
        _session.recall(row[_S:_U]) if row[_S] is not None else None,
        row[_U],
    )
