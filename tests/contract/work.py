"""Scopes and small units of work that the tests of the contract share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from orgstead.errors import PlacementMoved
from orgstead.model import PlacementKind, Slot, SlotState
from orgstead.storage.port import FoundSpace, Home, OrgScope, Scope, Space, Storage, SystemScope, Table, Transaction
from orgstead.storage.tables import records, slots
from tests.rows import sample, token

SYSTEM = SystemScope("contract suite")
POOLED, DEDICATED = PlacementKind.POOLED, PlacementKind.DEDICATED
KINDS = (POOLED, DEDICATED)


def places(tables: Iterable[Table[Any]]) -> list[Any]:
    """Parameters (table, kind): a directory's table once, a space's table in each kind of space."""
    return [
        pytest.param(table, kind, id=f"{table.name}-{kind}" if table.home is Home.SPACE else table.name)
        for table in tables
        for kind in (KINDS if table.home is Home.SPACE else (POOLED,))
    ]


def space_of(org: str, kind: PlacementKind, epoch: int = 1, name: str | None = None) -> Space:
    """A space that no other test has, unless ``name`` says which."""
    return Space(org, kind, (name or space_name()) if kind is DEDICATED else None, epoch)


def space_name() -> str:
    """A physical name as slugs give it: with a hyphen, which engines must quote."""
    return f"org_{token('t').replace('_', '-')}"


async def home(storage: Storage, table: Table[Any], org: str, kind: PlacementKind = POOLED) -> Scope:
    """The scope in which the organization's rows of the table live; its space is made if it needs one."""
    if table.home is Home.DIRECTORY:
        return OrgScope(org)
    space = space_of(org, kind)
    await storage.create_space(space)
    return space


async def _call(tx: Transaction, verb: str, /, *args: Any, **kwargs: Any) -> Any:
    return await getattr(tx, verb)(*args, **kwargs)


async def do(storage: Storage, scope: Scope, verb: str, /, *args: Any, **kwargs: Any) -> Any:
    """One verb as a transaction of its own."""
    return await storage.run(scope, _call, verb, *args, **kwargs)


async def look(storage: Storage, scope: Scope, verb: str, table: Table[Any], /, *args: Any, **kwargs: Any) -> Any:
    """One reading verb on its own snapshot."""
    return await storage.read(scope, _call, verb, table, *args, **kwargs)


async def add_each(tx: Transaction, table: Table[Any], rows: Iterable[Any]) -> None:
    for row in rows:
        await tx.add(table, row)


async def rows_of(storage: Storage, scope: Scope, table: Table[Any], limit: int = 1000, **where: Any) -> list[Any]:
    """The rows equal to ``where`` that the scope can see, in the order of their key."""
    found: list[Any] = await look(storage, scope, "page", table, where, limit=limit)
    return found


async def slots_of(storage: Storage, space: Space) -> dict[tuple[int, int], Slot]:
    """The space's slots by epoch and number."""
    return {(slot.epoch, slot.slot): slot for slot in await rows_of(storage, space, slots, org_id=space.org_id)}


async def enter(tx: Transaction, space: Space, /, *, slot: int = 0, **deltas: int) -> bool:
    """The fence: what every write to a space begins with. False when the space is closed or was moved."""
    key = (space.org_id, space.epoch, slot)
    return await tx.adjust(slots, *key, deltas=deltas or {"records": 1}, where={"state": SlotState.OPEN})


async def listed(storage: Storage, org: str, *names: str | None, limit: int = 1000) -> list[FoundSpace]:
    """What ``spaces`` says of the organization, and of these physical names, read page by page."""
    found: list[tuple[str, FoundSpace]] = []
    while page := await storage.spaces(after=found[-1][0] if found else "", limit=limit):
        assert len(page) <= limit
        found += page
        assert len(found) == len({mark for mark, _ in found}), "a space is listed twice"
    return [space for _, space in found if space.org_id == org or (space.name and space.name in names)]


def entry(space: Space, *epochs: int) -> FoundSpace:
    """How ``spaces`` lists the space, under its own epoch unless others are named."""
    return FoundSpace(space.org_id, space.kind, space.name, epochs or (space.epoch,))


async def store(tx: Transaction, space: Space, count: int = 1) -> None:
    """A write as the product makes it: the fence first, then the data."""
    if not await enter(tx, space, records=count, bytes=10 * count):
        raise PlacementMoved
    await add_each(tx, records, [sample(records, space.org_id) for _ in range(count)])


async def states(storage: Storage, space: Space) -> dict[tuple[int, int], tuple[SlotState, int, int]]:
    """State, records and bytes of each slot, by epoch and number."""
    return {key: (slot.state, slot.records, slot.bytes) for key, slot in (await slots_of(storage, space)).items()}
