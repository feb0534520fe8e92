"""Organizations: what one transaction can do to them. Creation, renaming and purging are operations of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import orjson

from orgstead import audit, events, lifecycle, names, placements, slugs
from orgstead.audit import Actor
from orgstead.errors import (
    InvalidInput,
    MoveUnavailable,
    NotFound,
    OperationInProgress,
    PreconditionFailed,
    Problem,
    StatusConflict,
)
from orgstead.model import Json, Organization, OrganizationStatus, Placement, SlugState
from orgstead.storage import tables
from orgstead.storage.port import Transaction

if TYPE_CHECKING:
    from orgstead.settings import Settings

OPERATOR = "operator"
OWNER = "owner"
"""Who suspended an organization: an owner may undo only what an owner did."""

MAX_NAME = 255
"""Longest text that an organization is looked for by."""

MAX_METADATA_BYTES = 16_384
"""Largest metadata of an organization, as JSON: it is read with every request of the organization."""


@dataclass(frozen=True, slots=True)
class Located:
    """An organization and where its data lives: what the product shows as one object."""

    organization: Organization
    placement: Placement


# --- reading --------------------------------------------------------------------------------------------------------


async def get(tx: Transaction, org_id: str) -> Located:
    """Raises ``NotFound``."""
    return Located(await tx.get(tables.organizations, org_id), await tx.get(tables.placements, org_id))


async def resolve(tx: Transaction, text: str) -> str:
    """The id of the organization of this id, slug (former ones included) or external id. Raises ``NotFound``."""
    if await tx.find(tables.organizations, id=text):
        return text
    if org_id := await slugs.holder(tx, text):
        return org_id
    if organization := await tx.find(tables.organizations, external_id=text):
        return organization.id
    raise NotFound


async def resolve_many(tx: Transaction, texts: Sequence[str]) -> dict[str, Located]:
    """``resolve`` and ``get`` for up to 500 texts, in few round trips; those of no organization are left out."""
    wanted = [text for text in dict.fromkeys(texts) if len(text) <= MAX_NAME and text.isprintable()]
    keys = [(text,) for text in wanted]
    by_id = {o.id: o for o in await tx.find_many(tables.organizations, keys)}
    claims = await tx.find_many(tables.slugs, keys)
    holders = {claim.slug: claim.org_id for claim in claims if claim.state is not SlugState.QUARANTINED}
    outside = await tx.find_many(tables.organizations, keys, unique="organizations.external_id")
    by_external = {str(o.external_id): o for o in outside}
    named = await tx.find_many(tables.organizations, [(org_id,) for org_id in dict.fromkeys(holders.values())])
    by_holder = {o.id: o for o in named}
    found: dict[str, Organization] = {}
    for text in wanted:
        if one := by_id.get(text) or by_holder.get(holders.get(text, "")) or by_external.get(text):
            found[text] = one
    places = {o.organization.id: o for o in await located(tx, list({o.id: o for o in found.values()}.values()))}
    return {text: places[one.id] for text, one in found.items() if one.id in places}


async def located(tx: Transaction, organizations: Sequence[Organization]) -> list[Located]:
    """The organizations with their placements, in the same order, in one more read."""
    found = await placements.get_many(tx, [organization.id for organization in organizations])
    by_id = {placement.org_id: placement for placement in found}
    return [Located(o, by_id[o.id]) for o in organizations if o.id in by_id]


async def of_user(
    tx: Transaction, user_id: str, *, after: str | None, limit: int, newest_first: bool = False
) -> tuple[list[Located], str | None]:
    """The organizations that a person is a member of, oldest first or last; those being made or purged not.

    At most ``limit`` of them, and the id after which to go on (None at the end). There may be fewer and still more to
    come, because what is hidden counts too.
    """
    # Ids sort by age.
    memberships = await tx.page(
        tables.memberships,
        {"user_id": user_id},
        order=("-org_id" if newest_first else "org_id",),
        after=None if after is None else (after, user_id),
        limit=limit + 1,
    )
    more = len(memberships) > limit
    found = await tx.find_many(tables.organizations, [(m.org_id,) for m in memberships[:limit]])
    there = (o for o in found if o.status not in lifecycle.BUSY)
    shown = await located(tx, sorted(there, key=lambda o: o.id, reverse=newest_first))
    return shown, memberships[limit - 1].org_id if more else None


async def page(
    tx: Transaction, where: Mapping[str, Json], *, after: Sequence[Json] | None, limit: int
) -> list[Located]:
    """Organizations of the whole service, oldest first: for the operator."""
    # Ids sort by age.
    return await located(tx, await tx.page(tables.organizations, where, order=("id",), after=after, limit=limit))


# --- changing -------------------------------------------------------------------------------------------------------


async def for_change(
    tx: Transaction, org_id: str, if_version: int | None, *statuses: OrganizationStatus
) -> Organization:
    """The organization, locked, if it may be changed now.

    Raises ``NotFound``, ``PreconditionFailed`` if it is not the version that the caller saw, ``StatusConflict`` unless
    it has one of the ``statuses``, ``OperationInProgress``.
    """
    organization = await tx.lock(tables.organizations, org_id)
    if if_version is not None and organization.version != if_version:
        raise PreconditionFailed
    if statuses and organization.status not in statuses:
        raise StatusConflict(f"The organization is {organization.status}; it must be {' or '.join(statuses)} for this.")
    if organization.operation_id is not None:
        raise OperationInProgress(retry_after=1)
    return organization


async def update(
    tx: Transaction,
    org_id: str,
    *,
    name: str | None = None,
    metadata: Mapping[str, Json] | None = None,
    actor: Actor,
    at: datetime,
    if_version: int | None = None,
) -> Organization:
    """Change the display name (the slug stays, so links keep working) and merge-patch the metadata (RFC 7396).

    Raises ``InvalidName``, ``InvalidInput`` where the metadata becomes too large, and what ``for_change`` raises.
    """
    organization = await for_change(tx, org_id, if_version, OrganizationStatus.ACTIVE)
    changed = replace(
        organization,
        name=names.checked_name(name) if name is not None else organization.name,
        metadata=(
            checked_metadata(merged(organization.metadata, metadata)) if metadata is not None else organization.metadata
        ),
        updated_at=at,
    )
    # As JSON, to which 1, 1.0 and true are three values and to Python one.
    if changed.name == organization.name and orjson.dumps(changed.metadata) == orjson.dumps(organization.metadata):
        return organization
    return await _store(tx, changed, "organization.updated", actor, at, {"name": changed.name})


def checked_metadata(metadata: Mapping[str, Json]) -> dict[str, Json]:
    """The metadata, if it is small enough to be read with every request. Raises ``InvalidInput``."""
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        detail = f"The metadata would take more than {MAX_METADATA_BYTES} bytes as JSON."
        raise InvalidInput(problems=[Problem("/metadata", "metadata.too_large", detail)])
    return dict(metadata)


def merged(target: Mapping[str, Json], patch: Mapping[str, Json]) -> dict[str, Json]:
    """JSON merge-patch (RFC 7396): null removes a member, an object is merged, anything else replaces."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            held = result.get(key)
            result[key] = merged(held if isinstance(held, Mapping) else {}, value)
        else:
            result[key] = value
    return result


