"""Creating an organization: claim the name and write everything down, make its space, activate it.

    intent (organization ``provisioning``, slug, placement, owner, operation, audit) -> space -> active + event

A process that dies in between leaves an operation that any other completes; what cannot be completed is undone, so a
name is never stuck.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orgstead import audit, events, kit, lifecycle, names, operations, organizations, placements, slugs, usage
from orgstead.audit import Actor
from orgstead.errors import (
    AlreadyExists,
    Conflict,
    ExternalIdTaken,
    IdempotencyInProgress,
    InvalidInput,
    NameTaken,
    NotFound,
    Problem,
    SpaceMismatch,
    UserExists,
)
from orgstead.failpoints import failpoint
from orgstead.model import (
    AuditEntry,
    AuditHead,
    IdempotentResponse,
    Json,
    Membership,
    Operation,
    Organization,
    OrganizationStatus,
    Placement,
    PlacementKind,
    Role,
    SlugClaim,
    User,
)
from orgstead.organizations import Located, checked_metadata
from orgstead.storage import tables
from orgstead.storage.port import DEDICATED_AT_ONCE, Space, SystemScope, Table, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("create organization")
CREATE = "organization.create"
"""The kind of the operation."""

CREATED = "organization.created"
"""What audit log and events say of it."""

MAX_EXTERNAL_ID = 255

_RACES: Mapping[str, type[Conflict]] = {
    tables.slugs.key_constraint: NameTaken,
    tables.users.key_constraint: UserExists,
    "users.email": UserExists,
    "organizations.external_id": ExternalIdTaken,
    tables.idempotent_responses.key_constraint: IdempotencyInProgress,
}
"""What it means that somebody else was faster, by the constraint that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrganization:
    """What somebody asks for. ``slug`` is derived from the name when None; ``owner`` is None only for imports.

    ``owner`` with ``owner_is_new`` is added together with the organization, or not at all.
    """

    name: str
    plan: str
    slug: str | None = None
    external_id: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    owner: User | None = None
    owner_is_new: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """An organization about to be created: its first rows, made before the transaction so that it can be retried."""

    organization: Organization
    placement: Placement
    operation: Operation
    membership: Membership | None
    new_user: User | None
    budget: int

    @property
    def user_id(self) -> str | None:
        """The owner's id."""
        return self.membership.user_id if self.membership else None


def draft(app: App, new: NewOrganization, actor: Actor) -> Draft:
    """Check the input and draw everything up.

    Raises ``InvalidName``, ``InvalidSlug``, ``NameReserved``, ``UnknownPlan``, ``InvalidInput``, ``QuotaExceeded``
    where the plan does not even allow its owner.
    """
    by, org_id = operations.beginning(app, actor), kit.new_id("org")
    at = by.at
    name = names.checked_name(new.name)
    slug = names.checked_slug(new.slug) if new.slug is not None else names.derived_slug(name)
    organization = Organization(
        id=org_id,
        name=name,
        slug=slug,
        plan=new.plan,
        status=OrganizationStatus.PROVISIONING,
        external_id=None if new.external_id is None else checked_external_id(new.external_id),
        metadata=checked_metadata(new.metadata),
        created_at=at,
        updated_at=at,
    )
    placement = placements.planned(app.settings, org_id, slug, new.plan)
    place: dict[str, Json] = {"cell": placement.cell, "kind": placement.kind.value, "space": placement.space}
    operation = operations.begun(CREATE, organization, by, {"placement": place})
    membership = None
    if new.owner:
        membership = Membership(org_id=org_id, user_id=new.owner.id, role=Role.OWNER, created_at=at, updated_at=at)
    members = 1 if membership else 0
    limits = usage.limits_of(app.settings, new.plan)
    usage.admit_new(new.plan, limits, {"members": members}, "its owner would make")
    return Draft(
        organization=replace(organization, members=members, operation_id=operation.id),
        placement=placement,
        operation=operation,
        membership=membership,
        new_user=new.owner if new.owner_is_new else None,
        budget=app.settings.placement.max_dedicated,
    )


def checked_external_id(text: str) -> str:
    """The id that another system knows an organization by, as it is. Raises ``InvalidInput``."""
    if not 1 <= len(text) <= MAX_EXTERNAL_ID or not text.isprintable():
        detail = f"An external_id is 1 to {MAX_EXTERNAL_ID} printable characters."
        raise InvalidInput(detail, problems=[Problem("/external_id", "external_id.invalid", detail)])
    return text


