"""Renaming an organization: its name, its slug and, where the space is named by the slug, the space.

    intent (new slug claimed, old one a redirect) -> close slots -> rename the space -> flip the placement -> open slots

Every write to the space passes its slots, so between close and open nobody writes, and a process that was paused with
the old placement finds its slot closed or gone: the old name is never made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orgstead import audit, events, names, operations, placements, slugs
from orgstead.audit import Actor
from orgstead.errors import AlreadyExists, NameTaken
from orgstead.failpoints import failpoint
from orgstead.model import (
    IdempotentResponse,
    Json,
    Operation,
    OperationState,
    Organization,
    OrganizationStatus,
    PlacementState,
)
from orgstead.organizations import Located, for_change, get
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("rename organization")
RENAME = "organization.rename"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewName:
    """``slug`` is derived from the name when None. ``if_version`` is the version that the caller saw, if it cares."""

    name: str
    slug: str | None = None
    if_version: int | None = None


async def rename(
    app: App, org_id: str, new: NewName, actor: Actor, *, remember: IdempotentResponse | None = None
) -> tuple[Located, Operation | None]:
    """Rename an organization; the old slug stays as a redirect.

    Returns it as it is now, and the operation while that is still running. Raises ``InvalidName``, ``InvalidSlug``,
    ``NameReserved``, ``NameTaken``, ``NotFound``, ``PreconditionFailed``, ``StatusConflict``, ``OperationInProgress``.
    In a rehearsal it is as it would be in the end.
    """
    name = names.checked_name(new.name)
    slug = names.checked_slug(new.slug) if new.slug is not None else names.derived_slug(name)
    new, by = replace(new, name=name), operations.beginning(app, actor)
    quarantine = timedelta(days=app.settings.name_quarantine_days)
    try:
        if app.is_rehearsing:
            return await app.storage.run(SCOPE, _rehearsed, org_id, new, slug, by, quarantine), None
        operation = await app.storage.run(SCOPE, write_intent, org_id, new, slug, by, quarantine, remember)
    except AlreadyExists as error:
        if error.constraint == tables.slugs.key_constraint:
            raise NameTaken from None
        raise
    if operation is not None:
        await failpoint("rename.after_claim")
        operation = await operations.finish(app, operation, within=operations.WAIT_SECONDS)
        if operation.state is not OperationState.RUNNING:
            operation = None
    return await app.storage.read(SCOPE, get, org_id), operation


async def _rehearsed(
    tx: Transaction, org_id: str, new: NewName, slug: str, by: operations.Beginning, quarantine: timedelta
) -> Located:
    """All of it that happens in the directory, in one transaction."""
    operation = await write_intent(tx, org_id, new, slug, by, quarantine, None)
    if operation is not None:
        await operations.record_all(tx, operation, by.at)
    return await get(tx, org_id)


async def write_intent(
    tx: Transaction,
    org_id: str,
    new: NewName,
    slug: str,
    by: operations.Beginning,
    quarantine: timedelta,
    remember: IdempotentResponse | None,
) -> Operation | None:
    """Rename at once where the directory alone is concerned; otherwise claim the name and begin the operation.

    ``quarantine`` is how long a redirect that is one too many stays out of others' reach.
    """
    actor, at = by.actor, by.at
    organization = await for_change(tx, org_id, new.if_version, OrganizationStatus.ACTIVE)
    placement = await tx.get(tables.placements, org_id)
    if slug != organization.slug:
        await slugs.claim(tx, slug, org_id, actor.id, at)
        await slugs.redirect(tx, organization.slug, at + quarantine)
    operation = None
    if slug != organization.slug and placements.is_named_by_slug(placement, organization):
        payload = {"name": new.name, "slug": slug, "space": names.space_name(slug, org_id, "slug")}
        operation = operations.begun(RENAME, organization, by, payload)
        await tx.add(tables.operations, operation)
        await tx.replace(tables.organizations, replace(organization, operation_id=operation.id, updated_at=at))
        await tx.replace(tables.placements, replace(placement, state=PlacementState.MOVING))
    elif (new.name, slug) != (organization.name, organization.slug):
        await _store(tx, organization, new.name, slug, actor, at)
    if remember:
        subject = replace(remember, operation_id=operation.id if operation else None, subject=org_id)
        await tx.add(tables.idempotent_responses, subject)
    return operation


async def _store(tx: Transaction, organization: Organization, name: str, slug: str, actor: Actor, at: datetime) -> None:
    facts = {"name": name, "slug": slug, "former_name": organization.name, "former_slug": organization.slug}
    await tx.replace(tables.organizations, replace(organization, name=name, slug=slug, updated_at=at))
    await audit.record(tx, organization.id, actor, "organization.renamed", facts, at=at)
    await events.emit(tx, organization.id, "organization.renamed", facts, at=at)


async def close_slots(app: App, operation: Operation) -> Mapping[str, Json]:
    """Wait for the last writer under the old name, and let no other in."""
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    await app.cell(placement.cell).close_space(placements.space_of(placement))
    return {}


async def rename_space(app: App, operation: Operation) -> Mapping[str, Json]:
    """Rename what holds the data, or find it renamed."""
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    await app.cell(placement.cell).rename_space(placements.space_of(placement), operation.payload["space"])
    return {}


async def flip(tx: Transaction, operation: Operation, at: datetime) -> None:
    """From here on every request finds the organization under its new name and its space in a new epoch."""
    organization = await tx.lock(tables.organizations, operation.org_id)
    placement = await tx.get(tables.placements, operation.org_id)
    await tx.replace(tables.placements, placements.renamed(placement, operation.payload["space"]))
    actor = operations.actor_of(operation)
    await _store(tx, organization, operation.payload["name"], operation.payload["slug"], actor, at)


async def open_slots(app: App, operation: Operation) -> Mapping[str, Json]:
    """Let writers in under the new name and epoch."""
    await failpoint("rename.before_open")
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    await app.cell(placement.cell).open_space(placements.space_of(placement))
    return {}


async def end(tx: Transaction, operation: Operation, at: datetime) -> None:
    """The organization is free for its next operation."""
    organization = await tx.lock(tables.organizations, operation.org_id)
    placement = await tx.get(tables.placements, operation.org_id)
    await tx.replace(tables.placements, replace(placement, state=PlacementState.STABLE))
    await tx.replace(tables.organizations, replace(organization, operation_id=None, updated_at=at))


operations.register(
    operations.Kind(
        RENAME,
        steps=(
            operations.Step("close", close_slots, then="rename.after_close"),
            operations.Step("rename", rename_space, then="rename.after_rename"),
            operations.Step("flip", record=flip, then="rename.after_flip"),
            operations.Step("open", open_slots, end),
        ),
    )
)