async def change_plan(
    tx: Transaction,
    org_id: str,
    plan: str,
    settings: Settings,
    *,
    actor: Actor,
    at: datetime,
    if_version: int | None = None,
) -> Organization:
    """Put the organization on another plan. Raises ``UnknownPlan``, ``MoveUnavailable``."""
    organization = await for_change(tx, org_id, if_version, OrganizationStatus.ACTIVE)
    kind = placements.kind_of(settings, plan)
    if plan == organization.plan:
        return organization
    if (await tx.get(tables.placements, org_id)).kind is not kind:
        raise MoveUnavailable
    facts = {"from": organization.plan, "to": plan}
    changed = replace(organization, plan=plan, updated_at=at)
    return await _store(tx, changed, "organization.plan_changed", actor, at, facts)


async def suspend(
    tx: Transaction, org_id: str, by: str, *, actor: Actor, at: datetime, if_version: int | None = None
) -> Organization:
    """Refuse the organization's members from their next request on. ``by`` is ``OWNER`` or ``OPERATOR``."""
    organization = await for_change(tx, org_id, if_version)
    changed = lifecycle.moved(organization, lifecycle.SUSPENDED, at, suspended_by=by)
    return await _store(tx, changed, "organization.suspended", actor, at, {"by": by})


async def reactivate(
    tx: Transaction, org_id: str, by: str, *, actor: Actor, at: datetime, if_version: int | None = None
) -> Organization:
    """End a suspension. An owner cannot end an operator's (``StatusConflict``)."""
    organization = await for_change(tx, org_id, if_version, OrganizationStatus.SUSPENDED)
    if by == OWNER and organization.suspended_by != OWNER:
        raise StatusConflict("The organization was suspended by the operator of this service, who can reactivate it.")
    changed = lifecycle.moved(organization, lifecycle.ACTIVE, at, suspended_by=None)
    return await _store(tx, changed, "organization.reactivated", actor, at)


async def close(
    tx: Transaction, org_id: str, grace: timedelta, *, actor: Actor, at: datetime, if_version: int | None = None
) -> Organization:
    """Close the organization: its credentials are dead from the next request on; it is purged after ``grace``."""
    organization = await for_change(tx, org_id, if_version)
    purge_at = at + grace
    changed = lifecycle.moved(organization, lifecycle.CLOSED, at, closed_at=at, purge_at=purge_at)
    return await _store(tx, changed, "organization.closed", actor, at)


async def restore(
    tx: Transaction, org_id: str, *, actor: Actor, at: datetime, if_version: int | None = None
) -> Organization:
    """Bring a closed organization back as it was: active, or suspended if it was."""
    organization = await for_change(tx, org_id, if_version, OrganizationStatus.CLOSED)
    status = lifecycle.SUSPENDED if organization.suspended_by else lifecycle.ACTIVE
    changed = lifecycle.moved(organization, status, at, closed_at=None, purge_at=None)
    return await _store(tx, changed, "organization.restored", actor, at)


async def _store(
    tx: Transaction,
    changed: Organization,
    action: str,
    actor: Actor,
    at: datetime,
    facts: Mapping[str, Json] | None = None,
) -> Organization:
    """Write the changed organization with its audit entry and its event."""
    stored = await tx.replace(tables.organizations, changed)
    await audit.record(tx, changed.id, actor, action, facts, at=at)
    await events.emit(tx, changed.id, action, facts, at=at)
    return stored