async def create(
    app: App, new: NewOrganization, actor: Actor, *, remember: IdempotentResponse | None = None
) -> Located:
    """Create an organization and return it active.

    ``remember`` is the idempotency row to write in the same transaction as the organization. Raises what ``draft``
    raises, ``NameTaken``, ``UserExists`` (a new owner's address was taken meanwhile), ``BudgetExhausted``. In a
    rehearsal it is as it would be, with an id that it will not have.
    """
    await failpoint("create.before_intent")
    drawn = draft(app, new, actor)
    if remember is not None:
        remember = replace(remember, operation_id=drawn.operation.id, subject=drawn.organization.id)
    try:
        if app.is_rehearsing:
            return await app.storage.run(SCOPE, _rehearsed, drawn, actor)
        await _write(app, drawn, actor, remember)
    except AlreadyExists as error:
        if race := _RACES.get(error.constraint):
            raise race() from None
        raise
    await failpoint("create.after_claim")
    await operations.finish(app, drawn.operation, within=operations.WAIT_SECONDS)
    return await app.storage.read(SCOPE, organizations.get, drawn.organization.id)


async def _rehearsed(tx: Transaction, drawn: Draft, actor: Actor) -> Located:
    """All of it that happens in the directory, in one transaction."""
    await write_intent(tx, drawn, actor)
    await operations.record_all(tx, drawn.operation, drawn.organization.created_at)
    return await organizations.get(tx, drawn.organization.id)


async def _write(app: App, drawn: Draft, actor: Actor, remember: IdempotentResponse | None) -> None:
    try:
        await app.storage.run(SCOPE, write_intent, drawn, actor, remember)
    except AlreadyExists as error:
        if error.constraint != tables.cells.key_constraint:
            raise
        # Two counted the first dedicated space of a cell at once: now there is the row to count this one in.
        await app.storage.run(SCOPE, write_intent, drawn, actor, remember)


async def write_intent(tx: Transaction, drawn: Draft, actor: Actor, remember: IdempotentResponse | None = None) -> None:
    """Claim the name and write down everything that the operation needs to be completed by anybody.

    Raises ``BudgetExhausted`` before it has written anything, ``NameTaken`` after.
    """
    organization = drawn.organization
    await placements.promise_space(tx, drawn.placement, drawn.budget)
    claims = await slugs.take_over(tx, organization.slug, organization.id, drawn.user_id, organization.created_at)
    remembered = [remember] if remember else []
    await tx.add_all([*_rows([drawn], claims, actor), (tables.idempotent_responses, remembered)])


async def write_intents(tx: Transaction, drafts: Sequence[Draft], claims: Sequence[SlugClaim], actor: Actor) -> None:
    """``write_intent`` for many whose spaces are promised, and whose names are claimed once ``claims`` are added."""
    await tx.add_all(_rows(drafts, claims, actor))


def _rows(drafts: Sequence[Draft], claims: Sequence[SlugClaim], actor: Actor) -> list[tuple[Table[Any], Sequence[Any]]]:
    """What the intent adds; claims first, because engines mostly name the first of several things that are taken."""
    chains = [_chain(drawn, actor) for drawn in drafts]
    return [
        (tables.slugs, claims),
        (tables.organizations, [drawn.organization for drawn in drafts]),
        (tables.placements, [drawn.placement for drawn in drafts]),
        (tables.operations, [drawn.operation for drawn in drafts]),
        (tables.users, [drawn.new_user for drawn in drafts if drawn.new_user]),
        (tables.memberships, [drawn.membership for drawn in drafts if drawn.membership]),
        (tables.audit_entries, [entry for entry, _ in chains]),
        (tables.audit_heads, [head for _, head in chains]),
    ]


def _chain(drawn: Draft, actor: Actor) -> tuple[AuditEntry, AuditHead]:
    organization = drawn.organization
    facts = {**_facts(organization), "plan": organization.plan, "owner": drawn.user_id}
    return audit.beginning(organization.id, actor, CREATED, facts, at=organization.created_at)


async def make_space(app: App, operation: Operation) -> Mapping[str, Json]:
    """Make the space, or find it made."""
    placement = _carried(operation, app.clock())
    if placement is None:
        placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    await app.cell(placement.cell).create_space(placements.space_of(placement))
    await failpoint("create.after_space")
    return {}


