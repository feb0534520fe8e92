"""Importing an organization from its archive: all of it, or nothing.

    look at everything -> intent (organization ``provisioning``) -> space -> load -> read back -> members, active

The archive is looked at line by line before anything is changed. Then it is an operation: a process that dies leaves it
to be gone on with by the next that can read the file, by running the command again at the latest; what cannot be
completed is undone. An archive is known by the sum of its manifest: imported once, it is not imported again.

What becomes of what is in the archive: the organization keeps its id where that is free, and with it its audit chain;
otherwise it gets an id that follows from the archive, and a chain of its own that names the former one. A slug that is
taken gets a number; an external id that is taken is left out. Members get the account of their address, or a new one
without a password. Records are as they were, to the version and the time, and so is what is shown of collections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orgstead import (
    archive_loading,
    archives,
    audit,
    creation,
    identity,
    kit,
    names,
    operations,
    organizations,
    placements,
    resuming,
    slugs,
    usage,
)
from orgstead.archive_files import ArchiveReader
from orgstead.archive_loading import SCOPE, Advance
from orgstead.archive_steps import IMPORT, IMPORTED, advancing, ignore, opened
from orgstead.archives import ArchivedOrganization
from orgstead.audit import Actor
from orgstead.creation import NewOrganization
from orgstead.errors import (
    AlreadyExists,
    ArchiveInvalid,
    Conflict,
    InvalidInput,
    InvalidSlug,
    NameReserved,
    OperationInProgress,
    UnknownPlan,
)
from orgstead.failpoints import failpoint
from orgstead.model import (
    AuditEntry,
    AuditHead,
    Operation,
    OperationState,
    OrganizationStatus,
)
from orgstead.organizations import Located
from orgstead.storage import tables
from orgstead.storage.port import Transaction

if TYPE_CHECKING:
    from orgstead.app import App

T = TypeVar("T")

WRITES = 5
COPIES = 100
"""Ids that are tried for an archive whose organization is there, or was."""


class Result(StrEnum):
    CREATED = "created"
    EXISTS = "exists"
    """The archive was imported before; nothing was changed."""

    RESUMED = "resumed"
    """An import that had been interrupted was completed."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an archive. ``notes`` say what is not as it was in it."""

    located: Located
    result: Result
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An archive that was looked at, and what is asked for."""

    path: str
    digest: str
    organization: ArchivedOrganization
    point: archives.Point
    first: AuditEntry
    owner_key: str | None
    plan: str
    notes: list[str] = field(default_factory=list)


async def import_archive(
    app: App,
    path: Path,
    actor: Actor,
    *,
    plan: str | None = None,
    large: bool = False,
    checking: Advance = ignore,
    loading: Advance = ignore,
) -> Imported:
    """Make an organization of the archive, or find that this was done; returns it active, or suspended as it was.

    ``plan`` is what it is put on instead of the plan in the archive; the plan says where the records are kept and how
    many there may be. Raises ``ArchiveInvalid``, ``UnknownPlan``, ``QuotaExceeded`` and ``BudgetExhausted`` before
    anything is changed; ``OperationInProgress`` while another process is at work on the same archive.

    In a rehearsal the archive is looked at as ever, and the result is as it would be in the end. What only loading its
    records shows, it does not show: a value that this engine cannot store, a unique value that is there twice.
    """
    with opened(path, large=large) as reader:
        archive_loading.check(reader, app.settings.records.max_bytes, checking)
        wanted = _wanted(app, reader, path, plan)
    if app.is_rehearsing:
        return await _repeated(app, _rehearsed, wanted, actor)
    there, operation = await _repeated(app, _write_intent, wanted, actor)
    if operation is None:
        return Imported(await app.storage.read(SCOPE, organizations.get, there), Result.EXISTS)
    token = advancing.set(loading)
    try:
        if operation.lease_owner == app.owner:
            await failpoint("import.after_intent")
            await asyncio.shield(app.in_background(operations.drive(app, operation)))
            result = Result.CREATED
        else:
            await _resume(app, operation, wanted.path)
            result = Result.RESUMED
    finally:
        advancing.reset(token)
    notes = tuple(operation.payload["notes"])
    return Imported(await app.storage.read(SCOPE, organizations.get, there), result, notes)


async def _resume(app: App, operation: Operation, path: str) -> None:
    """Complete what a dead process has left. Raises ``OperationInProgress`` where it may be alive."""
    await app.storage.run(SCOPE, _point_to, operation, path, app.clock(), app.is_only_writer)
    await resuming.adopt_left_behind(app)  # where only this process can write, nobody need be waited for
    ended = await app.storage.read(SCOPE, operations.get, operation.org_id, operation.id)
    if ended.state is OperationState.RUNNING:
        ended = await resuming.retry_now(app, ended)
    if ended.state is OperationState.RUNNING:
        raise OperationInProgress("An import of this archive is at work, or was a moment ago.", retry_after=10)
    if ended.state is OperationState.FAILED:
        raise Conflict(f"The import that was interrupted could not be completed ({ended.error}) and was undone.")


async def _point_to(tx: Transaction, operation: Operation, path: str, at: datetime, alone: bool) -> None:
    """The archive may be in another place than when the import was begun. Whoever is at work on it has it open."""
    held = await tx.lock(tables.operations, operation.org_id, operation.id)
    if held.state is OperationState.RUNNING and (alone or held.lease_until <= at) and held.payload["path"] != path:
        await tx.replace(tables.operations, replace(held, payload={**held.payload, "path": path}))


def _wanted(app: App, reader: ArchiveReader, path: Path, plan: str | None) -> _Wanted:
    """Hold the archive against what is allowed here."""
    found = archive_loading.organization(reader)
    chosen = plan or found.plan
    try:
        placements.kind_of(app.settings, chosen)
    except UnknownPlan as error:
        raise UnknownPlan(error.detail, next="choose one of them with --plan") from None
    manifest = reader.manifest
    size = {
        "records": manifest.records,
        "bytes": manifest.size,
        "collections": len(manifest.collections),
        "members": manifest.members,
    }
    usage.admit_new(chosen, usage.limits_of(app.settings, chosen), size, "the archive has")
    owner = next(archive_loading.members(reader), None)
    return _Wanted(
        path=str(path.absolute()),
        digest=reader.digest,
        organization=found,
        point=manifest.point,
        first=next(archive_loading.audit_entries(reader, found.id)),
        owner_key=None if owner is None else identity.canonical_email(owner.email)[1],
        plan=chosen,
    )


# --- the intent -------------------------------------------------------------------------------------------------------


async def _repeated(
    app: App,
    work: Callable[[Transaction, App, _Wanted, Actor], Awaitable[T]],
    wanted: _Wanted,
    actor: Actor,
) -> T:
    """Run the work, again where somebody else was faster with a name: nothing was written, and then that is seen."""
    for _ in range(WRITES - 1):
        with suppress(AlreadyExists):
            return await app.storage.run(SCOPE, work, app, wanted, actor)
    return await app.storage.run(SCOPE, work, app, wanted, actor)


async def _rehearsed(tx: Transaction, app: App, wanted: _Wanted, actor: Actor) -> Imported:
    """All of it that happens to the organization itself, in one transaction: what there would be in the end."""
    org_id, operation = await _write_intent(tx, app, wanted, actor)
    if operation is None:
        return Imported(await organizations.get(tx, org_id), Result.EXISTS)
    loaded = {"suspended_by": wanted.organization.suspended_by, "records": 0, "members": 0}  # nobody sees the numbers
    await operations.record_all(tx, replace(operation, result=loaded), app.clock())
    result = Result.CREATED if operation.lease_owner == app.owner else Result.RESUMED
    return Imported(await organizations.get(tx, org_id), result, tuple(operation.payload["notes"]))


async def _write_intent(tx: Transaction, app: App, wanted: _Wanted, actor: Actor) -> tuple[str, Operation | None]:
    """The organization's id, and the operation that makes it: None where the archive was imported before."""
    org_id, done, operation = await _identified(tx, wanted)
    if done or operation:
        return org_id, operation
    drawn = await _drawn(tx, app, wanted, org_id, actor)
    await placements.promise_space(tx, drawn.placement, drawn.budget)
    organization = drawn.organization
    owner = await identity.find_by_email(tx, wanted.owner_key) if wanted.owner_key else None
    claims = await slugs.take_over(tx, organization.slug, org_id, owner.id if owner else None, app.clock())
    entry, head = wanted.first, AuditHead(org_id=org_id, seq=1, hash=wanted.first.hash)
    if org_id != wanted.organization.id:
        former = {"organization": wanted.organization.id, "audit": wanted.point.audit.model_dump()}
        facts = {"name": organization.name, "slug": organization.slug, "plan": organization.plan, "copy_of": former}
        entry, head = audit.beginning(org_id, actor, creation.CREATED, facts, at=app.clock())
    await tx.add_all(
        [
            (tables.slugs, claims),
            (tables.organizations, [organization]),
            (tables.placements, [drawn.placement]),
            (tables.operations, [drawn.operation]),
            (tables.audit_entries, [entry]),
            (tables.audit_heads, [head]),
        ]
    )
    return org_id, drawn.operation


