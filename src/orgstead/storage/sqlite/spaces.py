"""Spaces: an organization's data as rows of the pooled tables, or as tables of its own in the same file.

Each function runs inside one transaction that its caller began, DDL included, so a crash leaves all of it or nothing,
and each looks first at what is there, so it may be repeated.
"""

from __future__ import annotations

import sqlite3

from orgstead.errors import SpaceMismatch
from orgstead.model import PlacementKind, Slot, SlotState
from orgstead.storage import space_names, tables
from orgstead.storage.port import FoundSpace, Space
from orgstead.storage.sqlite import failures
from orgstead.storage.sqlite.connections import snapshot
from orgstead.storage.sqlite.statements import create_table, names, physical_name, quoted, statements_of

_SLOTS = "__slots"
_DEDICATED_MARK, _POOLED_MARK = "d:", "p:"
_DEDICATED = "name LIKE 'org^_%^_^_slots' ESCAPE '^' AND type = 'table'"


def create(connection: sqlite3.Connection, space: Space, slots: int) -> None:
    """``Storage.create_space``. Raises ``SpaceMismatch`` over another organization or a later epoch of this one."""
    if space.kind is PlacementKind.DEDICATED:
        mark = f"{space.org_id}__{space.epoch}"  # never the physical name: indexes keep their names when it changes
        for table in tables.SPACE:
            for statement in create_table(table, physical_name(space, table), mark):
                connection.execute(statement)
    _refuse_others(connection, space)
    sql = statements_of(tables.slots, physical_name(space, tables.slots))
    for number in range(slots):
        slot = Slot(org_id=space.org_id, epoch=space.epoch, slot=number, state=SlotState.OPEN)
        connection.execute(f"{sql.insert} ON CONFLICT DO NOTHING", sql.codec.encode(slot))


def rename(connection: sqlite3.Connection, space: Space, name: str) -> None:
    """``Storage.rename_space``."""
    space_names.require_valid(name)
    if space.kind is not PlacementKind.DEDICATED:
        raise SpaceMismatch("A pooled space has no name of its own.")
    target = Space(space.org_id, space.kind, name, space.epoch)
    source_there, target_there = _exists(connection, space), _exists(connection, target)
    if name == space.name and source_there:
        return
    if source_there == target_there:
        raise SpaceMismatch
    if target_there:
        _refuse_others(connection, target)
        return
    _refuse_others(connection, space)
    for table in tables.SPACE:
        old, new = quoted(physical_name(space, table)), quoted(physical_name(target, table))
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")


def close(connection: sqlite3.Connection, space: Space) -> None:
    """``Storage.close_space``. With one writer, whoever held a slot has ended. A space that is gone is closed."""
    if _exists(connection, space):
        _set_state(connection, space, SlotState.CLOSED)


def open_again(connection: sqlite3.Connection, space: Space) -> None:
    """``Storage.open_space``. Raises ``SpaceMismatch`` where there is nothing that could be opened."""
    if not _exists(connection, space):
        raise SpaceMismatch
    slots = quoted(physical_name(space, tables.slots))
    found = connection.execute(
        f"SELECT epoch, max(state <> ?) FROM {slots} WHERE org_id = ? GROUP BY epoch ORDER BY epoch DESC",  # noqa: S608
        (SlotState.CLOSED.value, space.org_id),
    ).fetchall()
    epochs = [epoch for epoch, _ in found]
    if space.epoch not in epochs:
        earlier = [(epoch, busy) for epoch, busy in found if epoch < space.epoch]
        if not earlier or any(busy for _, busy in earlier) or len(earlier) < len(found):
            raise SpaceMismatch
        latest = earlier[0][0]
        connection.execute(
            f"UPDATE {slots} SET epoch = ? WHERE org_id = ? AND epoch = ?",  # noqa: S608  # a quoted name
            (space.epoch, space.org_id, latest),
        )
        connection.execute(
            f"DELETE FROM {slots} WHERE org_id = ? AND epoch < ?",  # noqa: S608  # a quoted name
            (space.org_id, latest),
        )
    _set_state(connection, space, SlotState.OPEN)


def drop(connection: sqlite3.Connection, space: Space, batch: int) -> dict[str, int] | None:
    """``Storage.drop_space``: a dedicated space at once, a pooled one ``batch`` rows at a time, its slots last."""
    if space.kind is PlacementKind.DEDICATED:
        return _drop_tables(connection, space)
    _refuse_others(connection, space)
    _set_state(connection, space, SlotState.CLOSED)  # what is being removed takes no more writes
    removed: dict[str, int] = {}
    left = batch
    for table in sorted(tables.SPACE, key=lambda table: table is tables.slots):
        key = names(table.key)
        target = quoted(table.name)
        removed[table.name] = connection.execute(
            f"DELETE FROM {target} WHERE ({key}) IN"  # noqa: S608  # declared names
            f" (SELECT {key} FROM {target} WHERE {quoted(table.scope or '')} = ? LIMIT ?)",
            (space.org_id, left),
        ).rowcount
        left -= removed[table.name]
    return removed if left < batch else None


