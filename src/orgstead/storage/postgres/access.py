"""The hot read: everything about a caller in one round trip, which callers of the same moment share.

A function of the database sets what the policies read and then reads the five tables, both in the one transaction that
its call is. It runs with its caller's rights (SECURITY INVOKER), so the policies hold for it, and what it set ends with
it. What one call costs beside its rows, here and in the server, is several times what a row costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orgstead.model import API_KEY_ID, Access
from orgstead.storage import tables
from orgstead.storage.codec import codec_of, storable
from orgstead.storage.gathering import Caller
from orgstead.storage.port import Table
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.policies import SYSTEM_SETTING
from orgstead.storage.postgres.statements import SCHEMA, TYPES, quoted, within

FUNCTION = "access"

_organization = codec_of(tables.organizations)
_placement = codec_of(tables.placements)
_membership = codec_of(tables.memberships)
_session = codec_of(tables.sessions)
_api_key = codec_of(tables.api_keys)

_P = len(_organization.columns)
_M = _P + len(_placement.columns)
_S = _M + len(_membership.columns)
_U = _S + len(_session.columns)

CALL = f"SELECT * FROM {within(SCHEMA, FUNCTION)}($1, $2, $3)"  # noqa: S608  # declared names

Found = tuple[Any, ...]
"""The columns of all parts, one after the other."""

_PARTS: tuple[tuple[str, Table[Any], Sequence[str]], ...] = (
    ("o", tables.organizations, tables.organizations.columns),
    ("p", tables.placements, tables.placements.columns),
    ("m", tables.memberships, tables.memberships.columns),
    ("s", tables.sessions, tables.sessions.columns),
    ("u", tables.users, ("epoch",)),
    ("k", tables.api_keys, tables.api_keys.columns),
)
_KEYS = {
    "o": "t.id = asked.org",
    "p": "t.org_id = asked.org",
    "m": "t.org_id = asked.org AND t.user_id = asked.person",
    "s": "t.id = asked.credential",
    "u": "t.id = asked.person",
    # What does not depend on the row is looked at first: callers with a session do not search for a key.
    "k": f"starts_with(asked.credential, '{API_KEY_ID}') AND t.org_id = asked.org AND t.id = asked.credential",
}


def drop() -> str:
    """The statement that removes the function, if it is there."""
    return f"DROP FUNCTION IF EXISTS {within(SCHEMA, FUNCTION)}(text[], text[], text[])"


def create() -> str:
    """The statement that makes the function, or makes it anew.

    Each table is looked into by key for each caller: OFFSET keeps the planner from joining them in another way, which
    is cheaper only while they are small, and its plan is made once, whatever the number of callers.
    """
    results = ", ".join(
        f"{alias}_{column} {TYPES[codec_of(table).by_name[column].kind]}"
        for alias, table, columns in _PARTS
        for column in columns
    )
    selected = ", ".join(f"{alias}.{quoted(column)}" for alias, _, columns in _PARTS for column in columns)
    joins = "".join(
        f" LEFT JOIN LATERAL (SELECT * FROM {within(SCHEMA, table.name)} AS t WHERE {_KEYS[alias]} OFFSET 0)"  # noqa: S608
        f" AS {alias} ON true"
        for alias, table, _ in _PARTS
    )
    return (
        f"CREATE OR REPLACE FUNCTION {within(SCHEMA, FUNCTION)}(orgs text[], people text[], credentials text[])"  # noqa: S608
        f" RETURNS TABLE (number bigint, {results}) LANGUAGE plpgsql VOLATILE SECURITY INVOKER"
        " SET plan_cache_mode = force_generic_plan AS $body$ BEGIN"
        f" PERFORM set_config('{SYSTEM_SETTING}', 'on', true);"
        f" RETURN QUERY SELECT asked.number, {selected}"
        " FROM unnest(orgs, people, credentials) WITH ORDINALITY AS asked (org, person, credential, number)"
        f"{joins}; END $body$"
    )


async def accesses(connection: Connection, callers: Sequence[Caller]) -> list[Found]:
    """What the database has of each of the callers, in their order, all as of one moment."""
    keys = zip(*callers, strict=True)
    rows = await connection.fetch(CALL, *([storable(text) for text in texts] for texts in keys))
    found = {row[0]: tuple(row)[1:] for row in rows}
    return [found[number] for number in range(1, len(callers) + 1)]


def decoded(row: Found) -> Access:
    """What was found of one caller; each is decoded alone, so that a row that means nothing to us fails nobody else."""
    # The first column of each part belongs to its key, so it is None only where there is no row.
    return Access(
        _organization.decode(row[:_P]) if row[0] is not None else None,
        _placement.recall(row[_P:_M]) if row[_P] is not None else None,
        _membership.recall(row[_M:_S]) if row[_M] is not None else None,
        _session.recall(row[_S:_U]) if row[_S] is not None else None,
        row[_U],
        _api_key.recall(row[_U + 1 :]) if row[_U + 1] is not None else None,
    )
