"""What a killed process said it did, and whether the database, once recovered, agrees with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import orjson

from orgstead import names, organizations
from orgstead.app import App
from orgstead.errors import NotFound
from orgstead.model import OrganizationStatus, Placement, PlacementKind, SlugState
from orgstead.placements import FIRST_CELL
from orgstead.storage import tables
from tests import apps

AsyncProblems = AsyncIterator[str]

LIVE = {OrganizationStatus.ACTIVE, OrganizationStatus.CLOSED}


@dataclass
class History:
    """``slugs`` are those that each organization may have now; ``written`` its acknowledged records."""

    slugs: dict[str, set[str]] = field(default_factory=dict)
    written: dict[str, set[str]] = field(default_factory=dict)
    creating: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    lines: int = 0

    def read(self, lines: Iterable[bytes]) -> None:
        """Add whole lines that a process wrote."""
        for line in lines:
            self.note(*orjson.loads(line))

    def note(self, what: str, *about: str) -> None:
        self.lines += 1
        match what, about:
            case "wrote", (org_id, record_id):
                self.written.setdefault(org_id, set()).add(record_id)
            case "creating", (name,):
                self.creating.add(name)
            case "created", (name, org_id, slug):
                self.creating.discard(name)
                self.slugs[org_id] = {slug}
            case "renaming", (org_id, name):
                self.slugs[org_id].add(names.plain_slug(name))
            case "renamed", (org_id, slug):
                self.slugs[org_id] = {slug}
            case "deleting", (org_id,):
                self.deleting.add(org_id)
            case "deleted", (org_id,):
                self.deleted.add(org_id)


async def violations(app: App, history: History) -> list[str]:
    """Everything in which the recovered database does not agree with the history, or with itself."""
    found = [f"fsck: {finding.id} {finding.subject}: {finding.detail}" for finding in await apps.findings(app)]
    found += [f"still running: {operation.kind} at {operation.step}" for operation in await apps.running(app)]
    for org_id in history.slugs:
        found += [problem async for problem in _organization(app, history, org_id)]
    for organization in await apps.rows(app, tables.organizations):
        found += await _noted(app, organization.id)
    found += [problem async for problem in _names(app, history)]
    placements = await apps.rows(app, tables.placements)
    wanted, there = {p.space for p in placements if p.space}, await apps.space_names(app)
    if wanted != there:
        found.append(f"spaces that nobody has: {there - wanted}; missing: {wanted - there}")
    return found


async def _organization(app: App, history: History, org_id: str) -> AsyncProblems:
    try:
        located = await app.storage.read(apps.SCOPE, organizations.get, org_id)
    except NotFound:
        if org_id not in history.deleting:
            yield f"{org_id} is lost"
        elif not await apps.rows(app, tables.purge_receipts, org_id=org_id):
            yield f"{org_id} was purged without a receipt"
        for problem in await _remains(app, org_id):
            yield problem
        return
    if org_id in history.deleted:
        yield f"{org_id} is there although its deletion was acknowledged"
    organization = located.organization
    if organization.status not in LIVE or organization.operation_id:
        yield f"{org_id} is {organization.status}"
    if organization.slug not in history.slugs[org_id]:
        yield f"{org_id} is named {organization.slug}"
    if not organization.operation_id:
        for problem in await _records(app, history, org_id):
            yield problem


async def _records(app: App, history: History, org_id: str) -> list[str]:
    there = await apps.records(app, await apps.placement(app, org_id))
    lost = history.written.get(org_id, set()) - there.keys()
    problems = [f"{org_id} lost {len(lost)} acknowledged records"] if lost else []
    broken = [record_id for record_id, found in there.items() if found.data != apps.record(org_id, record_id).data]
    return [*problems, *(f"the record {record_id} is not whole" for record_id in broken)]


async def _noted(app: App, org_id: str) -> list[str]:
    """Each mutation has one audit entry and one event."""
    entries = Counter(entry.action for entry in await apps.rows(app, tables.audit_entries, org_id=org_id))
    events = Counter(event.type for event in await apps.rows(app, tables.events, org_id=org_id))
    return [] if entries == events else [f"{org_id} has the audit entries {entries} and the events {events}"]


async def _remains(app: App, org_id: str) -> list[str]:
    """Of what was purged, nothing is left in the shared tables."""
    pooled = Placement(org_id=org_id, cell=FIRST_CELL, kind=PlacementKind.POOLED, space=None)
    left = await apps.records(app, pooled)
    return [f"{org_id} was purged, but {len(left)} of its records are there"] if left else []


async def _names(app: App, history: History) -> AsyncProblems:
    """A name whose creation was not acknowledged belongs to a complete organization or to nobody."""
    for name in history.creating:
        (claim,) = await apps.rows(app, tables.slugs, slug=names.plain_slug(name)) or [None]
        if claim is None:
            continue
        try:
            located = await app.storage.read(apps.SCOPE, organizations.get, claim.org_id)
        except NotFound:
            yield f"the name {name} is stuck"
            continue
        complete = located.organization.status is OrganizationStatus.ACTIVE and claim.state is SlugState.CURRENT
        if not complete or not await apps.rows(app, tables.memberships, org_id=claim.org_id):
            yield f"the organization {name} is half made"
