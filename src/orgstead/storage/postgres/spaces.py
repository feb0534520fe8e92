"""Spaces: an organization's data as rows of the pooled tables, or as tables of its own in a schema of its own.

Each function runs inside one transaction that its caller began and commits, DDL included, so a crash leaves all of it
or nothing, and each looks first at what is there, so it may be repeated. Whoever makes, renames or drops a schema holds
a lock on its name until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from orgstead.errors import SpaceMismatch
from orgstead.model import PlacementKind, SlotState
from orgstead.storage import space_names, tables
from orgstead.storage.port import Space
from orgstead.storage.postgres import policies, schema
from orgstead.storage.postgres.connections import Connection, single
from orgstead.storage.postgres.statements import (
    SCHEMA,
    Values,
    create_table,
    names,
    quoted,
    schema_of,
    statements_of,
    within,
)

_TABLES = tuple(table.name for table in tables.SPACE)
_SPACE_LOCKS = 0x73_7061
"""The class of the advisory locks on names of schemas."""

_OPEN = SlotState.OPEN.value
_AT_ZERO = tuple(c for c in tables.slots.columns if c not in ("org_id", "epoch", "slot", "state"))
"""What a new slot counts, and the flags that it does not have."""

_CLOSED = SlotState.CLOSED.value


class There(Enum):
    """What is under the name of a dedicated space. ``EMPTY`` is a schema without anything in it."""

    NOTHING = "nothing"
    EMPTY = "empty"
    SPACE = "space"
    FOREIGN = "foreign"


async def create(connection: Connection, role: str | None, wanted: Sequence[Space], slots: int) -> None:
    """``Storage.create_space`` for each. ``role`` is given its rights; None where all spaces are pooled.

    Raises ``SpaceMismatch`` over another organization or a later epoch of this one.
    """
    pooled = [space for space in wanted if space_names.name_of(space) is None]
    dedicated = [space for space in wanted if space_names.name_of(space) is not None]
    if pooled:
        await _create_slots(connection, SCHEMA, pooled, slots)
    for space in dedicated:
        assert role is not None
        await _create_schema(connection, schema_of(space), role)
        await _refuse_others(connection, space)
        await _create_slots(connection, schema_of(space), [space], slots)


async def _create_schema(connection: Connection, name: str, role: str) -> None:
    await _hold(connection, name)
    there = await look(connection, name)
    if there is There.FOREIGN:
        raise SpaceMismatch
    if there is There.SPACE:
        return
    statements = [] if there is There.EMPTY else [f"CREATE SCHEMA {quoted(name)}"]
    for table in tables.SPACE:
        statements += [*create_table(table, name), *policies.protect(table, name)]
    statements += schema.grants(name, role, _TABLES)
    await connection.execute("; ".join(statements))


async def _create_slots(connection: Connection, schema_: str, spaces: Sequence[Space], slots: int) -> None:
    """Add the slots that are missing, in one round trip. Raises ``SpaceMismatch`` over a later epoch."""
    sql = statements_of(tables.slots, schema_)
    values = Values()
    source = sql.unnested(("org_id", "epoch"), [(space.org_id, space.epoch) for space in spaces], values)
    later = await connection.fetchval(
        f"WITH wanted AS (SELECT * FROM {source} AS wanted (org_id, epoch)),"  # noqa: S608  # declared names
        # One search for each: left to choose, the planner reads the whole table, and every batch takes longer.
        f" later AS (SELECT FROM wanted CROSS JOIN LATERAL (SELECT FROM {sql.target} AS slot"
        " WHERE slot.org_id = wanted.org_id AND slot.epoch > wanted.epoch LIMIT 1) AS one LIMIT 1),"
        f" made AS (INSERT INTO {sql.target} (org_id, epoch, slot, state, {names(_AT_ZERO)})"
        f" SELECT org_id, epoch, number, {values.bind(_OPEN)}, {', '.join('0' for _ in _AT_ZERO)}"
        f" FROM wanted, generate_series(0, {values.bind(slots - 1)}::bigint) AS number"
        " WHERE NOT EXISTS (SELECT FROM later) ON CONFLICT DO NOTHING)"
        " SELECT EXISTS (SELECT FROM later)",
        *values.all,
    )
    if later:
        raise SpaceMismatch


async def rename(connection: Connection, space: Space, name: str) -> None:
    """``Storage.rename_space``."""
    space_names.require_valid(name)
    if space.kind is not PlacementKind.DEDICATED:
        raise SpaceMismatch("A pooled space has no name of its own.")
    old = schema_of(space)
    await _hold(connection, *sorted({old, name}))
    target = Space(space.org_id, space.kind, name, space.epoch)
    source_there, target_there = await look(connection, old), await look(connection, name)
    if name == old and source_there is There.SPACE:
        return
    if source_there is There.NOTHING and target_there is There.SPACE:
        await _refuse_others(connection, target)
    elif source_there is There.SPACE and target_there is There.NOTHING:
        await _refuse_others(connection, space)
        await connection.execute(f"ALTER SCHEMA {quoted(old)} RENAME TO {quoted(name)}")
    else:
        raise SpaceMismatch


async def close(connection: Connection, space: Space) -> None:
    """``Storage.close_space``: waits for each writer that holds a slot. A space that is gone is closed."""
    if await _exists(connection, space):
        await _set_state(connection, space, _CLOSED)


async def open_again(connection: Connection, space: Space) -> None:
    """``Storage.open_space``. Raises ``SpaceMismatch`` where there is nothing that could be opened."""
    if not await _exists(connection, space):
        raise SpaceMismatch
    slots = within(schema_of(space), tables.slots.name)
    found = await connection.fetch(
        f"SELECT epoch, state <> $1 FROM {slots} WHERE org_id = $2 ORDER BY epoch DESC, slot FOR UPDATE",  # noqa: S608
        _CLOSED,
        space.org_id,
    )
    epochs = list(dict.fromkeys(epoch for epoch, _ in found))
    if space.epoch not in epochs:
        busy = any(is_busy for _, is_busy in found)
        if not epochs or busy or epochs[0] > space.epoch:
            raise SpaceMismatch
        await connection.execute(
            f"UPDATE {slots} SET epoch = $1 WHERE org_id = $2 AND epoch = $3",  # noqa: S608  # a quoted name
            space.epoch,
            space.org_id,
            epochs[0],
        )
        await connection.execute(
            f"DELETE FROM {slots} WHERE org_id = $1 AND epoch < $2",  # noqa: S608  # a quoted name
            space.org_id,
            epochs[0],
        )
    await _set_state(connection, space, _OPEN)


async def drop_pooled(connection: Connection, space: Space, batch: int) -> dict[str, int] | None:
    """``Storage.drop_space`` of a pooled space: ``batch`` rows at a time, its slots last."""
    await _refuse_others(connection, space)
    await _set_state(connection, space, _CLOSED)  # what is being removed takes no more writes
    removed: dict[str, int] = {}
    left = batch
    for table in sorted(tables.SPACE, key=lambda table: table is tables.slots):
        target = within(SCHEMA, table.name)
        status = await connection.execute(
            f"DELETE FROM {target} WHERE ctid = ANY (ARRAY("  # noqa: S608  # declared names
            f"SELECT ctid FROM {target} WHERE {quoted(table.scope or '')} = $1 LIMIT $2 FOR UPDATE))",
            space.org_id,
            left,
        )
        removed[table.name] = int(status.rpartition(" ")[2])
        left -= removed[table.name]
    return removed if left < batch else None


async def drop_dedicated(connection: Connection, space: Space) -> dict[str, int] | None:
    """``Storage.drop_space`` of a dedicated space, at once. Raises ``SpaceMismatch`` for a schema that is not ours."""
    name = schema_of(space)
    await _hold(connection, name)
    there = await look(connection, name)
    if there is There.NOTHING:
        return None
    if there is not There.SPACE:
        raise SpaceMismatch
    await _refuse_others(connection, space)
    listed = ", ".join(within(name, table) for table in _TABLES)
    await connection.execute(f"LOCK TABLE {listed} IN ACCESS EXCLUSIVE MODE")  # so that what is counted is what goes
    counts = ", ".join(f"(SELECT count(*) FROM {within(name, table)})" for table in _TABLES)  # noqa: S608
    row = await single(connection, f"SELECT {counts}")
    await connection.execute(f"DROP SCHEMA {quoted(name)} CASCADE")
    return dict(zip(_TABLES, row, strict=True))


async def look(connection: Connection, name: str) -> There:
    """What the schema of this name is to us."""
    schemas, ours, others = await single(
        connection,
        "WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = $1),"
        " ours AS (SELECT c.oid FROM pg_class c JOIN space ON c.relnamespace = space.oid"
        "  WHERE c.relkind = 'r' AND c.relname = ANY ($2))"
        " SELECT (SELECT count(*) FROM space), (SELECT count(*) FROM ours), EXISTS (SELECT FROM pg_depend d, space"
        "  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = space.oid"
        "  AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT oid FROM ours)))",
        name,
        list(_TABLES),
    )
    if not schemas:
        return There.NOTHING
    if others or ours not in (0, len(_TABLES)):
        return There.FOREIGN
    return There.SPACE if ours else There.EMPTY


async def _hold(connection: Connection, *names: str) -> None:
    """Wait for everyone else who makes, renames or drops a schema of such a name."""
    for name in names:
        await connection.execute("SELECT pg_advisory_xact_lock($1::int, hashtext($2))", _SPACE_LOCKS, name)


async def _exists(connection: Connection, space: Space) -> bool:
    """True where the space's tables are."""
    name = space_names.name_of(space)
    return name is None or await look(connection, name) is There.SPACE


async def _refuse_others(connection: Connection, space: Space) -> None:
    """Raise ``SpaceMismatch`` where the tables hold another organization's slots, or this one's under a later epoch."""
    slots = within(schema_of(space), tables.slots.name)
    refused = f"SELECT EXISTS (SELECT FROM {slots} WHERE org_id = $1 AND epoch > $2)"  # noqa: S608  # a quoted name
    if space.kind is PlacementKind.DEDICATED:
        refused += f" OR EXISTS (SELECT FROM {slots} WHERE org_id <> $1)"  # a quoted name
    if await connection.fetchval(refused, space.org_id, space.epoch):
        raise SpaceMismatch


async def _set_state(connection: Connection, space: Space, state: str) -> None:
    slots = within(schema_of(space), tables.slots.name)
    await connection.execute(
        f"UPDATE {slots} SET state = $1 WHERE org_id = $2 AND epoch = $3",  # noqa: S608  # a quoted name
        state,
        space.org_id,
        space.epoch,
    )