def _carried(operation: Operation, at: datetime) -> Placement | None:
    """The placement as the intent has it: nothing changes it before the organization is active or forgotten.

    None once the lease has run out, because another process may have seen to either since, and where the operation
    was begun by a version that carried none.
    """
    place = operation.payload.get("placement")
    if place is None or operation.lease_until <= at:
        return None
    kind = PlacementKind(place["kind"])
    return Placement(org_id=operation.org_id, cell=place["cell"], kind=kind, space=place["space"])


async def make_spaces(app: App, batch: Sequence[Operation]) -> None:
    """``make_space`` for many. Raises ``NotFound`` where one of them has no placement any more."""
    found = await app.storage.read(SCOPE, placements.get_many, [operation.org_id for operation in batch])
    if len(found) != len(batch):
        raise NotFound
    by_cell: dict[str, list[Space]] = {}
    for placement in found:
        by_cell.setdefault(placement.cell, []).append(placements.space_of(placement))
    for cell, spaces in by_cell.items():
        for some in _parts(spaces):
            await app.cell(cell).create_spaces(some)
    await failpoint("create.after_space")


def _parts(spaces: Sequence[Space]) -> Iterator[Sequence[Space]]:
    """All pooled spaces together, then the dedicated ones, as many as are made at once."""
    dedicated = [space for space in spaces if space.kind is PlacementKind.DEDICATED]
    if pooled := [space for space in spaces if space.kind is not PlacementKind.DEDICATED]:
        yield pooled
    for start in range(0, len(dedicated), DEDICATED_AT_ONCE):
        yield dedicated[start : start + DEDICATED_AT_ONCE]


async def activate(tx: Transaction, operation: Operation, at: datetime) -> None:
    """The organization exists for everybody from here on."""
    active = _active(await tx.lock(tables.organizations, operation.org_id), at)
    await tx.replace(tables.organizations, active)
    await events.emit(tx, active.id, CREATED, _facts(active), at=at)


async def activate_all(tx: Transaction, batch: Sequence[Operation], at: datetime) -> None:
    """``activate`` for many; ``replace_many`` compares versions, so that nothing need be locked."""
    found = await tx.find_many(tables.organizations, [(operation.org_id,) for operation in batch])
    if len(found) != len(batch):
        raise NotFound
    active = [_active(organization, at) for organization in found]
    await tx.replace_many(tables.organizations, active)
    await tx.add_many(tables.events, [events.new(o.id, CREATED, _facts(o), at=at) for o in active])


def _active(organization: Organization, at: datetime) -> Organization:
    return lifecycle.moved(organization, lifecycle.ACTIVE, at, operation_id=None)


def _facts(organization: Organization) -> dict[str, Json]:
    return {"name": organization.name, "slug": organization.slug}


async def drop_space(app: App, operation: Operation) -> Mapping[str, Json]:
    """Remove the space. Where another organization's data is in its place, there is none of ours to remove."""
    placement = await app.storage.read(SCOPE, placements.get, operation.org_id)
    with suppress(SpaceMismatch):
        while await app.cell(placement.cell).drop_space(placements.space_of(placement)):
            pass
    return {}


async def forget(tx: Transaction, operation: Operation, at: datetime) -> None:
    """Take back what ``write_intent`` wrote. A person who signed up with it stays, and can try again."""
    org_id = operation.org_id
    organization = await tx.lock(tables.organizations, org_id)
    await slugs.free(tx, organization.slug)
    await placements.release_space(tx, await tx.get(tables.placements, org_id))
    for membership in await tx.page(tables.memberships, {"org_id": org_id}, limit=10):
        await tx.remove(tables.memberships, org_id, membership.user_id)
    for entry in await tx.page(tables.audit_entries, {"org_id": org_id}, limit=10):
        await tx.remove(tables.audit_entries, org_id, entry.seq)
    await tx.remove(tables.audit_heads, org_id)
    await tx.remove(tables.placements, org_id)
    await tx.remove(tables.organizations, org_id)


operations.register(
    operations.Kind(
        CREATE,
        steps=(
            operations.Step(
                "space",
                make_space,
                activate,
                "create.after_activate",
                operations.Together(make_spaces, activate_all),
            ),
        ),
        undo=operations.Step("undo", drop_space, forget),
    )
)
