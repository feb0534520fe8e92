"""Imports: every line is accounted for, none is lost or merged, and running again changes nothing."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orgstead import importing, names, resuming
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.errors import StorageFull
from orgstead.failpoints import arm
from orgstead.importing import NO_PASSWORD, Line, Outcome, Result
from orgstead.model import OrganizationStatus, PlacementKind, Role, SlugClaim, SlugState
from orgstead.operations import LEASE
from orgstead.storage import tables
from orgstead.storage.port import DEDICATED_AT_ONCE, Digest, Space, Transaction
from tests import apps
from tests.engines import Database, at_most, empty_database, selected
from tests.support import EVERYTHING, PROJECT, sampled

pytestmark = pytest.mark.anyio


def lines(*fields: Mapping[str, str]) -> list[Line]:
    """Lines of a file whose first line is a header."""
    return [Line(number, line) for number, line in enumerate(fields, 2)]


def numbered(count: int, **more: str) -> list[Line]:
    return lines(*({"external_id": f"x-{n}", "name": f"Name {n}", **more} for n in range(count)))


async def imported(app: App, work: Iterable[Line], **options: Any) -> list[Outcome]:
    return [o async for batch in importing.import_organizations(app, work, OPERATOR, **options) for o in batch]


async def one(app: App, **fields: str) -> Outcome:
    (outcome,) = await imported(app, lines({"external_id": "x-1", "name": "Acme", **fields}))
    return outcome


async def digests(app: App) -> list[Digest]:
    return [await app.storage.digest(apps.SCOPE, table) for table in tables.DIRECTORY]


# --- what a line becomes ----------------------------------------------------------------------------------------------


async def test_an_owner_that_the_plan_has_no_room_for_refuses_the_line(database: Database) -> None:
    async with apps.opened(database, plans={"free": {"max_members": 0}}) as app:
        work = lines(
            {"external_id": "x-1", "name": "One", "owner_email": "one@example.com"},
            {"external_id": "x-2", "name": "Two"},
        )
        first, second = await imported(app, work)
        assert first.result is Result.REFUSED
        assert first.reason == "The plan free allows 0 members, and its owner would make 1; choose another plan."
        assert second.result is Result.CREATED
        assert await apps.rows(app, tables.users) == []
        await apps.assert_clean(app)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_line_becomes_an_active_organization(app: App, plan: str) -> None:
    outcome = await one(app, plan=plan)
    (organization,) = await apps.rows(app, tables.organizations)
    assert outcome == Outcome(2, "x-1", Result.CREATED, organization.id, "acme")
    assert (organization.external_id, organization.name, organization.plan) == ("x-1", "Acme", plan)
    assert (organization.status, organization.operation_id) == (OrganizationStatus.ACTIVE, None)
    assert [event.type for event in await apps.rows(app, tables.events)] == ["organization.created"]
    assert [entry.actor for entry in await apps.rows(app, tables.audit_entries)] == ["operator"]
    assert len(await app.storage.spaces()) == 1


async def test_the_plan_of_lines_that_name_none(app: App) -> None:
    await imported(app, numbered(2), plan="enterprise")
    assert {p.kind for p in await apps.rows(app, tables.placements)} == {PlacementKind.DEDICATED}
    await one(app, external_id="other", name="Other")
    assert (await apps.rows(app, tables.organizations, external_id="other"))[0].plan == app.settings.default_plan


async def test_an_owner_gets_an_account_that_nobody_can_log_in_to_yet(app: App) -> None:
    await imported(
        app,
        lines(
            {"external_id": "1", "name": "One", "owner_email": "Owner@Example.com"},
            {"external_id": "2", "name": "Two", "owner_email": "owner@example.COM"},
        ),
    )
    (user,) = await apps.rows(app, tables.users)
    assert (user.email_key, user.password_hash) == ("owner@example.com", NO_PASSWORD)
    memberships = await apps.rows(app, tables.memberships)
    assert {(m.user_id, m.role) for m in memberships} == {(user.id, Role.OWNER)}
    assert len(memberships) == 2


async def test_an_owner_who_has_an_account_keeps_it(app: App) -> None:
    await apps.created(app, "Before")
    (user,) = await apps.rows(app, tables.users)
    await one(app, owner_email=user.email)
    assert await apps.rows(app, tables.users) == [user]
    assert len(await apps.rows(app, tables.memberships, user_id=user.id)) == 2


async def test_a_slug_is_taken_as_given(app: App) -> None:
    assert (await one(app, slug="given-slug")).slug == "given-slug"


async def test_taken_and_reserved_slugs_get_a_number_and_say_so(app: App) -> None:
    await apps.created(app, "Acme")
    found = await imported(
        app,
        lines(
            {"external_id": "1", "name": "ACME"},
            {"external_id": "2", "name": "Acme."},
            {"external_id": "3", "name": "Admin"},
            {"external_id": "4", "name": "Admin"},
            {"external_id": "5", "name": "Other", "slug": "acme"},
        ),
    )
    assert [(o.result, o.slug) for o in found] == [
        (Result.RENAMED, "acme-2"),
        (Result.RENAMED, "acme-3"),
        (Result.RENAMED, "admin-2"),
        (Result.RENAMED, "admin-3"),
        (Result.RENAMED, "acme-4"),
    ]
    assert ["taken" in str(o.reason) for o in found] == [True, True, False, False, True]
    assert ["reserved" in str(o.reason) for o in found] == [False, False, True, True, False]


async def test_a_quarantined_slug_is_not_given_away(app: App) -> None:
    await apps.purged(app, (await apps.created(app, "Acme")).organization.id)
    assert (await one(app)).slug == "acme-2"


REFUSED: list[dict[str, str]] = [
    {"external_id": ""},
    {"external_id": "x" * 256},
    {"external_id": "a\nb"},
    {"external_id": "a\x00b"},
    {"name": ""},
    {"name": "   "},
    {"name": "x" * 1000},
    {"name": "a\ud800b"},
    {"plan": "nonsense"},
    {"slug": "Not A Slug"},
    {"slug": "a--b"},
    {"slug": "../../etc/passwd"},
    {"owner_email": "nobody"},
    {"owner_email": "a@b@c"},
    {"owner_email": "a\ud800b@example.com"},
    {"owner_email": "a\0b@example.com"},
    {"owner_email": "a@" + "x" * 300 + ".com"},
    {"owner_email": "a@[127.0.0.1]"},
    {"slug": "a\ud800b"},
    {"slug": "new\0"},
    {"plan": "free\0"},
    {"plan": "\ud800"},
]


@pytest.mark.parametrize("fields", REFUSED, ids=lambda fields: ascii(fields)[:40])
async def test_what_cannot_be_imported_is_refused_with_a_reason_and_stops_nothing(
    app: App, fields: dict[str, str]
) -> None:
    bad = {"external_id": "x-1", "name": "Bad", **fields}
    before, refused, after = await imported(
        app, lines({"external_id": "b", "name": "Before"}, bad, {"external_id": "a", "name": "After"})
    )
    assert (before.result, after.result) == (Result.CREATED, Result.CREATED)
    assert (refused.line, refused.result, refused.organization_id, refused.slug) == (3, Result.REFUSED, None, None)
    assert refused.reason
    (value,) = fields.values()
    assert len(value) < 3 or value not in refused.reason, "input is not echoed"
    assert len(await apps.rows(app, tables.organizations)) == 2


async def test_a_line_that_cannot_be_read_is_refused(app: App) -> None:
    (outcome,) = await imported(app, [Line(7, {}, "The line is not JSON.")])
    assert outcome == Outcome(7, "", Result.REFUSED, reason="The line is not JSON.")


@pytest.mark.parametrize(
    "name",
    [
        "'; drop table organizations; --",
        "$where",
        "a.b",
        "İstanbul",
        "株式会社",
        "Ünïcödé",
        "=cmd|' /C calc'!A0",
    ],
)
async def test_hostile_names_are_names(app: App, name: str) -> None:
    await one(app, name=name)
    (organization,) = await apps.rows(app, tables.organizations)
    assert organization.name == names.cleaned_name(name)
    assert names.checked_slug(organization.slug) == organization.slug


async def test_a_budget_that_is_exhausted_refuses_the_rest(database: Database) -> None:
    async with apps.opened(database, placement={"max_dedicated": 2, "warn_dedicated": 1}) as app:
        found = await imported(app, numbered(5, plan="enterprise"))
        assert [o.result for o in found] == [Result.CREATED] * 2 + [Result.REFUSED] * 3
        assert len(await apps.rows(app, tables.slugs)) == 2
        await apps.assert_clean(app)


async def test_a_space_that_cannot_be_made_refuses_its_line_only(app: App) -> None:
    """Another organization's space has the name."""
    left = Space("org_gone", PlacementKind.DEDICATED, "org_name-1", 1)
    await app.storage.create_space(left)
    found = await imported(app, numbered(3, plan="enterprise"))
    assert [o.result for o in found] == [Result.CREATED, Result.REFUSED, Result.CREATED]
    while await app.storage.drop_space(left):
        pass
    again = await imported(app, numbered(3, plan="enterprise"))
    assert [o.result for o in again] == [Result.EXISTS, Result.CREATED, Result.EXISTS]


