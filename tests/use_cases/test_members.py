"""Memberships: each change is noted, and an organization never loses its last owner."""

from __future__ import annotations

import pytest

from orgstead import members
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.errors import AlreadyMember, LastOwner, NotFound, StatusConflict
from orgstead.failpoints import arm
from orgstead.model import Membership, Role, User
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from tests import apps

pytestmark = pytest.mark.anyio


async def _add(tx: Transaction, app: App, org_id: str, user: User, role: Role) -> Membership:
    if await tx.find(tables.users, id=user.id) is None:
        await tx.add(tables.users, user)
    return await members.add(tx, org_id, user.id, role, apps.TESTER, app.clock())


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
