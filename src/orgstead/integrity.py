"""fsck: does the directory agree with itself and with the spaces? Findings are named, and few are repaired.

I1  every live organization has one placement, and its space exists
I2  no space without an organization
I4  one organization per slug, and no slug held for an organization that does not exist
I6  slot counters equal a recount, and none is behind the events that it numbers
I7  every audit chain verifies and begins with the creation
I9  no operation without progress for longer than its limit, no organization waiting for one that has ended
I10 epochs only grow: no slots of a later epoch than the placement's, none open of an earlier one
I11 no membership without its user and organization, no organization with members but without an owner, no API key
    without its organization
I13 the indexes of a collection hold what its records say, no more and no less

I3, I5, I8 and I12 belong to features that are not there yet. Repair does only what is safe: it drops a space that no
organization has (I2), corrects counters (I6) and indexes (I13), and resumes an operation that is stuck or was given up
(I9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from orgstead import audit, lifecycle, placements, resuming, space_integrity
from orgstead.integrity_findings import Finding
from orgstead.model import (
    ApiKey,
    AuditEntry,
    Cell,
    Membership,
    Operation,
    OperationState,
    Organization,
    OrganizationStatus,
    Placement,
    PlacementKind,
    Role,
    SlugClaim,
    SlugState,
)
from orgstead.storage import tables
from orgstead.storage.port import FoundSpace, Space, SystemScope, Table, Transaction, count_rows

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("fsck")
BATCH = 500
STUCK = timedelta(seconds=60)
"""How long a running operation may go without progress."""

_LAST = chr(0x10FFFF)
"""Sorts after every id."""

_NO_SEQ = 2**62
"""Sorts after every entry of a chain."""


Report = Callable[[int], None]
"""Told how many more organizations have been looked at."""


def _ignore(count: int) -> None: ...


async def fsck(app: App, *, repair: bool = False, progress: Report = _ignore) -> AsyncIterator[Finding]:
    """Yield every finding.

    Reads in batches, so a service at work may show what it is just about to finish: run it again before you believe a
    finding about an organization with a running operation. ``progress`` is told how many organizations are done.
    """
    waiting: list[Organization] = []
    after = ""
    while True:
        batch = await app.storage.scan(SCOPE, _organizations, after)
        last = batch[-1].id if batch else _LAST
        findings, off = await app.storage.scan(SCOPE, _directory_findings, batch, after, last)
        for finding in findings:
            yield finding
        for org_id, amounts in off.items():
            if repair:
                await app.storage.run(SCOPE, _recount_organization, org_id)
            said = ", ".join(f"{what} by {amount:+d}" for what, amount in amounts.items() if amount)
            yield Finding("I6", org_id, f"The usage counters are off: {said}.", repair)
        places = {p.org_id: p for p in await app.storage.scan(SCOPE, placements.get_many, [o.id for o in batch])}
        async for finding in space_integrity.findings(app, batch, places, repair=repair):
            yield finding
        waiting += [o for o in batch if o.operation_id is not None or o.status in lifecycle.BUSY]
        progress(len(batch))
        if not batch:
            break
        after = last
    async for finding in _claims(app):
        yield finding
    for check in (_orphans, _budget, _stuck):
        async for finding in check(app, repair):
            yield finding
    for organization in waiting:
        async for finding in _waiting(app, organization, repair):
            yield finding


async def _organizations(tx: Transaction, after: str) -> list[Organization]:
    return await tx.page(tables.organizations, order=("id",), after=(after,), limit=BATCH)


# --- a batch of organizations, in the directory ---------------------------------------------------------------------


async def _directory_findings(
    tx: Transaction, batch: list[Organization], after: str, last: str
) -> tuple[list[Finding], dict[str, dict[str, int]]]:
    """What is wrong with these organizations, which are all whose id is above ``after`` and not above ``last``; and by
    how much their counters are off."""
    alive = {o.id: o for o in batch if o.status is not OrganizationStatus.PURGING}
    there = {o.id for o in batch}
    members, memberships = await _members(tx, alive, there, after, last)
    strays, api_keys = await _api_keys(tx, there, after, last)
    findings = [*await _slugs(tx, alive), *await _chains(tx, alive, after, last), *members, *strays]
    return findings, await _miscounted(tx, alive, {"members": memberships, "api_keys": api_keys})


async def _between(
    tx: Transaction, table: Table[Any], second: str, highest: Any, after: str, last: str
) -> AsyncIterator[list[Any]]:
    """Rows in the order of ``org_id`` and ``second``, for the organizations above ``after`` and not above ``last``.

    ``highest`` is above every value of ``second``.
    """
    position = (after, highest)
    while rows := await tx.page(table, order=("org_id", second), after=position, limit=BATCH):
        yield [row for row in rows if row.org_id <= last]
        position = (rows[-1].org_id, getattr(rows[-1], second))
        if position[0] > last:
            return


async def _slugs(tx: Transaction, alive: Mapping[str, Organization]) -> list[Finding]:
    claims = await tx.find_many(tables.slugs, [(organization.slug,) for organization in alive.values()])
    by_slug = {claim.slug: claim for claim in claims}
    return [
        Finding("I4", organization.id, "The organization does not hold its own slug.")
        for organization in alive.values()
        if not _holds(organization, by_slug.get(organization.slug))
    ]


def _holds(organization: Organization, claim: SlugClaim | None) -> bool:
    """While it is renamed, an organization has its former slug, which is a redirect already."""
    if claim is None or claim.org_id != organization.id:
        return False
    return claim.state is SlugState.CURRENT or (
        claim.state is SlugState.REDIRECT and organization.operation_id is not None
    )


async def _chains(tx: Transaction, alive: Mapping[str, Organization], after: str, last: str) -> list[Finding]:
    heads = {head.org_id: head for head in await tx.find_many(tables.audit_heads, [(org_id,) for org_id in alive])}
    chains = {org_id: audit.Chain() for org_id in alive}
    entries: list[AuditEntry]
    async for entries in _between(tx, tables.audit_entries, "seq", _NO_SEQ, after, last):
        for entry in entries:
            if entry.org_id in chains:
                chains[entry.org_id].follow(entry)
    return [
        Finding("I7", org_id, f"The audit chain is not as it was written from entry {chain.expected} on.")
        for org_id, chain in chains.items()
        if not chain.ends_at(heads.get(org_id)) or chain.is_empty
    ]


async def _members(
    tx: Transaction, alive: Mapping[str, Organization], there: set[str], after: str, last: str
) -> tuple[list[Finding], Counter[str]]:
    """What is wrong with the memberships of these organizations, and how many each of them has."""
    findings: list[Finding] = []
    counted: Counter[str] = Counter()
    ownerless: dict[str, bool] = {}
    memberships: list[Membership]
    async for memberships in _between(tx, tables.memberships, "user_id", _LAST, after, last):
        users = {user.id for user in await tx.find_many(tables.users, [(m.user_id,) for m in memberships])}
        for membership in memberships:
            org_id = membership.org_id
            counted[org_id] += 1
            ownerless[org_id] = ownerless.get(org_id, True) and membership.role is not Role.OWNER
            if org_id not in there:
                findings.append(Finding("I11", org_id, "A membership names this organization, which does not exist."))
            elif membership.user_id not in users:
                detail = f"A membership names the user {membership.user_id}, who does not exist."
                findings.append(Finding("I11", org_id, detail))
    findings += [
        Finding("I11", org_id, "The organization has members, but no owner.")
        for org_id, lacks in ownerless.items()
        if lacks and org_id in alive
    ]
    return findings, counted


async def _api_keys(tx: Transaction, there: set[str], after: str, last: str) -> tuple[list[Finding], Counter[str]]:
    """What is wrong with the API keys of these organizations, and how many each of them has."""
    findings: list[Finding] = []
    counted: Counter[str] = Counter()
    keys: list[ApiKey]
    async for keys in _between(tx, tables.api_keys, "id", _LAST, after, last):
        for key in keys:
            counted[key.org_id] += 1
            if key.org_id not in there:
                detail = f"The API key {key.id} names this organization, which does not exist."
                findings.append(Finding("I11", key.org_id, detail))
    return findings, counted


_COUNTED: Mapping[str, Table[Any]] = {"members": tables.memberships, "api_keys": tables.api_keys}
"""The counters of an organization that are in the directory, and the rows that each counts."""


async def _miscounted(
    tx: Transaction, alive: Mapping[str, Organization], counted: Mapping[str, Counter[str]]
) -> dict[str, dict[str, int]]:
    """By how much which counters are off, by organization: seen again, as of the moment that the count is of."""
    suspects = [(org_id,) for org_id, o in alive.items() if any(_off(o, counted).values())]
    seen = await tx.find_many(tables.organizations, suspects) if suspects else []
    off = {o.id: _off(o, counted) for o in seen if o.status is not OrganizationStatus.PURGING}
    return {org_id: amounts for org_id, amounts in off.items() if any(amounts.values())}


def _off(organization: Organization, counted: Mapping[str, Counter[str]]) -> dict[str, int]:
    return {what: getattr(organization, what) - number[organization.id] for what, number in counted.items()}


async def _recount_organization(tx: Transaction, org_id: str) -> None:
    organization = await tx.lock(tables.organizations, org_id)
    deltas = {
        what: await count_rows(tx, table, {"org_id": org_id}) - getattr(organization, what)
        for what, table in _COUNTED.items()
    }
    await tx.adjust(tables.organizations, org_id, deltas=deltas)


# --- what no organization knows of ------------------------------------------------------------------------------------


async def _claims(app: App) -> AsyncIterator[Finding]:
    """Slugs that keep others from a name without naming an organization."""
    after: tuple[str, ...] | None = None
    while claims := await app.storage.scan(SCOPE, _claim_page, after):
        after = (claims[-1].slug,)
        held = [claim for claim in claims if claim.state is not SlugState.QUARANTINED]
        there = {o.id: o for o in await app.storage.scan(SCOPE, _of_claims, held)}
        for claim in held:
            organization = there.get(claim.org_id)
            if organization is None:
                yield Finding("I4", claim.slug, "The slug is held for an organization that does not exist.")
            elif claim.state is SlugState.CURRENT and organization.slug != claim.slug and not organization.operation_id:
                yield Finding("I4", claim.slug, "The slug is held for an organization that has another one.")


async def _claim_page(tx: Transaction, after: tuple[str, ...] | None) -> list[SlugClaim]:
    return await tx.page(tables.slugs, order=("slug",), after=after, limit=BATCH)


async def _of_claims(tx: Transaction, claims: Sequence[SlugClaim]) -> list[Organization]:
    return await tx.find_many(tables.organizations, [(claim.org_id,) for claim in claims])


async def _orphans(app: App, repair: bool) -> AsyncIterator[Finding]:
    for name in app.cell_names():
        cell, mark = app.cell(name), ""
        while batch := await cell.spaces(after=mark, limit=BATCH):
            mark = batch[-1][0]
            spaces = [found for _, found in batch]
            for found in await app.storage.scan(SCOPE, _unowned, spaces):
                if repair:
                    await _drop(app, name, found)
                subject = found.name or found.org_id or "?"
                yield Finding("I2", subject, "A space is there that no organization has.", repair)


async def _unowned(tx: Transaction, spaces: Sequence[FoundSpace]) -> list[FoundSpace]:
    """The spaces that were found and belong to no organization. They were listed before the directory is read."""
    keys = [(found.org_id,) for found in spaces if found.org_id is not None]
    there = {o.id: o for o in await tx.find_many(tables.organizations, keys)}
    places = {p.org_id: p for p in await tx.find_many(tables.placements, keys)}
    return [found for found in spaces if _is_unowned(found, there, places)]


def _is_unowned(found: FoundSpace, there: Mapping[str, Organization], places: Mapping[str, Placement]) -> bool:
    organization, placement = there.get(found.org_id or ""), places.get(found.org_id or "")
    if organization is None or placement is None:
        return True
    return organization.operation_id is None and (placement.kind, placement.space) != (found.kind, found.name)


async def _drop(app: App, cell: str, found: FoundSpace) -> None:
    for epoch in found.epochs or (0,):
        space = Space(found.org_id or "", found.kind, found.name, epoch)
        while await app.cell(cell).drop_space(space):
            pass


async def _stuck(app: App, repair: bool) -> AsyncIterator[Finding]:
    for operation in await app.storage.scan(SCOPE, _silent, app):
        repaired = repair and await _resume(app, operation)
        yield Finding("I9", operation.id, f"The operation has made no progress at {operation.step}.", repaired)


async def _silent(tx: Transaction, app: App) -> list[Operation]:
    """Running operations that were last written before the limit."""
    silent: list[Operation] = []
    after: tuple[Any, ...] | None = None
    before = app.clock() - STUCK
    where: Mapping[str, str] = {"state": OperationState.RUNNING}
    while page := await tx.page(
        tables.operations, where, order=("updated_at", "org_id", "id"), after=after, limit=BATCH
    ):
        silent += [operation for operation in page if operation.updated_at <= before]
        after = (page[-1].updated_at, page[-1].org_id, page[-1].id)
        if page[-1].updated_at > before:
            break
    return silent


async def _waiting(app: App, seen: Organization, repair: bool) -> AsyncIterator[Finding]:
    """An organization must not wait for what does not go on."""
    organization, operation = await app.storage.scan(SCOPE, _awaited, seen.id)
    if organization is None:
        return
    if operation is not None and operation.state is OperationState.FAILED:
        repaired = repair and await _resume(app, operation)
        detail = f"The operation was given up at {operation.step}: {operation.error}."
        yield Finding("I9", operation.id, detail, repaired)
    elif organization.operation_id and (operation is None or operation.state is not OperationState.RUNNING):
        yield Finding("I9", organization.id, "The organization waits for an operation that has ended.")
    elif organization.operation_id is None and organization.status in lifecycle.BUSY:
        yield Finding("I9", organization.id, f"The organization is {organization.status}, but no operation is at work.")


async def _awaited(tx: Transaction, org_id: str) -> tuple[Organization | None, Operation | None]:
    """The organization as it is now, and the operation that it waits for."""
    organization = await tx.find(tables.organizations, id=org_id)
    if organization is None or organization.operation_id is None:
        return organization, None
    return organization, await tx.find(tables.operations, org_id=organization.id, id=organization.operation_id)


async def _resume(app: App, operation: Operation) -> bool:
    return (await resuming.retry_now(app, operation)).state is OperationState.SUCCEEDED


async def _budget(app: App, repair: bool) -> AsyncIterator[Finding]:
    """The budget's count of dedicated spaces is one more counter (I6)."""
    for cell in await app.storage.scan(SCOPE, _cells):
        counted = await app.storage.scan(SCOPE, _dedicated, cell.name)
        if cell.dedicated == counted:
            continue
        if repair:
            await app.storage.run(SCOPE, _recount, cell.name)
        yield Finding("I6", cell.name, f"The cell counts {cell.dedicated} dedicated spaces of {counted}.", repair)


async def _cells(tx: Transaction) -> list[Cell]:
    return await tx.page(tables.cells, limit=BATCH)


async def _dedicated(tx: Transaction, cell: str) -> int:
    where = {"cell": cell, "kind": PlacementKind.DEDICATED}
    return await count_rows(tx, tables.placements, where)


async def _recount(tx: Transaction, cell: str) -> None:
    held = await tx.lock(tables.cells, cell)
    await tx.replace(tables.cells, replace(held, dedicated=await _dedicated(tx, cell)))
