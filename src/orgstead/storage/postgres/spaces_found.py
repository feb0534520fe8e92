"""The spaces that are physically there."""

from __future__ import annotations

from orgstead.model import PlacementKind
from orgstead.storage import tables
from orgstead.storage.port import FoundSpace
from orgstead.storage.postgres.connections import Connection
from orgstead.storage.postgres.policies import POLICY, literal
from orgstead.storage.postgres.statements import SCHEMA, within

_DEDICATED_MARK, _POOLED_MARK = "d:", "p:"
_AT_ONCE = 200
"""Schemas whose slots are read at once: the server holds locks on each of them until the end."""

DEDICATED = (
    "FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $1"
    " JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = $2"
    r" WHERE n.nspname LIKE 'org\_%' AND has_schema_privilege(n.oid, 'USAGE')"
)
"""The schemas that are dedicated spaces; $1 is the name of their table of slots, $2 that of our policy."""


async def found(connection: Connection, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    """``Storage.spaces``: the dedicated ones by name (marks ``d:name``), then the pooled ones (``p:org_id``)."""
    if limit < 1:
        return []
    spaces: list[tuple[str, FoundSpace]] = []
    if not after.startswith(_POOLED_MARK):
        at_once = min(limit, _AT_ONCE)
        spaces = await _dedicated(connection, after.removeprefix(_DEDICATED_MARK), at_once)
        if len(spaces) == at_once:
            return spaces
        after = ""
    return spaces + await _pooled(connection, after.removeprefix(_POOLED_MARK), limit - len(spaces))


async def _dedicated(connection: Connection, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    listed = await connection.fetch(
        f"SELECT n.nspname::text {DEDICATED}"
        ' AND n.nspname::text COLLATE "C" > $3 ORDER BY n.nspname::text COLLATE "C" LIMIT $4',
        tables.slots.name,
        POLICY,
        after,
        limit,
    )
    kept: dict[str, list[tuple[str, int]]] = {name: [] for (name,) in listed}
    parts = [
        f"SELECT DISTINCT {literal(name)}::text, org_id, epoch FROM {within(name, tables.slots.name)}"  # noqa: S608
        for name in kept
    ]
    for name, org_id, epoch in await connection.fetch(" UNION ALL ".join(parts)) if parts else ():
        kept[name].append((org_id, epoch))
    spaces = []
    for name, slots in kept.items():
        slots.sort()
        epochs = tuple(epoch for _, epoch in slots)
        org_id = slots[0][0] if slots else None
        spaces.append((_DEDICATED_MARK + name, FoundSpace(org_id, PlacementKind.DEDICATED, name, epochs)))
    return spaces


async def _pooled(connection: Connection, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    slots = within(SCHEMA, tables.slots.name)
    epochs: dict[str, list[int]] = {}
    for org_id, epoch in await connection.fetch(
        f"SELECT DISTINCT org_id, epoch FROM {slots} WHERE org_id IN"  # noqa: S608  # declared names
        f" (SELECT DISTINCT org_id FROM {slots} WHERE org_id > $1 ORDER BY org_id LIMIT $2) ORDER BY org_id, epoch",
        after,
        limit,
    ):
        epochs.setdefault(org_id, []).append(epoch)
    return [
        (_POOLED_MARK + org_id, FoundSpace(org_id, PlacementKind.POOLED, None, tuple(kept)))
        for org_id, kept in epochs.items()
    ]


async def count_dedicated(connection: Connection) -> int:
    """How many spaces have a schema of their own."""
    return int(await connection.fetchval(f"SELECT count(*) {DEDICATED}", tables.slots.name, POLICY))
