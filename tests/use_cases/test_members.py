"""Memberships: each change is noted, and an organization never loses its last owner."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from orgstead import creation, members
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.creation import NewOrganization
from orgstead.errors import AlreadyMember, DatabaseInUse, LastOwner, NotFound, StatusConflict, StorageBusy
from orgstead.failpoints import arm
from orgstead.model import Membership, Organization, Role, User
from orgstead.record_errors import QuotaExceeded
from orgstead.storage import describe, tables
from orgstead.storage.port import Transaction
from tests import apps
from tests.engines import Database

pytestmark = pytest.mark.anyio


async def _add(tx: Transaction, app: App, org_id: str, user: User, role: Role) -> Membership:
    if await tx.find(tables.users, id=user.id) is None:
        await tx.add(tables.users, user)
    return await members.add(tx, app.settings, org_id, user.id, role, apps.TESTER, app.clock())


async def added(app: App, org_id: str, role: Role, user: User | None = None) -> Membership:
    return await app.storage.run(apps.SCOPE, _add, app, org_id, user or apps.person(app), role)


async def change_role(app: App, member: Membership, role: Role) -> Membership:
    return await app.storage.run(
        apps.SCOPE, members.change_role, member.org_id, member.user_id, role, apps.TESTER, app.clock()
    )


async def remove(app: App, member: Membership) -> None:
    await app.storage.run(apps.SCOPE, members.remove, member.org_id, member.user_id, Actor(member.user_id), app.clock())


async def acme(app: App) -> tuple[str, Membership]:
    org_id = (await apps.created(app, "Acme")).organization.id
    (owner,) = await apps.rows(app, tables.memberships)
    return org_id, owner


async def test_adding_changing_and_removing_a_member(app: App) -> None:
    org_id, owner = await acme(app)
    member = await added(app, org_id, Role.VIEWER)
    member = await change_role(app, member, Role.ADMIN)
    assert (member.role, member.version) == (Role.ADMIN, 2)
    await remove(app, member)
    assert await apps.rows(app, tables.memberships) == [owner]
    noted = ["membership.created", "membership.role_changed", "membership.removed"]
    assert [entry.action for entry in await apps.rows(app, tables.audit_entries)][1:] == noted
    assert [event.type for event in sorted(await apps.rows(app, tables.events), key=lambda e: e.id)][1:] == noted


async def test_a_member_is_added_once(app: App) -> None:
    org_id, _ = await acme(app)
    user = apps.person(app)
    await added(app, org_id, Role.MEMBER, user)
    with pytest.raises(AlreadyMember):
        await added(app, org_id, Role.OWNER, user)
    assert len(await apps.rows(app, tables.audit_entries)) == 2


async def test_the_last_owner_stays(app: App) -> None:
    org_id, owner = await acme(app)
    await added(app, org_id, Role.ADMIN)
    for refused in (remove(app, owner), change_role(app, owner, Role.ADMIN)):
        with pytest.raises(LastOwner):
            await refused
    assert (await change_role(app, owner, Role.OWNER)).role is Role.OWNER
    other = await added(app, org_id, Role.OWNER)
    await change_role(app, other, Role.MEMBER)
    with pytest.raises(LastOwner):
        await remove(app, owner)


async def test_without_the_check_an_organization_would_lose_its_last_owner(
    damaged: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    org_id, owner = await acme(damaged)
    await added(damaged, org_id, Role.ADMIN)

    async def unchecked(tx: Transaction, org_id: str) -> None:
        return

    monkeypatch.setattr(members, "_keep_an_owner", unchecked)
    await remove(damaged, owner)
    assert [finding.id for finding in await apps.findings(damaged)] == ["I11"]


async def test_who_is_no_member_cannot_be_changed(app: App) -> None:
    org_id, owner = await acme(app)
    nobody = Membership(
        org_id=org_id, user_id="usr_nobody", role=Role.ADMIN, created_at=owner.created_at, updated_at=owner.updated_at
    )
    for refused in (remove(app, nobody), change_role(app, nobody, Role.VIEWER)):
        with pytest.raises(NotFound):
            await refused


# --- how many ---------------------------------------------------------------------------------------------------------


def allow(app: App, members: int | None, plan: str = "free") -> None:
    """Set the plan's limit; the App of the test has settings of its own."""
    app.settings.plans[plan] = app.settings.plans[plan].model_copy(update={"max_members": members})


async def the_organization(app: App) -> Organization:
    found: list[Organization] = await apps.rows(app, tables.organizations)
    (organization,) = found
    return organization


