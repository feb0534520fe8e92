"""Many at once: what only one may get, one gets, and nothing is left over of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest

from orgstead import creation, importing, members, operations, organizations, purging, renaming, resuming, slugs
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.creation import NewOrganization
from orgstead.errors import (
    Conflict,
    OrgsteadError,
)
from orgstead.failpoints import arm
from orgstead.importing import Line, Result
from orgstead.model import OperationState, OrganizationStatus, Role, SlugClaim, SlugState
from orgstead.renaming import NewName
from orgstead.storage import tables
from tests import apps
from tests.engines import Database
from tests.support import sample

pytestmark = pytest.mark.anyio

ROUNDS = range(200)


async def outcomes(*work: Awaitable[Any]) -> Counter[str]:
    """How each ended: the names of the errors, and "ok". What is no error of ours is raised."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException) and not isinstance(result, OrgsteadError):
            raise result
    return Counter(type(r).__name__ if isinstance(r, OrgsteadError) else "ok" for r in found)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_of_a_hundred_who_want_one_name_one_gets_it(app: App, plan: str) -> None:
    found = await outcomes(*(apps.created(app, "Acme", plan) for _ in range(100)))
    assert found == {"ok": 1, "NameTaken": 99}
    (organization,) = await apps.rows(app, tables.organizations)
    (owner,) = await apps.rows(app, tables.memberships)
    assert (owner.org_id, owner.role) == (organization.id, Role.OWNER)
    for table in (tables.users, tables.slugs, tables.placements, tables.operations):
        assert len(await apps.rows(app, table)) == 1, table.name
    assert len(await app.storage.spaces()) == 1


async def test_of_a_hundred_spellings_of_one_name_one_is_taken(app: App) -> None:
    spellings = [f"{'  ' * (n % 3)}{name}{'.' * (n % 5)}" for n in range(20) for name in SPELLINGS]
    assert len(spellings) == 100
    found = await outcomes(*(apps.created(app, spelling) for spelling in spellings))
    assert found == {"ok": 1, "NameTaken": 99}
    assert len(await apps.rows(app, tables.organizations)) == 1


SPELLINGS = ("Acme Labs", "acme labs", "ＡＣＭＥ　Ｌａｂｓ", "Acmé Labs", "ACME-LABS")