def _drop_tables(connection: sqlite3.Connection, space: Space) -> dict[str, int] | None:
    if not _exists(connection, space):
        return None
    _refuse_others(connection, space)
    removed: dict[str, int] = {}
    for table in tables.SPACE:
        target = quoted(physical_name(space, table))
        (removed[table.name],) = connection.execute(f"SELECT count(*) FROM {target}").fetchone()  # noqa: S608
        connection.execute(f"DROP TABLE {target}")
    return removed


def found(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    """``Storage.spaces``: the dedicated ones by name (marks ``d:name``), then the pooled ones (``p:org_id``)."""
    if limit < 1:
        return []
    with snapshot(connection):
        spaces: list[tuple[str, FoundSpace]] = []
        if not after.startswith(_POOLED_MARK):
            spaces = _dedicated(connection, after.removeprefix(_DEDICATED_MARK), limit)
            after = ""
        return spaces + _pooled(connection, after.removeprefix(_POOLED_MARK), limit - len(spaces))


def _dedicated(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    listed = connection.execute(f"SELECT name FROM sqlite_master WHERE {_DEDICATED}")  # noqa: S608  # a constant
    present = sorted(name.removesuffix(_SLOTS) for (name,) in listed)
    spaces = []
    for name in [name for name in present if name > after][:limit]:
        kept = connection.execute(
            f"SELECT DISTINCT org_id, epoch FROM {quoted(name + _SLOTS)} ORDER BY org_id, epoch"  # noqa: S608
        ).fetchall()
        org_id = kept[0][0] if kept else None
        epochs = tuple(epoch for _, epoch in kept)
        spaces.append((_DEDICATED_MARK + name, FoundSpace(org_id, PlacementKind.DEDICATED, name, epochs)))
    return spaces


def _pooled(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[str, FoundSpace]]:
    epochs: dict[str, list[int]] = {}
    for org_id, epoch in connection.execute(
        "SELECT DISTINCT org_id, epoch FROM slots WHERE org_id IN"
        " (SELECT DISTINCT org_id FROM slots WHERE org_id > ? ORDER BY org_id LIMIT ?) ORDER BY org_id, epoch",
        (after, limit),
    ):
        epochs.setdefault(org_id, []).append(epoch)
    return [
        (_POOLED_MARK + org_id, FoundSpace(org_id, PlacementKind.POOLED, None, tuple(kept)))
        for org_id, kept in epochs.items()
    ]


def count_dedicated(connection: sqlite3.Connection) -> int:
    """How many spaces have tables of their own."""
    (count,) = connection.execute(f"SELECT count(*) FROM sqlite_master WHERE {_DEDICATED}").fetchone()  # noqa: S608
    return int(count)


def _exists(connection: sqlite3.Connection, space: Space) -> bool:
    """True where the space's tables are; asking for no row is much quicker than searching a large schema."""
    slots = quoted(physical_name(space, tables.slots))
    try:
        connection.execute(f"SELECT 1 FROM {slots} LIMIT 0").fetchall()  # noqa: S608  # a quoted name
    except sqlite3.OperationalError as error:
        if failures.is_missing_table(error):
            return False
        raise
    return True


def _refuse_others(connection: sqlite3.Connection, space: Space) -> None:
    """Raise ``SpaceMismatch`` where the tables hold another organization's slots, or this one's under a later epoch."""
    slots = quoted(physical_name(space, tables.slots))
    later = f"SELECT 1 FROM {slots} WHERE org_id = ? AND epoch > ? LIMIT 1"  # noqa: S608  # a quoted name
    foreign = f"SELECT 1 FROM {slots} WHERE org_id <> ? LIMIT 1"  # noqa: S608  # a quoted name
    refused = connection.execute(later, (space.org_id, space.epoch)).fetchall()
    if space.kind is PlacementKind.DEDICATED:
        refused = refused or connection.execute(foreign, (space.org_id,)).fetchall()
    if refused:
        raise SpaceMismatch


def _set_state(connection: sqlite3.Connection, space: Space, state: SlotState) -> None:
    slots = quoted(physical_name(space, tables.slots))
    connection.execute(
        f"UPDATE {slots} SET state = ? WHERE org_id = ? AND epoch = ?",  # noqa: S608  # a quoted name
        (state.value, space.org_id, space.epoch),
    )