async def test_members_are_counted(app: App) -> None:
    """``app`` ends with ``fsck``, which counts again."""
    org_id, owner = await acme(app)
    assert (await the_organization(app)).members == 1
    user = apps.person(app)
    member = await added(app, org_id, Role.MEMBER, user)
    with pytest.raises(AlreadyMember):
        await added(app, org_id, Role.MEMBER, user)
    with pytest.raises(LastOwner):
        await remove(app, owner)
    await change_role(app, member, Role.ADMIN)
    assert (await the_organization(app)).members == 2
    await remove(app, member)
    assert (await the_organization(app)).members == 1


async def test_a_plan_limits_members_and_the_refusal_says_how(app: App) -> None:
    org_id, _ = await acme(app)
    allow(app, 2)
    member = await added(app, org_id, Role.MEMBER)
    before = [await apps.rows(app, table) for table in (tables.memberships, tables.audit_entries, tables.events)]
    with pytest.raises(QuotaExceeded) as caught:
        await added(app, org_id, Role.MEMBER)
    error = caught.value
    assert (error.what, error.limit, error.used) == ("members", 2, 2)
    assert "allows 2 members and it has 2" in error.detail
    assert "remove a member" in error.detail
    after = [await apps.rows(app, table) for table in (tables.memberships, tables.audit_entries, tables.events)]
    assert after == before
    await remove(app, member)
    await added(app, org_id, Role.MEMBER)


async def test_a_limit_below_the_members_stops_only_more(app: App) -> None:
    org_id, _ = await acme(app)
    first, second = [await added(app, org_id, Role.MEMBER) for _ in range(2)]
    allow(app, 1)
    with pytest.raises(QuotaExceeded):
        await added(app, org_id, Role.MEMBER)
    await change_role(app, first, Role.ADMIN)
    await remove(app, second)
    with pytest.raises(QuotaExceeded):
        await added(app, org_id, Role.MEMBER)
    del app.settings.plans["free"]
    with pytest.raises(QuotaExceeded):
        await added(app, org_id, Role.MEMBER)
    await remove(app, first)


async def joined(app: App, org_id: str) -> Membership:
    """As ``added``, as patiently as whoever is told that nothing was changed, on a slow machine."""
    while True:
        try:
            return await added(app, org_id, Role.MEMBER)
        except StorageBusy:
            continue


async def test_a_hundred_who_join_at_once_never_exceed_it(app: App) -> None:
    org_id, _ = await acme(app)
    allow(app, 10)
    results = await asyncio.gather(*(joined(app, org_id) for _ in range(100)), return_exceptions=True)
    assert Counter(type(result) for result in results) == {Membership: 9, QuotaExceeded: 91}
    assert (await the_organization(app)).members == len(await apps.rows(app, tables.memberships)) == 10


async def test_those_who_join_by_several_processes_never_exceed_it(database: Database) -> None:
    """Each with connections of its own, where the engine admits more than one process."""
    async with AsyncExitStack() as stack:
        if not describe(database.url).concurrent:
            await stack.enter_async_context(apps.opened(database))
            with pytest.raises(DatabaseInUse):
                await stack.enter_async_context(apps.opened(database))
            return
        processes = [await stack.enter_async_context(apps.opened(database)) for _ in range(3)]
        org_id, _ = await acme(processes[0])
        for app in processes:
            allow(app, 10)
        joining = (joined(processes[number % 3], org_id) for number in range(60))
        results = await asyncio.gather(*joining, return_exceptions=True)
        assert Counter(type(result) for result in results) == {Membership: 9, QuotaExceeded: 51}
        await apps.assert_clean(processes[0])


async def left(app: App, member: Membership) -> None:
    while True:
        try:
            return await remove(app, member)
        except StorageBusy:
            continue


async def test_those_who_join_and_those_who_leave_at_once_are_counted(app: App) -> None:
    org_id, _ = await acme(app)
    there = [await added(app, org_id, Role.MEMBER) for _ in range(20)]
    allow(app, 25)
    joining = [joined(app, org_id) for _ in range(20)]
    results = await asyncio.gather(*joining, *(left(app, member) for member in there), return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), Membership, QuotaExceeded}
    count = (await the_organization(app)).members
    assert count == len(await apps.rows(app, tables.memberships)) <= 25


async def test_an_owner_needs_room_too(app: App) -> None:
    allow(app, 0)
    with pytest.raises(QuotaExceeded):
        await apps.created(app, "Acme")
    assert await apps.rows(app, tables.organizations) == await apps.rows(app, tables.users) == []
    await creation.create(app, NewOrganization(name="Nobody's", plan="free"), apps.TESTER)


async def test_an_organization_that_is_being_purged_takes_no_members(app: App) -> None:
    org_id, _ = await acme(app)

    async def join() -> None:
        with pytest.raises(StatusConflict):
            await added(app, org_id, Role.MEMBER)

    with arm("delete.after_close", join), arm("delete.after_drop", join):
        await apps.purged(app, org_id)
    with pytest.raises(NotFound):
        await added(app, org_id, Role.MEMBER)
    assert await apps.rows(app, tables.memberships) == []
