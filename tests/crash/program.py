"""A process to be killed: it works on a database and tells on standard output what it began and what was acknowledged.

    python -m tests.crash.program TASK [PLAN [MUTATION]]

The database is the one that the environment variables of the settings name. ``TASK`` is ``create``, ``rename``,
``delete``, ``define``, ``churn`` (again and again, until killed) or ``recover``. Each line of the output is one JSON
list: what happened, and to what. A pipe keeps what a killed process wrote.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import orjson

from orgstead import (
    creation,
    logs,
    organizations,
    purging,
    record_batches,
    record_collections,
    record_definitions,
    records,
    renaming,
)
from orgstead.app import App
from orgstead.config import load
from orgstead.creation import NewOrganization
from orgstead.errors import NotFound, PlacementMoved, Unavailable
from orgstead.model import Placement
from orgstead.placements import space_of
from orgstead.renaming import NewName
from tests import apps
from tests.crash.mutations import MUTATIONS

WRITERS = 3
"""Tasks that write records all the time."""

WRITTEN_FIRST = 5
"""Records that are there before the task begins."""


def tell(*what: str) -> None:
    """Write one line to the parent, whole or not at all (it is shorter than ``PIPE_BUF``)."""
    os.write(1, orjson.dumps(what) + b"\n")


class Writers:
    """Tasks that add records to organizations through the fence, and tell which were acknowledged."""

    def __init__(self, app: App, put: Callable[[App, Placement, str], Awaitable[None]]) -> None:
        self._app = app
        self._put = put
        self._numbers = count(1)
        self._awaited: dict[asyncio.Task[None] | None, asyncio.Event] = {}
        self._running: dict[str, list[asyncio.Task[None]]] = {}

    async def begin(self, org_id: str) -> None:
        """Write to the organization from now on; returns when it has some records."""
        enough = asyncio.Event()
        tasks = [asyncio.create_task(self._write(org_id, enough)) for _ in range(WRITERS)]
        self._running[org_id] = tasks
        waiting = asyncio.create_task(enough.wait())
        await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in tasks:
            if task.done():
                task.result()  # one that failed ends the program, instead of having it wait for ever

    async def write_on(self) -> None:
        """Return when every task has written once more, or found that there is nothing left to write to."""
        for task in [task for tasks in self._running.values() for task in tasks]:
            self._awaited[task] = written = asyncio.Event()
            waiting = asyncio.create_task(written.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def end(self) -> None:
        tasks = [task for tasks in self._running.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, org_id: str, enough: asyncio.Event) -> None:
        """Like a server: take the placement, and write under it, however stale it has become."""
        where = await apps.placement(self._app, org_id)
        while True:
            number = next(self._numbers)
            try:
                await self._put(self._app, where, f"{os.getpid()}-{number}")
            except PlacementMoved:
                try:
                    where = await apps.placement(self._app, org_id)
                except NotFound:
                    return
                continue
            except Unavailable:
                continue  # a server would answer 503: it was not acknowledged
            tell("wrote", org_id, f"{os.getpid()}-{number}")
            if awaited := self._awaited.pop(asyncio.current_task(), None):
                awaited.set()
            if number >= WRITTEN_FIRST:
                enough.set()


# --- tasks ------------------------------------------------------------------------------------------------------------


async def create(app: App, writers: Writers, name: str, plan: str) -> str:
    owner = apps.person(app)
    tell("creating", name)
    new = NewOrganization(name=name, plan=plan, owner=owner, owner_is_new=True)
    found = await creation.create(app, new, apps.TESTER)
    tell("created", name, found.organization.id, found.organization.slug)
    await writers.begin(found.organization.id)
    return found.organization.id


async def create_record(app: App, where: Placement, id: str) -> None:
    """Add a record as the product does: with its entries in the indexes of its collection."""
    data = apps.record(where.org_id, id).data
    terms = record_batches.terms_of(app, "enterprise", apps.TESTER)
    await app.cell(where.cell).run(space_of(where), records.create, space_of(where), "notes", data, terms, id=id)


async def define(app: App, org_id: str) -> None:
    """Another index instead of the one that there is, over more records than one batch."""
    tell("defining", org_id)
    terms = record_batches.terms_of(app, "enterprise", apps.TESTER)
    definition = record_definitions.parse(indexes=[["-/id"]])
    where = await apps.placement(app, org_id)
    await record_collections.define(app, where, "notes", definition, terms, apps.TESTER)
    tell("defined", org_id)


async def rename(app: App, org_id: str, name: str) -> None:
    tell("renaming", org_id, name)
    found, operation = await renaming.rename(app, org_id, NewName(name=name), apps.TESTER)
    if operation is None:  # otherwise it was only promised, and whoever goes on with it renames later
        tell("renamed", org_id, found.organization.slug)


async def delete(app: App, org_id: str) -> None:
    tell("deleting", org_id)
    await app.storage.run(apps.SCOPE, organizations.close, org_id, timedelta(), actor=apps.TESTER, at=app.clock())
    await purging.purge(app, org_id, apps.TESTER)
    tell("deleted", org_id)


async def churn(app: App, writers: Writers) -> None:
    for number in count(1):
        plan = "enterprise" if number % 2 else "free"
        org_id = await create(app, writers, f"Churn {os.getpid()} {number}", plan)
        await rename(app, org_id, f"Churned {os.getpid()} {number}")
        if number % 3 == 0:
            await delete(app, org_id)
        else:
            await writers.end()


TASKS: dict[str, Callable[[App, str], Awaitable[None]]] = {
    "rename": lambda app, org_id: rename(app, org_id, "Renamed"),
    "delete": delete,
    "define": define,
}


@asynccontextmanager
async def opened() -> AsyncIterator[App]:
    app = await App.open(load(environ=os.environ).settings)
    yield app
    await app.close()


async def main(task: str, plan: str = "free", mutation: str = "none") -> None:
    mutate: Callable[[], None] = MUTATIONS[mutation]
    mutate()
    async with opened() as app:
        writers = Writers(app, create_record if task == "define" else apps.write)
        if task == "recover":
            await apps.recover(app)
        elif task == "churn":
            await churn(app, writers)
        elif task == "create":
            await create(app, writers, "Created", plan)
        else:
            org_id = await app.storage.read(apps.SCOPE, organizations.resolve, "target")
            await writers.begin(org_id)
            await TASKS[task](app, org_id)
        await writers.write_on()
        tell("done")
        await writers.end()


if __name__ == "__main__":
    logs.configure()  # to standard error: standard output is the history
    asyncio.run(main(*sys.argv[1:]))