async def test_dedicated_spaces_are_made_as_many_at_once_as_a_server_has_locks_for(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Counter[PlacementKind]] = []
    create_spaces = app.storage.create_spaces

    async def counted(spaces: Sequence[Space]) -> None:
        made.append(Counter(space.kind for space in spaces))
        await create_spaces(spaces)

    monkeypatch.setattr(app.storage, "create_spaces", counted)
    dedicated = DEDICATED_AT_ONCE + 1
    work = [
        {"external_id": f"x-{n}", "name": f"Name {n}", "plan": "enterprise" if n < dedicated else "free"}
        for n in range(2 * dedicated)
    ]
    found = await imported(app, lines(*work))
    assert {outcome.result for outcome in found} == {Result.CREATED}
    assert [calls[PlacementKind.DEDICATED] for calls in made if PlacementKind.DEDICATED in calls] == [
        DEDICATED_AT_ONCE,
        1,
    ]
    assert [calls[PlacementKind.POOLED] for calls in made if PlacementKind.POOLED in calls] == [dedicated]
    assert len(await app.storage.spaces()) == 2 * dedicated
    await apps.assert_clean(app)


# --- again, interrupted, side by side ---------------------------------------------------------------------------------


async def test_the_same_external_id_twice_in_a_file_is_one_organization(app: App) -> None:
    first, second = await imported(
        app, lines({"external_id": "1", "name": "One"}, {"external_id": "1", "name": "Another"})
    )
    assert (first.result, second.result) == (Result.CREATED, Result.EXISTS)
    assert first.organization_id == second.organization_id
    assert [o.name for o in await apps.rows(app, tables.organizations)] == ["One"]


