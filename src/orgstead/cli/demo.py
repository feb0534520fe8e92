"""``orgstead demo``: organizations with members to look around in, and their removal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import typer

from orgstead import creation, identity, kit, members, organizations, purging, slugs
from orgstead.app import App
from orgstead.audit import SYSTEM
from orgstead.cli.commands import command, group
from orgstead.cli.local import writing
from orgstead.cli.output import Output
from orgstead.cli.progress import progress
from orgstead.creation import NewOrganization
from orgstead.importing import NO_PASSWORD
from orgstead.model import Membership, Organization, OrganizationStatus, Role, User
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

app = group("Load demo data, and remove it.")

SCOPE = SystemScope("demo data")

DEMO: Sequence[tuple[str, str, str, int]] = (
    ("demo-01", "Åland Ferries", "enterprise", 64),
    ("demo-02", "Brightwater Clinic", "pro", 42),
    ("demo-03", "Cooperativa São Jorge", "pro", 38),
    ("demo-04", "Dunmore & Daughters", "free", 5),
    ("demo-05", "Éditions du Canal", "free", 9),
    ("demo-06", "Fjordlys Energi", "enterprise", 57),
    ("demo-07", "Gökalp Tekstil", "pro", 31),
    ("demo-08", "Hôtel des Marais", "free", 12),
    ("demo-09", "Ito Seisakusho", "pro", 26),
    ("demo-10", "Juniper Street School", "pro", 33),
    ("demo-11", "Kraków Maps", "free", 7),
    ("demo-12", "Lumen Observatory", "free", 16),
)
"""External id, name, plan and number of members of each demo organization."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """How much demo data there is."""

    organizations: int
    members: int


@command(app, "load")
def load_(ctx: typer.Context) -> None:
    """Load demo data: 12 organizations with 340 members, none of whom can log in. May be repeated."""

    async def work(app: App, out: Output) -> None:
        loaded = await load(app, out)
        out.item({"organizations": loaded.organizations, "members": loaded.members}, key="organizations")

    writing(ctx, work)


@command(app, "drop")
def drop_(ctx: typer.Context) -> None:
    """Remove the demo data for good: the organizations and the members' accounts."""

    async def work(app: App, out: Output) -> None:
        out.confirm("Remove the demo organizations for good?")
        out.item({"organizations": await drop(app)}, key="organizations")

    writing(ctx, work)


async def load(app: App, out: Output) -> Loaded:
    """Create the demo organizations that are not there yet."""
    with progress(out, "Demo organizations", len(DEMO)) as advance:
        for external_id, name, plan, size in DEMO:
            if await app.storage.read(SCOPE, _find, external_id) is None:
                owner = _user(app, external_id, 1)
                new = NewOrganization(name=name, plan=plan, external_id=external_id, owner=owner, owner_is_new=True)
                located = await creation.create(app, new, SYSTEM)
                await app.storage.run(SCOPE, _add_members, app, located.organization.id, external_id, size)
            advance(1)
    return Loaded(len(DEMO), sum(size for *_, size in DEMO))


async def drop(app: App) -> int:
    """Purge the demo organizations and remove accounts that belong to nothing else; returns how many there were."""
    dropped = 0
    for external_id, *_ in DEMO:
        organization = await app.storage.read(SCOPE, _find, external_id)
        if organization is None:
            continue
        people = await app.storage.read(SCOPE, _members, organization.id)
        if organization.status is not OrganizationStatus.CLOSED:
            at = app.clock()
            await app.storage.run(SCOPE, organizations.close, organization.id, timedelta(0), actor=SYSTEM, at=at)
        await purging.purge(app, organization.id, SYSTEM)
        await app.storage.run(SCOPE, _forget, organization.slug, people)
        dropped += 1
    return dropped


def _user(app: App, external_id: str, number: int) -> User:
    email, email_key = identity.canonical_email(f"member-{number:02d}@{external_id}.example.com")
    at = app.clock()
    return User(
        id=kit.new_id("usr"),
        email=email,
        email_key=email_key,
        password_hash=NO_PASSWORD,
        created_at=at,
        updated_at=at,
    )


async def _find(tx: Transaction, external_id: str) -> Organization | None:
    return await tx.find(tables.organizations, external_id=external_id)


async def _add_members(tx: Transaction, app: App, org_id: str, external_id: str, size: int) -> None:
    for number in range(2, size + 1):
        user = _user(app, external_id, number)
        await tx.add(tables.users, user)
        role = Role.ADMIN if number <= 3 else Role.VIEWER if number % 5 == 0 else Role.MEMBER
        await members.add(tx, app.settings, org_id, user.id, role, SYSTEM, app.clock())


async def _members(tx: Transaction, org_id: str) -> list[Membership]:
    return await tx.page(tables.memberships, {"org_id": org_id}, limit=1000)


async def _forget(tx: Transaction, slug: str, people: list[Membership]) -> None:
    """Free the name at once, so that the demo can be loaded again, and remove accounts without organization."""
    await slugs.free(tx, slug)
    for person in people:
        if not await tx.page(tables.memberships, {"user_id": person.user_id}, limit=1):
            await tx.remove(tables.users, person.user_id)
