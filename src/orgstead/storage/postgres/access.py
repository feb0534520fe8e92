"""The hot read: everything about a caller in one round trip, which callers of the same moment share.

A function of the database sets what the policies read and then reads the five tables, both in the one transaction that
its call is. It runs with its caller's rights (SECURITY INVOKER), so the policies hold for it, and what it set ends with
it. What one call costs beside its rows, here and in the server, is several times what a row costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from orgstead.model import Access
from orgstead.storage import tables
from orgstead.storage.codec import codec_of
from orgstead.storage.port import Table
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.policies import SYSTEM_SETTING
from orgstead.storage.postgres.statements import SCHEMA, TYPES, quoted, within

FUNCTION = "access"

_AT_ONCE = 2
"""Questions that may be under way for one event loop. One more would make each of them smaller, so that they cost more;
one less would let those who come while it is on its way to a distant server wait for all of that way."""

_MOST = 256
"""Callers in one question."""

_organization = codec_of(tables.organizations)
_placement = codec_of(tables.placements)
_membership = codec_of(tables.memberships)
_session = codec_of(tables.sessions)

_P = len(_organization.columns)
_M = _P + len(_placement.columns)
_S = _M + len(_membership.columns)
_U = _S + len(_session.columns)

CALL = f"SELECT * FROM {within(SCHEMA, FUNCTION)}($1, $2, $3)"  # noqa: S608  # declared names

Caller = tuple[str, str, str]
"""An organization, a person, and a session."""

_Waiting = list[tuple[Caller, "asyncio.Future[Access]"]]

_PARTS: tuple[tuple[str, Table[Any], Sequence[str]], ...] = (
    ("o", tables.organizations, tables.organizations.columns),
    ("p", tables.placements, tables.placements.columns),
    ("m", tables.memberships, tables.memberships.columns),
    ("s", tables.sessions, tables.sessions.columns),
    ("u", tables.users, ("epoch",)),
)
_KEYS = {
    "o": "t.id = asked.org",
    "p": "t.org_id = asked.org",
    "m": "t.org_id = asked.org AND t.user_id = asked.person",
    "s": "t.id = asked.login",
    "u": "t.id = asked.person",
}


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
        f"CREATE OR REPLACE FUNCTION {within(SCHEMA, FUNCTION)}(orgs text[], people text[], logins text[])"  # noqa: S608
        f" RETURNS TABLE (number bigint, {results}) LANGUAGE plpgsql VOLATILE SECURITY INVOKER"
        " SET plan_cache_mode = force_generic_plan AS $body$ BEGIN"
        f" PERFORM set_config('{SYSTEM_SETTING}', 'on', true);"
        f" RETURN QUERY SELECT asked.number, {selected}"
        f" FROM unnest(orgs, people, logins) WITH ORDINALITY AS asked (org, person, login, number){joins}; END $body$"
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


async def accesses(connection: Connection, callers: Sequence[Caller]) -> list[Access]:
    """``Storage.access`` of each of the callers, in their order, all as of one moment."""
    keys = zip(*callers, strict=True)
    rows = await connection.fetch(CALL, *([_key(text) for text in texts] for texts in keys))
    found = {row[0]: tuple(row)[1:] for row in rows}
    return [_decoded(found[number]) for number in range(1, len(callers) + 1)]


def _decoded(row: tuple[Any, ...]) -> Access:
    # The first column of each part belongs to its key, so it is None only where there is no row.
    return Access(
        _organization.decode(row[:_P]) if row[0] is not None else None,
        _placement.recall(row[_P:_M]) if row[_P] is not None else None,
        _membership.recall(row[_M:_S]) if row[_M] is not None else None,
        _session.recall(row[_S:_U]) if row[_S] is not None else None,
        row[_U],
    )


class Gathering:
    """Asks for the callers of one turn of the event loop together, and for those who come meanwhile after that.

    Nobody waits for others to come: a lone caller is asked for at once. Bound to the loop that it is used in.
    """

    def __init__(self, ask: Callable[[Sequence[Caller]], Awaitable[list[Access]]]) -> None:
        self._ask = ask
        self._next: _Waiting | None = None
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[list[Access]]] = set()

    async def access(self, caller: Caller) -> Access:
        """What the database has of the caller, read after this was called. Raises what asking raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Access] = loop.create_future()
        waiting = self._next
        if waiting is None or len(waiting) >= _MOST:
            waiting = self._next = []
            task = loop.create_task(self._answers(waiting))
            self._tasks.add(task)
            task.add_done_callback(partial(self._tell, waiting))
        waiting.append((caller, future))
        return await future

    async def _answers(self, waiting: _Waiting) -> list[Access]:
        async with self._places:
            if self._next is waiting:
                self._next = None  # whoever comes now may have seen what this question does not see
            return await self._ask([caller for caller, _ in waiting])

    def _tell(self, waiting: _Waiting, task: asyncio.Task[list[Access]]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        for place, (_, future) in enumerate(waiting):
            if future.done():
                continue
            if task.cancelled():  # the loop ends
                future.cancel()
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result()[place])
