"""The steps of importing an archive, each of which can be repeated: space, load, members; and how all is taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orgstead import (
    archive_loading,
    archives,
    audit,
    creation,
    events,
    identity,
    kit,
    lifecycle,
    operations,
    organizations,
    placements,
    usage,
)
from orgstead.archive_files import ArchiveReader
from orgstead.archive_loading import SCOPE, Advance
from orgstead.archives import ArchivedMember
from orgstead.errors import AlreadyExists, ArchiveInvalid, ArchiveUnavailable
from orgstead.failpoints import failpoint
from orgstead.importing import NO_PASSWORD
from orgstead.model import Json, Membership, Operation, Organization, Placement, User
from orgstead.storage import tables
from orgstead.storage.port import Transaction
from orgstead.usage import Limits

if TYPE_CHECKING:
    from orgstead.app import App
    from orgstead.settings import Settings

IMPORT = "organization.import"
"""The kind of the operation."""

IMPORTED = "organization.imported"
"""What audit log and events say of it."""

WRITES = 5
"""How often members are added again because somebody made an account for one of them meanwhile."""

MEMBERS = 500
"""Members of one transaction."""

advancing: ContextVar[Advance | None] = ContextVar("advance", default=None)
"""Told of the progress of an import that this task, or one that it began, is at work on."""


@contextmanager
def opened(path: str | Path, *, large: bool = False) -> Iterator[ArchiveReader]:
    """The archive at the path, its manifest checked. Raises ``ArchiveInvalid``, ``ArchiveUnavailable``."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(path).open("rb"))
        except OSError:
            raise ArchiveUnavailable from None
        yield ArchiveReader(stream, large=large)


def ignore(count: int) -> None:
    """Tell nobody how far it is."""


@contextmanager
def _archive(operation: Operation) -> Iterator[ArchiveReader]:
    """The archive of the operation. Raises ``ArchiveUnavailable`` where it is not there, ``ArchiveInvalid`` where
    another one is in its place."""
    with opened(operation.payload["path"], large=True) as reader:
        if reader.digest != operation.payload["archive"]:
            raise ArchiveInvalid("Another archive is in the place of the one that is being imported.")
        yield reader


async def _placement(app: App, operation: Operation) -> tuple[Organization, Placement]:
    found = await app.storage.read(SCOPE, organizations.get, operation.org_id)
    return found.organization, found.placement


async def make_space(app: App, operation: Operation) -> Mapping[str, Json]:
    """Make the space, or find it made."""
    _, placement = await _placement(app, operation)
    await app.cell(placement.cell).create_space(placements.space_of(placement))
    await failpoint("import.after_space")
    return {}


async def load(app: App, operation: Operation) -> Mapping[str, Json]:
    """Load the audit chain, collections and records, and read the records back."""
    organization, placement = await _placement(app, operation)
    limits = usage.limits_of(app.settings, organization.plan)
    with _archive(operation) as reader:
        if operation.payload["kept"]:
            await archive_loading.load_audit(app, reader, operation.org_id)
        await archive_loading.load(app, reader, placement, limits, advancing.get() or ignore)
        await archive_loading.verify(app, reader, placement)
    return {"records": reader.manifest.records}


async def add_members(app: App, operation: Operation) -> Mapping[str, Json]:
    """Make everybody a member who is none yet, with a new account where the address has none.

    Nobody can log in to a new account before a password is set.
    """
    with _archive(operation) as reader:
        found = list(archive_loading.members(reader))
        suspended_by = archive_loading.organization(reader).suspended_by
    for begin in range(0, len(found), MEMBERS):
        batch = found[begin : begin + MEMBERS]
        for _ in range(WRITES - 1):
            try:
                await app.storage.run(SCOPE, _add_members, app.settings, operation.org_id, batch, app.clock())
                break
            except AlreadyExists:
                continue  # an account with one of the addresses was made meanwhile
        else:
            await app.storage.run(SCOPE, _add_members, app.settings, operation.org_id, batch, app.clock())
    return {"members": len(found), "suspended_by": suspended_by}