async def test_the_race_for_a_name_can_be_lost(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of claims two organizations get one name, and ``fsck`` sees it."""

    async def unchecked(tx: Any, slug: str, org_id: str, *_: Any) -> list[SlugClaim]:
        await tx.take(tables.slugs, slug=slug)
        return [SlugClaim(slug=slug, org_id=org_id, state=SlugState.CURRENT)]

    with monkeypatch.context() as patch:
        patch.setattr(slugs, "take_over", unchecked)
        for _ in range(3):  # one after the other: at the same time the key of the claims still decides
            await apps.created(app, "Acme")
    assert {finding.id for finding in await apps.findings(app)} == {"I4"}
    for organization in await apps.rows(app, tables.organizations):
        await app.storage.run(
            apps.SCOPE, organizations.close, organization.id, timedelta(), actor=apps.TESTER, at=app.clock()
        )
        await purging.purge(app, organization.id, apps.TESTER)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_creating_and_renaming_to_one_name(app: App, plan: str) -> None:
    for number in sample("rounds of a race for a name", ROUNDS, 10):
        name = f"Wanted {number}"
        other = (await apps.created(app, f"Other {number}", plan)).organization
        found = await outcomes(apps.created(app, name, plan), rename(app, other.id, name))
        assert found == {"ok": 1, "NameTaken": 1}
        held = [o for o in await apps.rows(app, tables.organizations) if o.slug == f"wanted-{number}"]
        (claim,) = await apps.rows(app, tables.slugs, slug=f"wanted-{number}")
        assert [o.id for o in held] == [claim.org_id]


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_two_renames_of_one_organization(app: App, plan: str) -> None:
    org_id = (await apps.created(app, "First", plan)).organization.id
    found = await outcomes(rename(app, org_id, "Second"), rename(app, org_id, "Third"))
    assert found["ok"] >= 1
    assert set(found) <= {"ok", "OperationInProgress"}
    held = {c.slug for c in await apps.rows(app, tables.slugs) if c.state is SlugState.CURRENT}
    (organization,) = await apps.rows(app, tables.organizations)
    assert held == {organization.slug}
    assert organization.slug in {"second", "third"}


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_two_organizations_that_want_each_others_names(app: App, plan: str) -> None:
    one, two = [(await apps.created(app, name, plan)).organization.id for name in ("One", "Two")]
    assert await outcomes(rename(app, one, "Two"), rename(app, two, "One")) == {"NameTaken": 2}
    assert {o.slug for o in await apps.rows(app, tables.organizations)} == {"one", "two"}


async def test_creating_a_name_that_is_being_deleted(app: App) -> None:
    for number in sample("rounds of a race for a name", ROUNDS, 10):
        org_id = (await apps.created(app, f"Gone {number}", "enterprise")).organization.id
        await app.storage.run(apps.SCOPE, organizations.close, org_id, timedelta(), actor=apps.TESTER, at=app.clock())
        found = await outcomes(purging.purge(app, org_id, apps.TESTER), apps.created(app, f"Gone {number}"))
        assert found == {"ok": 1, "NameTaken": 1}
        (claim,) = await apps.rows(app, tables.slugs, slug=f"gone-{number}")
        assert claim.state is SlugState.QUARANTINED


async def test_two_owners_who_remove_each_other(app: App) -> None:
    located = await apps.created(app, "Acme")
    org_id = located.organization.id
    for _ in sample("rounds of two owners who remove each other", ROUNDS, 20):
        (first,) = await apps.rows(app, tables.memberships)
        second = apps.person(app)
        await app.storage.run(apps.SCOPE, _add_owner, org_id, second, app)
        found = await outcomes(
            *(
                app.storage.run(apps.SCOPE, members.remove, org_id, user_id, Actor(by), app.clock())
                for user_id, by in ((second.id, first.user_id), (first.user_id, second.id))
            )
        )
        assert found == {"ok": 1, "LastOwner": 1}


async def _add_owner(tx: Any, org_id: str, user: Any, app: App) -> None:
    await tx.add(tables.users, user)
    await members.add(tx, app.settings, org_id, user.id, Role.OWNER, apps.TESTER, app.clock())


async def test_the_budget_of_dedicated_spaces_is_never_exceeded(database: Database) -> None:
    async with apps.opened(database, placement={"max_dedicated": 3, "warn_dedicated": 1}) as app:
        for number in range(2):
            await apps.created(app, f"Before {number}", "enterprise")
        found = await outcomes(*(apps.created(app, f"Space {n}", "enterprise") for n in range(50)))
        assert found == {"ok": 1, "BudgetExhausted": 49}
        assert len(await apps.space_names(app)) == 3
        assert len(await apps.rows(app, tables.slugs)) == 3
        await apps.assert_clean(app)


async def test_two_processes_that_resume_one_operation(app: App, clock: apps.Clock) -> None:
    """One does it, the other is told so; the lease decides, not luck."""
    operation = await _interrupted(app)
    clock.pass_(2 * operations.LEASE)
    processes = [apps.second_process(app), apps.second_process(app)]
    claimed = await asyncio.gather(
        *(p.storage.run(operations.SCOPE, resuming.claim_due, p.owner, p.clock(), 10) for p in processes)
    )
    assert sorted(map(len, claimed)) == [0, 1]
    winner, loser = processes if claimed[0] else reversed(processes)
    with pytest.raises(Conflict):
        await operations.drive(loser, operation)
    ((mine,),) = [found for found in claimed if found]
    assert (await operations.drive(winner, mine)).state is OperationState.SUCCEEDED
    assert await resuming.resume_due(loser) == 0


async def test_a_process_that_was_paused_gives_its_operation_up(app: App, clock: apps.Clock) -> None:
    """It comes back after another has taken over and ended the work, and changes nothing."""
    paused, resume = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        if not paused.is_set():
            paused.set()
            await resume.wait()

    with arm("create.after_space", pause):
        creating = asyncio.create_task(apps.created(app, "Acme", "enterprise"))
        await paused.wait()
        clock.pass_(2 * operations.LEASE)
        assert await resuming.resume_due(apps.second_process(app)) == 1
        before = await apps.rows(app, tables.events)
        resume.set()
        with pytest.raises(Conflict):
            await creating
    assert await apps.rows(app, tables.events) == before


async def test_an_import_that_was_paused_accounts_for_what_others_completed(app: App, clock: apps.Clock) -> None:
    """The lines are created, whoever did it, and are said to be."""
    paused, resume = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        if not paused.is_set():
            paused.set()
            await resume.wait()

    async def imported() -> list[Result]:
        lines = [Line(n, {"external_id": f"x-{n}", "name": f"Acme {n}", "plan": "enterprise"}) for n in range(2, 5)]
        batches = [batch async for batch in importing.import_organizations(app, lines, apps.TESTER)]
        return [outcome.result for batch in batches for outcome in batch]

    with arm("create.after_space", pause):
        running = asyncio.create_task(imported())
        await paused.wait()
        clock.pass_(2 * operations.LEASE)
        assert await resuming.resume_due(apps.second_process(app), limit=2) == 2
        resume.set()
        assert await running == [Result.CREATED] * 3
    assert {o.status for o in await apps.rows(app, tables.organizations)} == {OrganizationStatus.ACTIVE}


async def _interrupted(app: App) -> Any:
    """The running operation of a creation whose process died before its first step."""
    owner = apps.person(app)
    new = NewOrganization(name="Acme", plan="enterprise", owner=owner, owner_is_new=True)
    drawn = creation.draft(app, new, Actor(owner.id))
    await app.storage.run(creation.SCOPE, creation.write_intent, drawn, Actor(owner.id))
    return drawn.operation


async def rename(app: App, org_id: str, name: str) -> None:
    await renaming.rename(app, org_id, NewName(name=name), apps.TESTER)
