"""The process is killed at every failpoint, and again while another one recovers: nothing acknowledged is ever lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from orgstead import (
    failpoints,
    operations,
    placements,
    record_batches,
    record_collections,
    record_definitions,
    record_import,
)
from orgstead.app import App
from orgstead.model import PlacementKind
from orgstead.record_import import Line
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from tests import apps
from tests.crash.history import History, violations
from tests.crash.processes import program
from tests.engines import Database, empty_database, for_real, selected, with_real
from tests.support import sample

pytestmark = pytest.mark.anyio

RECOVERY_SECONDS = 30
BEFORE = 1200
"""Records that the organization has: more than one batch of a purge."""

POOLED, DEDICATED = "free", "enterprise"


@dataclass(frozen=True)
class Kill:
    """A task that is killed at a failpoint (or not at all), and whose recovery is killed at another (or not)."""

    engine: str
    task: str
    plan: str
    point: str | None = None
    again: str | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, (self.engine, self.plan, self.point or self.task, self.again)))


TASKS: dict[tuple[str, str], list[tuple[str, list[str]]]] = {
    ("create", POOLED): (
        creating := [
            ("create.before_intent", []),
            ("create.after_claim", ["create.after_space", "create.after_activate"]),
            ("create.after_space", ["create.after_space", "create.after_activate"]),
            ("create.after_activate", []),
        ]
    ),
    ("create", DEDICATED): creating,
    ("rename", DEDICATED): [
        (
            "rename.after_claim",
            ["rename.after_close", "rename.after_rename", "rename.after_flip", "rename.before_open"],
        ),
        ("rename.after_close", ["rename.after_rename", "rename.after_flip", "rename.before_open"]),
        ("rename.after_rename", ["rename.after_flip", "rename.before_open"]),
        ("rename.after_flip", ["rename.before_open"]),
        ("rename.before_open", ["rename.before_open"]),
    ],
    ("delete", POOLED): [
        ("delete.after_close", ["delete.mid_purge", "delete.after_drop"]),
        ("delete.mid_purge", ["delete.mid_purge", "delete.after_drop"]),
        ("delete.after_drop", []),
    ],
    ("delete", DEDICATED): [
        ("delete.after_close", ["delete.mid_purge", "delete.after_drop"]),
        ("delete.mid_purge", ["delete.after_drop"]),
        ("delete.after_drop", []),
    ],
    ("define", POOLED): (
        defining := [
            (
                "define.after_announce",
                ["define.mid_build", "define.after_build", "define.after_settle", "define.mid_sweep"],
            ),
            ("define.mid_build", ["define.mid_build", "define.after_build", "define.after_settle", "define.mid_sweep"]),
            ("define.after_build", ["define.after_settle", "define.mid_sweep"]),
            ("define.after_settle", ["define.mid_sweep"]),
            ("define.mid_sweep", ["define.mid_sweep"]),
        ]
    ),
    ("define", DEDICATED): defining,
}
"""(task, plan) -> its failpoints in order, each with those that its recovery passes."""

ONCE = [
    Kill(engine, task, plan, point)
    for engine in selected()
    for (task, plan), points in TASKS.items()
    for point in [point for point, _ in points] + [None]
]
TWICE = [
    Kill(engine, task, plan, point, again)
    for engine in selected()
    for (task, plan), points in TASKS.items()
    for point, passed in points
    for again in passed
]


def on_engines(kills: Iterable[Kill]) -> list[pytest.ParameterSet]:
    """Kills as parameters. The stand-in for MongoDB keeps what a killed client holds for longer than a recovery has."""
    return [with_real(kill.engine, kill) for kill in kills]


def test_every_failpoint_of_an_operation_is_tried() -> None:
    tried = {kill.point for kill in ONCE if kill.point}
    elsewhere = ("idempotency.", "import.")  # the latter in tests/use_cases/test_archives.py, which makes archives
    assert tried == {name for name in failpoints.NAMES if not name.startswith(elsewhere)}


@pytest.mark.parametrize("kill", on_engines(sample("kills at a failpoint", ONCE, 6)), ids=str)
async def test_a_death_at_any_failpoint_is_recovered_from(kill: Kill) -> None:
    async with empty_database(kill.engine) as database:
        assert await survived(database, kill) == []


@pytest.mark.parametrize("kill", on_engines(sample("kills of a recovery", TWICE, 2)), ids=str)
async def test_a_death_while_recovering_is_recovered_from(kill: Kill) -> None:
    async with empty_database(kill.engine) as database:
        assert await survived(database, kill) == []


@pytest.mark.parametrize("engine", for_real())
@pytest.mark.parametrize(
    ("mutation", "task", "plan", "point"),
    [
        ("operation_after_effect", "create", POOLED, "create.after_claim"),
        ("events_outside", "create", POOLED, "create.after_activate"),
        ("flip_first", "rename", DEDICATED, "rename.after_flip"),
        ("no_fence", "rename", DEDICATED, None),
    ],
)
async def test_the_suite_finds_a_missing_safeguard(
    engine: str, mutation: str, task: str, plan: str, point: str | None
) -> None:
    async with empty_database(engine) as database:
        assert await survived(database, Kill(engine, task, plan, point), mutation)


# --- how --------------------------------------------------------------------------------------------------------------


async def survived(database: Database, kill: Kill, mutation: str = "none") -> list[str]:
    """Set up, have the process killed, recover; what was found wrong then."""
    history = History()
    async with apps.opened(database) as app:
        if kill.task != "create":
            await set_up(app, kill.plan, history, indexed=kill.task == "define")
    run_until(kill.point, history, database, kill.task, kill.plan, mutation)
    if kill.again:
        run_until(kill.again, history, database, "recover")
    # Whoever died while recovering had set its clock ahead; where others can write, its leases are waited for, too.
    clock = apps.Clock(2 * operations.LEASE if kill.again else timedelta())
    async with apps.opened(database, clock=clock) as app, asyncio.timeout(RECOVERY_SECONDS):
        await apps.recover(app)
        found = await violations(app, history)
        if not found and kill.task == "create" and not await apps.rows(app, tables.slugs, slug="created"):
            await apps.created(app, "Created", kill.plan)
            await apps.assert_clean(app)
        return found


async def set_up(app: App, plan: str, history: History, *, indexed: bool = False) -> None:
    located = await apps.created(app, "Target", plan)
    assert (located.placement.kind is PlacementKind.POOLED) == (plan == POOLED)
    org_id = located.organization.id
    history.note("created", "Target", org_id, located.organization.slug)
    if indexed:
        terms = record_batches.terms_of(app, "enterprise", apps.TESTER)
        definition = record_definitions.parse(indexes=[["text"]])
        await record_collections.define(app, located.placement, "notes", definition, terms, apps.TESTER)
        lines = [Line(n, apps.record(org_id, f"before-{n}").data, f"before-{n}") for n in range(BEFORE)]
        async for _ in record_import.import_records(app, located.placement, "notes", lines, terms):
            pass
    else:
        await app.storage.run(placements.space_of(located.placement), _fill, org_id)
    history.written[org_id] = {f"before-{number}" for number in range(BEFORE)}


async def _fill(tx: Transaction, org_id: str) -> None:
    records = [apps.record(org_id, f"before-{number}") for number in range(BEFORE)]
    deltas = {"records": BEFORE, "bytes": sum(record.bytes for record in records)}
    await tx.adjust(tables.slots, org_id, 1, 0, deltas=deltas)
    for record in records:
        await tx.add(tables.records, record)


def run_until(failpoint: str | None, history: History, database: Database, *task: str) -> None:
    """Run the program until it kills itself at the failpoint, or to its end where that is None."""
    with program(history, database, *task, failpoint=failpoint) as process:
        status = process.end()
    assert status == (-signal.SIGKILL if failpoint else 0), f"{failpoint} was not reached"