@pytest.mark.parametrize("batch", [1, 3, 200])
async def test_outcomes_come_in_the_order_of_the_lines_and_again_change_nothing(
    app: App, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(importing, "BATCH", batch)
    work = [*numbered(5), Line(9, {"name": "Bad"}), Line(10, {"external_id": "x-9", "name": "Name 0"})]
    found = await imported(app, work)
    assert [o.line for o in found] == [line.number for line in work]
    assert Counter(o.result for o in found) == {Result.CREATED: 5, Result.REFUSED: 1, Result.RENAMED: 1}
    before = await digests(app)
    again = await imported(app, work)
    assert Counter(o.result for o in again) == {Result.EXISTS: 6, Result.REFUSED: 1}
    assert [(o.organization_id, o.slug) for o in again] == [(o.organization_id, o.slug) for o in found]
    assert await digests(app) == before


async def test_lines_are_read_as_they_are_needed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    read: list[int] = []

    def source() -> Iterator[Line]:
        for line in numbered(6):
            read.append(line.number)
            yield line

    outcomes = importing.import_organizations(app, source(), OPERATOR)
    assert len(await anext(outcomes)) == 2
    assert len(read) == 2
    await outcomes.aclose()
    assert len(await apps.rows(app, tables.organizations)) == 2


async def test_a_full_disk_stops_the_import_and_what_was_done_stays(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    write = importing._write_intents
    calls: list[int] = []

    async def fills_up(tx: Transaction, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StorageFull
        return await write(tx, *args)

    monkeypatch.setattr(importing, "_write_intents", fills_up)
    outcomes = importing.import_organizations(app, numbered(6), OPERATOR)
    assert [o.result for o in await anext(outcomes)] == [Result.CREATED] * 2
    with pytest.raises(StorageFull):
        await anext(outcomes)
    again = await imported(app, numbered(6))
    assert Counter(o.result for o in again) == {Result.EXISTS: 2, Result.CREATED: 4}


async def test_what_a_full_disk_leaves_begun_is_told_and_the_next_run_completes_it(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_spaces, create_space = app.storage.create_spaces, app.storage.create_space

    async def full(*_: Any) -> None:
        raise StorageFull

    async def nearly_full(space: Space) -> None:
        monkeypatch.setattr(app.storage, "create_space", full)
        await create_space(space)

    monkeypatch.setattr(app.storage, "create_spaces", full)
    monkeypatch.setattr(app.storage, "create_space", nearly_full)
    outcomes = importing.import_organizations(app, [*numbered(3), Line(9, {})], OPERATOR)
    found = await anext(outcomes)
    assert [o.result for o in found] == [Result.CREATED, Result.BEGUN, Result.BEGUN, Result.REFUSED]
    with pytest.raises(StorageFull):
        await anext(outcomes)
    monkeypatch.setattr(app.storage, "create_spaces", create_spaces)
    monkeypatch.setattr(app.storage, "create_space", create_space)
    again = await imported(apps.second_process(app), numbered(3))
    if not app.is_only_writer:
        clock.pass_(LEASE)
        assert await resuming.resume_due(app) == 2
    assert [(o.result, o.organization_id) for o in again] == [(Result.EXISTS, o.organization_id) for o in found[:3]]


async def test_a_batch_that_has_begun_is_finished_and_told_when_the_import_is_cancelled(app: App) -> None:
    """What Ctrl-C does: nothing is left half made or untold, and the next run goes on."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    told: list[Outcome] = []

    async def import_() -> None:
        async for batch in importing.import_organizations(app, numbered(5), OPERATOR):
            told.extend(batch)

    async def pause() -> None:
        reached.set()
        await go_on.wait()

    with arm("create.after_space", pause):
        importing_ = asyncio.create_task(import_())
        await reached.wait()
        importing_.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await importing_
    assert [o.result for o in told] == [Result.CREATED] * 5
    assert {o.status for o in await apps.rows(app, tables.organizations)} == {OrganizationStatus.ACTIVE}
    assert {o.result for o in await imported(app, numbered(5))} == {Result.EXISTS}


BATCH = 200 if EVERYTHING else 20
KILLED = numbered(2 * BATCH + 10)
"""Two batches and a part of one, of which the second is interrupted."""

PROGRAM = """
import asyncio, os, sys
from orgstead import importing
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.config import load
from tests.use_cases.test_importing import BATCH, KILLED
importing.BATCH = BATCH
async def main():
    app = await App.open(load(environ=os.environ).settings)
    async for batch in importing.import_organizations(app, KILLED, OPERATOR, plan=sys.argv[1]):
        for outcome in batch:
            print(outcome.external_id, outcome.organization_id, flush=True)
asyncio.run(main())
"""


def run_until(failpoint: str, database: Database) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "free"],
        env={**os.environ, **database.variables, "ORGSTEAD_FAILPOINTS": failpoint},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("engine", selected())
@pytest.mark.parametrize(("point", "count"), [("create.after_space", 2), ("create.after_activate", 2)])
async def test_an_import_that_is_killed_is_completed_by_running_it_again(engine: str, point: str, count: int) -> None:
    async with empty_database(engine) as database:
        async with apps.opened(database):
            pass  # migrated
        killed = run_until(f"{point}=kill@{count}", database)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        told = dict(line.split() for line in killed.stdout.splitlines())
        assert len(told) in (0, BATCH), "a batch is told whole or not at all"
        async with apps.opened(database) as app:
            found = {o.external_id: o for o in await imported(app, KILLED)}
            assert {external_id: found[external_id].organization_id for external_id in told} == told
            there = len(told) + BATCH  # the batch that was at work had its intents written
            assert Counter(o.result for o in found.values()) == {
                Result.EXISTS: there,
                Result.CREATED: len(KILLED) - there,
            }
            await apps.recover(app)  # where others can write, a lease is waited for
            assert {o.status for o in await apps.rows(app, tables.organizations)} == {OrganizationStatus.ACTIVE}
            await apps.assert_clean(app)


# --- the real list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", selected())
async def test_the_real_list_is_imported_completely(engine: str, real_data: Path) -> None:
    """None lost, none merged, each under the name that it has in the file; again, and nothing changes."""
    with (real_data / "organizations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if (few := at_most(engine, len(rows))) < len(rows):
        sampled[f"organizations of the real list on {engine}"] = (few, len(rows))
        rows = rows[:few]
    work = lines(*rows)
    async with empty_database(engine) as database, apps.opened(database) as app:
        found = await imported(app, work)
        assert [(o.line, o.external_id) for o in found] == [(line.number, line.fields["external_id"]) for line in work]
        assert {o.result for o in found} == {Result.CREATED, Result.RENAMED}
        assert len({o.slug for o in found}) == len({o.organization_id for o in found}) == len(work)
        for outcome, row in zip(found, rows, strict=True):
            wanted = names.plain_slug(names.cleaned_name(row["name"]))
            assert (outcome.slug == wanted) == (outcome.result is Result.CREATED)
        stored = {o.external_id: o.name async for o in _everything(app)}
        assert stored == {row["external_id"]: names.cleaned_name(row["name"]) for row in rows}
        before = await digests(app)
        assert {o.result for o in await imported(app, work)} == {Result.EXISTS}
        assert await digests(app) == before
        await apps.assert_clean(app)


async def _everything(app: App) -> Any:
    after: tuple[str, ...] | None = None
    while page := await app.storage.scan(apps.SCOPE, _page, after):
        for organization in page:
            yield organization
        after = (page[-1].id,)


async def _page(tx: Transaction, after: tuple[str, ...] | None) -> list[Any]:
    return await tx.page(tables.organizations, order=("id",), after=after, limit=1000)


async def test_a_slug_that_is_held_by_a_claim_of_any_state_is_not_taken(damaged: App) -> None:
    for state in SlugState:
        claim = SlugClaim(slug=f"name-{list(SlugState).index(state)}", org_id="org_gone", state=state)
        await damaged.storage.run(apps.SCOPE, _add, claim)
    assert {o.result for o in await imported(damaged, numbered(3))} == {Result.RENAMED}


async def _add(tx: Transaction, claim: SlugClaim) -> None:
    await tx.add(tables.slugs, claim)
