"""Apps over new databases, people, records written through the fence, and the check that all is in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from orgstead import audit, creation, integrity, kit, operations, organizations, placements, purging, resuming
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.creation import NewOrganization
from orgstead.integrity_findings import Finding
from orgstead.model import Json, Operation, OperationState, Placement, Record, User
from orgstead.organizations import Located
from orgstead.settings import Settings
from orgstead.storage import tables
from orgstead.storage.port import Space, SystemScope, Table, Transaction
from tests.engines import Database

SCOPE = SystemScope("tests")
TESTER = Actor("usr_tester")


@dataclass
class Clock:
    """The time, plus what a test has let pass."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return kit.now() + self.ahead

    def pass_(self, time: timedelta) -> None:
        self.ahead += time


@asynccontextmanager
async def opened(database: Database, *, clock: kit.Clock | None = None, **settings: Any) -> AsyncIterator[App]:
    """An App over the database, migrated; ``settings`` are those of the service."""
    async with database.opened() as storage:
        app = App(Settings.model_validate({**database.settings, **settings}), storage, clock=clock or Clock())
        yield app
        await app.close()


def second_process(app: App) -> App:
    """Another process's App on the same database: with a name of its own in leases."""
    return App(app.settings, app.storage, clock=app.clock)


def person(app: App) -> User:
    """A person who is not stored yet."""
    user_id, at = kit.new_id("usr"), app.clock()
    email = f"{user_id}@example.com"
    return User(id=user_id, email=email, email_key=email, password_hash="!", created_at=at, updated_at=at)


async def created(app: App, name: str, plan: str = "free", **fields: Any) -> Located:
    """A new organization with a new owner."""
    owner = person(app)
    new = NewOrganization(name=name, plan=plan, owner=owner, owner_is_new=True, **fields)
    return await creation.create(app, new, Actor(owner.id))


async def purged(app: App, org_id: str) -> Operation:
    """Close the organization and purge it at once; returns the operation that did it."""
    await app.storage.run(SCOPE, organizations.close, org_id, timedelta(), actor=TESTER, at=app.clock())
    return await purging.purge(app, org_id, TESTER)


async def rows(app: App, table: Table[Any], **where: Any) -> list[Any]:
    """Up to a thousand rows of a table of the directory."""
    return await app.storage.read(SCOPE, _page, table, where)


async def _page(tx: Transaction, table: Table[Any], where: dict[str, Any]) -> list[Any]:
    return await tx.page(table, where, limit=1000)


async def begin_chain(
    tx: Transaction, org_id: str, actor: Actor, action: str, facts: Mapping[str, Json], *, at: datetime
) -> None:
    """Add the first entry of an organization's audit chain. The organization itself need not exist."""
    entry, head = audit.beginning(org_id, actor, action, facts, at=at)
    await tx.add(tables.audit_entries, entry)
    await tx.add(tables.audit_heads, head)


async def placement(app: App, org_id: str) -> Placement:
    return (await app.storage.read(SCOPE, organizations.get, org_id)).placement


# --- records ----------------------------------------------------------------------------------------------------------


def record(org_id: str, id: str) -> Record:
    """The record of this id: its content follows from it, so that half a record is seen."""
    data = {"id": id, "text": id * 20}
    at = kit.now()
    size = len(orjson.dumps(data))
    return Record(org_id=org_id, collection="notes", id=id, data=data, bytes=size, created_at=at, updated_at=at)


async def put(tx: Transaction, space: Space, record: Record) -> None:
    """Add a record as every write to a space does: through the fence, in one transaction."""
    assert await placements.enter(tx, space, deltas={"records": 1, "bytes": record.bytes}), "there is no limit"
    await tx.add(tables.records, record)


async def write(app: App, where: Placement, id: str) -> None:
    """Add the record of this id under a placement that may have become stale."""
    space = placements.space_of(where)
    await app.cell(where.cell).run(space, put, space, record(where.org_id, id))


async def records(app: App, where: Placement) -> dict[str, Record]:
    """All records of a space, by id."""
    found: dict[str, Record] = {}
    after: tuple[str, str, str] | None = None
    space = placements.space_of(where)
    while batch := await app.cell(where.cell).scan(space, _records, after):
        found.update((record.id, record) for record in batch)
        after = (batch[-1].org_id, batch[-1].collection, batch[-1].id)
    return found


async def _records(tx: Transaction, after: tuple[str, str, str] | None) -> list[Record]:
    return await tx.page(tables.records, after=after, limit=1000)


async def space_names(app: App) -> set[str]:
    """The physical names of the dedicated spaces that are there."""
    return {found.name for _, found in await app.storage.spaces() if found.name}


# --- order ------------------------------------------------------------------------------------------------------------


async def findings(app: App, *, repair: bool = False) -> list[Finding]:
    return [finding async for finding in integrity.fsck(app, repair=repair)]


async def recover(app: App) -> None:
    """Go on with everything that dead processes left behind, as a worker does, without waiting for leases.

    One of those processes may have been recovering itself, with a clock that was ahead already.
    """
    await resuming.adopt_left_behind(app)
    clock = app.clock
    ahead = max([operation.lease_until - clock() for operation in await running(app)], default=timedelta())
    app.clock = lambda: clock() + max(ahead, timedelta()) + 2 * operations.LEASE
    try:
        while await resuming.resume_due(app):
            pass
    finally:
        app.clock = clock


async def running(app: App) -> list[Operation]:
    return await rows(app, tables.operations, state=OperationState.RUNNING)


async def assert_clean(app: App) -> None:
    """Nothing is at work, and ``fsck`` finds nothing."""
    assert await running(app) == []
    assert await findings(app) == []
