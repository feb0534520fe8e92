"""The hot read: everything about a caller in one round trip.

A function of the database sets what the policies read and then reads the five tables, both in the one transaction that
its call is. It runs with its caller's rights (SECURITY INVOKER), so the policies hold for it, and what it set ends with
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orgstead.model import Access
from orgstead.storage import tables
from orgstead.storage.codec import codec_of
from orgstead.storage.port import Table
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.policies import SYSTEM_SETTING
from orgstead.storage.postgres.statements import SCHEMA, TYPES, quoted, within

FUNCTION = "access"

_organization = codec_of(tables.organizations)
_placement = codec_of(tables.placements)
_membership = codec_of(tables.memberships)
_session = codec_of(tables.sessions)

_P = len(_organization.columns)
_M = _P + len(_placement.columns)
_S = _M + len(_membership.columns)
_U = _S + len(_session.columns)

CALL = f"SELECT * FROM {within(SCHEMA, FUNCTION)}($1, $2, $3)"  # noqa: S608  # declared names

_PARTS: tuple[tuple[str, Table[Any], Sequence[str]], ...] = (
    ("o", tables.organizations, tables.organizations.columns),
    ("p", tables.placements, tables.placements.columns),
    ("m", tables.memberships, tables.memberships.columns),
    ("s", tables.sessions, tables.sessions.columns),
    ("u", tables.users, ("epoch",)),
)


def _table(name: str) -> str:
    return within(SCHEMA, name)


def create() -> str:
    """The statement that makes the function, or makes it anew."""
    results = ", ".join(
        f"{alias}_{column} {TYPES[codec_of(table).by_name[column].kind]}"
        for alias, table, columns in _PARTS
        for column in columns
    )
    selected = ", ".join(f"{alias}.{quoted(column)}" for alias, _, columns in _PARTS for column in columns)
    return (
        f"CREATE OR REPLACE FUNCTION {within(SCHEMA, FUNCTION)}(org text, person text, login text)"  # noqa: S608
        f" RETURNS TABLE ({results}) LANGUAGE plpgsql VOLATILE SECURITY INVOKER AS $body$ BEGIN"
        f" PERFORM set_config('{SYSTEM_SETTING}', 'on', true);"
        f" RETURN QUERY SELECT {selected} FROM (SELECT 1) AS one"
        f" LEFT JOIN {_table('organizations')} AS o ON o.id = org"
        f" LEFT JOIN {_table('placements')} AS p ON p.org_id = org"
        f" LEFT JOIN {_table('memberships')} AS m ON m.org_id = org AND m.user_id = person"
        f" LEFT JOIN {_table('sessions')} AS s ON s.id = login"
        f" LEFT JOIN {_table('users')} AS u ON u.id = person; END $body$"
    )


def _key(text: str) -> str | None:
    """``text``, or None where no row can have such a key: text of this kind is refused when it is written."""
    return text if text.isascii() and "\0" not in text else _unusual(text)


def _unusual(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return None if "\0" in text else text


async def access(connection: Connection, org_id: str, user_id: str, session_id: str) -> Access:
    """``Storage.access`` as of the last commit."""
    row = tuple(await connection.fetchrow(CALL, _key(org_id), _key(user_id), _key(session_id)))
    # The first column of each part belongs to its key, so it is None only where there is no row.
    return Access(
        _organization.decode(row[:_P]) if row[0] is not None else None,
        _placement.recall(row[_P:_M]) if row[_P] is not None else None,
        _membership.recall(row[_M:_S]) if row[_M] is not None else None,
        _session.recall(row[_S:_U]) if row[_S] is not None else None,
        row[_U],
    )
