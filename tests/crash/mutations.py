"""Faults that the crash suite must find: each takes one safeguard away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from orgstead import creation, events, kit, operations, placements, renaming
from orgstead.app import App
from orgstead.creation import Draft
from orgstead.model import Event, Json, Operation
from orgstead.storage import tables
from orgstead.storage.port import Space, Table, Transaction


def none() -> None:
    """Everything as it is."""


def operation_after_effect() -> None:
    """The operation's row is written once the space is there, not before."""
    write_intent, make_space = creation.write_intent, creation.make_space
    late: dict[str, Operation] = {}

    async def without_operation(tx: Transaction, drawn: Draft, *args: Any) -> None:
        late[drawn.organization.id] = drawn.operation
        await write_intent(tx, drawn, *args)
        await tx.remove(tables.operations, drawn.organization.id, drawn.operation.id)

    async def then_operation(app: App, operation: Operation) -> Mapping[str, Json]:
        found = await make_space(app, operation)
        await app.storage.run(operations.SCOPE, _add, tables.operations, late[operation.org_id])
        return found

    _replace(creation, "write_intent", without_operation)
    kind = operations.KINDS[creation.CREATE]
    operations.register(replace(kind, steps=(replace(kind.steps[0], effect=then_operation),)))


def events_outside() -> None:
    """Events are written after the transaction that made them happen."""
    finish = operations.finish
    late: list[Event] = []

    async def emit(tx: Transaction, org_id: str, type: str, data: Any = None, *, at: datetime) -> None:
        late.append(Event(org_id=org_id, id=kit.new_id("evt"), type=type, data=dict(data or {}), created_at=at))

    async def then_events(app: App, operation: Operation, within: float) -> Operation:
        ended = await finish(app, operation, within)
        while late:
            await app.storage.run(operations.SCOPE, _add, tables.events, late.pop())
        return ended

    _replace(events, "emit", emit)
    _replace(operations, "finish", then_events)


def flip_first() -> None:
    """A rename is written into the directory before the space is renamed."""
    kind = operations.KINDS[renaming.RENAME]
    by_name = {step.name: step for step in kind.steps}
    operations.register(replace(kind, steps=tuple(by_name[name] for name in ("close", "flip", "rename", "open"))))


def no_fence() -> None:
    """Writes to a space neither ask nor count."""

    async def enter(tx: Transaction, space: Space, **_: Any) -> bool:
        return True

    _replace(placements, "enter", enter)


async def _add(tx: Transaction, table: Table[Any], row: Any) -> None:
    await tx.add(table, row)


def _replace(module: object, name: str, function: object) -> None:
    assert hasattr(module, name)
    setattr(module, name, function)


MUTATIONS: Mapping[str, Callable[[], None]] = {
    "none": none,
    "operation_after_effect": operation_after_effect,
    "events_outside": events_outside,
    "flip_first": flip_first,
    "no_fence": no_fence,
}