async def _add_members(
    tx: Transaction, settings: Settings, org_id: str, batch: list[ArchivedMember], at: datetime
) -> None:
    organization = await tx.lock(tables.organizations, org_id)
    by_key = {identity.canonical_email(member.email)[1]: member for member in batch}
    there = await tx.find_many(tables.users, [(key,) for key in by_key], unique="users.email")
    ids = {user.email_key: user.id for user in there}
    missing = {key: member for key, member in by_key.items() if key not in ids}
    taken = {user.id for user in await tx.find_many(tables.users, [(m.user_id,) for m in missing.values()])}
    accounts = [_account(member, at, new_id=member.user_id in taken) for member in missing.values()]
    ids |= {user.email_key: user.id for user in accounts}
    known = {m.user_id for m in await tx.find_many(tables.memberships, [(org_id, one) for one in ids.values()])}
    new = [_membership(org_id, ids[key], member) for key, member in by_key.items() if ids[key] not in known]
    if new:
        await usage.count(tx, organization, usage.limits_of(settings, organization.plan), {"members": len(new)})
    await tx.add_all([(tables.users, accounts), (tables.memberships, new)])


def _account(member: ArchivedMember, at: datetime, *, new_id: bool) -> User:
    """An account keeps its id where that is free: the audit log names it."""
    email, key = identity.canonical_email(member.email)
    user_id = kit.new_id("usr") if new_id else member.user_id
    return User(id=user_id, email=email, email_key=key, password_hash=NO_PASSWORD, created_at=at, updated_at=at)


def _membership(org_id: str, user_id: str, member: ArchivedMember) -> Membership:
    return Membership(
        org_id=org_id,
        user_id=user_id,
        role=member.role,
        created_at=archives.moment(member.created_at, archives.MEMBERS),
        updated_at=archives.moment(member.updated_at, archives.MEMBERS),
    )


async def activate(tx: Transaction, operation: Operation, at: datetime) -> None:
    """The organization exists for everybody from here on, suspended if it was."""
    organization = await tx.lock(tables.organizations, operation.org_id)
    active = lifecycle.moved(organization, lifecycle.ACTIVE, organization.updated_at, operation_id=None)
    if suspended_by := operation.result.get("suspended_by"):
        active = lifecycle.moved(active, lifecycle.SUSPENDED, active.updated_at, suspended_by=suspended_by)
    await tx.replace(tables.organizations, active)
    facts = {name: operation.result[name] for name in ("records", "members")}
    told = {**facts, "archive": operation.payload["archive"]}
    await audit.record(tx, active.id, operations.actor_of(operation), IMPORTED, told, at=at)
    await events.emit(tx, active.id, IMPORTED, {"name": active.name, "slug": active.slug, **facts}, at=at)


async def take_back(app: App, operation: Operation) -> Mapping[str, Json]:
    """Remove the space and the long lists of the directory. Accounts stay: they may have others by now."""
    org_id = operation.org_id
    await creation.drop_space(app, operation)
    while await app.storage.run(SCOPE, _remove_members, org_id):
        pass
    while await app.storage.run(SCOPE, archive_loading.shorten_audit, org_id):
        pass
    return {}


async def _remove_members(tx: Transaction, org_id: str) -> int:
    organization = await tx.lock(tables.organizations, org_id)
    found = await tx.page(tables.memberships, {"org_id": org_id}, limit=MEMBERS)
    if found:
        await usage.count(tx, organization, Limits(), {"members": -len(found)})
        await tx.remove_many(tables.memberships, [(org_id, one.user_id) for one in found])
    return len(found)


operations.register(
    operations.Kind(
        IMPORT,
        steps=(
            operations.Step("space", make_space),
            operations.Step("load", load, then="import.after_load"),
            operations.Step("members", add_members, activate, "import.after_activate"),
        ),
        undo=operations.Step("undo", take_back, creation.forget),
    )
)