async def _identified(tx: Transaction, wanted: _Wanted) -> tuple[str, bool, Operation | None]:
    """The id that the archive's organization has or will have here; whether it is done, or else what is at work."""
    at = archives.moment(wanted.point.at, archives.MANIFEST)
    for copy in range(COPIES):
        own = copy == 0
        org_id = wanted.organization.id if own else kit.derived_id("org", at, f"{wanted.digest} {copy}".encode())
        organization = await tx.find(tables.organizations, id=org_id)
        if organization is None:
            if await tx.find(tables.purge_receipts, org_id=org_id) is None:
                return org_id, False, None
            continue  # its receipt is kept, and there can be no second one
        if organization.operation_id is not None:
            operation = await tx.get(tables.operations, org_id, organization.operation_id)
            if operation.kind == IMPORT and operation.payload["archive"] == wanted.digest:
                return org_id, False, operation
        seq = wanted.point.audit.seq + 1 if own else 2
        entry = await tx.find(tables.audit_entries, org_id=org_id, seq=seq)
        if entry is not None and entry.action == IMPORTED and entry.details.get("archive") == wanted.digest:
            return org_id, True, None
    raise Conflict("This archive was imported and purged too often.")


async def _drawn(tx: Transaction, app: App, wanted: _Wanted, org_id: str, actor: Actor) -> creation.Draft:
    """The organization about to be imported. Raises ``ArchiveInvalid`` where it has what none can have."""
    archived, notes = wanted.organization, list(wanted.notes)
    if org_id != archived.id:
        notes.append(
            "Its former id is taken or was purged here: this is a copy with an id and an audit log of its own."
        )
    external_id = archived.external_id
    if external_id is not None and await tx.find(tables.organizations, external_id=external_id) is not None:
        external_id = None
        notes.append("The external id belongs to another organization here and was left out.")
    slug = await _free_slug(tx, app, wanted)
    if slug != archived.slug:
        notes.append(f"The slug {archived.slug} is taken or reserved here.")
    if wanted.plan != archived.plan:
        notes.append(f"The plan was {archived.plan}.")
    if archived.status is OrganizationStatus.CLOSED:
        notes.append("It was closed, and is not any more.")
    new = NewOrganization(
        name=archived.name, plan=wanted.plan, slug=slug, external_id=external_id, metadata=archived.metadata
    )
    try:
        drawn = creation.draft(app, new, actor)
    except InvalidInput as error:
        raise ArchiveInvalid(f"The organization of the archive: {error.detail}") from None
    organization = replace(
        drawn.organization,
        id=org_id,
        operation_id=None,
        created_at=archives.moment(archived.created_at, archives.ORGANIZATION),
        updated_at=archives.moment(archived.updated_at, archives.ORGANIZATION),
    )
    payload = {"path": wanted.path, "archive": wanted.digest, "kept": org_id == archived.id, "notes": notes}
    operation = operations.begun(IMPORT, organization, operations.beginning(app, actor), payload)
    return replace(
        drawn,
        organization=replace(organization, operation_id=operation.id),
        placement=placements.planned(app.settings, org_id, slug, wanted.plan),
        operation=operation,
    )


async def _free_slug(tx: Transaction, app: App, wanted: _Wanted) -> str:
    """The slug of the archive, or the first numbered one that is free."""
    plain = wanted.organization.slug
    try:
        names.checked_slug(plain)
        number = 1
    except NameReserved:
        number = 2
    except InvalidSlug:
        raise ArchiveInvalid("The archive has a slug that is none.") from None
    owner = await identity.find_by_email(tx, wanted.owner_key) if wanted.owner_key else None
    while True:
        slug = plain if number == 1 else names.numbered_slug(plain, number)
        held = await tx.find(tables.slugs, slug=slug)
        if held is None or slugs.is_free(held, "", owner.id if owner else None, app.clock()):
            return slug
        number += 1
