"""``fsck`` finds each kind of damage, repairs what it promises to, and finds nothing in a database that is in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from orgstead import failpoints, index_integrity, integrity, organizations, placements, renaming, space_integrity
from orgstead.app import App
from orgstead.errors import FailpointReached, StorageError
from orgstead.failpoints import arm
from orgstead.integrity import STUCK
from orgstead.integrity_findings import Finding
from orgstead.model import (
    ApiKey,
    IndexEntry,
    Membership,
    OperationState,
    OrganizationStatus,
    Placement,
    Role,
    Slot,
    SlotState,
    SlugClaim,
    SlugState,
)
from orgstead.renaming import NewName
from orgstead.storage import tables
from orgstead.storage.port import Space, Table, Transaction
from tests import apps
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio


def named(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.id, finding.subject) for finding in found]


async def changed(app: App, table: Table[Any], *key: Any, **values: Any) -> None:
    """Change a row behind the product's back."""
    await app.storage.run(apps.SCOPE, _change, table, key, values)


async def _change(tx: Transaction, table: Table[Any], key: tuple[Any, ...], values: dict[str, Any]) -> None:
    row = await tx.get(table, *key)
    identity = {column: value for column, value in values.items() if column in table.key}
    if identity:
        await tx.remove(table, *key)
        await tx.add(table, replace(row, **values))
    else:
        await tx.replace(table, replace(row, **values))


async def added(app: App, table: Table[Any], row: Any) -> None:
    await app.storage.run(apps.SCOPE, _add, table, row)


async def _add(tx: Transaction, table: Table[Any], row: Any) -> None:
    await tx.add(table, row)


async def removed(app: App, table: Table[Any], *key: Any) -> None:
    await app.storage.run(apps.SCOPE, _remove, table, key)


async def _remove(tx: Transaction, table: Table[Any], key: tuple[Any, ...]) -> None:
    await tx.remove(table, *key)


async def in_space(app: App, where: Placement, work: Callable[..., Awaitable[Any]], *args: Any) -> None:
    await app.storage.run(placements.space_of(where), work, *args)


# --- in order ---------------------------------------------------------------------------------------------------------


async def test_a_database_in_order_has_no_findings(app: App) -> None:
    """Every state that is reached on purpose: ``app`` ends with ``fsck``."""
    for plan in ("free", "enterprise"):
        where = (await apps.created(app, f"Acme {plan}", plan)).placement
        await apps.write(app, where, "one")
        await renaming.rename(app, where.org_id, NewName(name=f"Labs {plan}"), apps.TESTER)
        at = app.clock()
        await app.storage.run(
            apps.SCOPE, organizations.suspend, where.org_id, organizations.OWNER, actor=apps.TESTER, at=at
        )
        await app.storage.run(
            apps.SCOPE, organizations.close, where.org_id, timedelta(days=1), actor=apps.TESTER, at=at
        )
        await app.storage.run(apps.SCOPE, organizations.restore, where.org_id, actor=apps.TESTER, at=at)


async def test_progress_counts_every_organization(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "BATCH", 3)
    for number in range(7):
        await apps.created(app, f"Acme {number}")
    seen: list[int] = []
    assert [finding async for finding in integrity.fsck(app, progress=seen.append)] == []
    assert sum(seen) == 7


async def test_damage_is_found_in_every_batch(damaged: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at the edges of batches, where a wrong bound would miss or double it."""
    monkeypatch.setattr(integrity, "BATCH", 3)
    org_ids = [(await apps.created(damaged, f"Acme {number}")).organization.id for number in range(7)]
    for org_id in org_ids:
        await changed(damaged, tables.audit_entries, org_id, 1, action="organization.forged")
        (member,) = await apps.rows(damaged, tables.memberships, org_id=org_id)
        await changed(damaged, tables.memberships, org_id, member.user_id, role=Role.MEMBER)
    found = named(await apps.findings(damaged))
    assert sorted(found) == sorted([("I7", org_id) for org_id in org_ids] + [("I11", org_id) for org_id in org_ids])


# --- I1 ---------------------------------------------------------------------------------------------------------------


async def test_i1_an_organization_without_a_placement(damaged: App) -> None:
    org_id = (await apps.created(damaged, "Acme")).organization.id
    await removed(damaged, tables.placements, org_id)
    assert ("I1", org_id) in named(await apps.findings(damaged))


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_i1_a_space_that_is_gone(damaged: App, plan: str) -> None:
    where = (await apps.created(damaged, "Acme", plan)).placement
    while await damaged.storage.drop_space(placements.space_of(where)):
        pass
    assert named(await apps.findings(damaged, repair=True)) == [("I1", where.org_id)]
    assert named(await apps.findings(damaged)) == [("I1", where.org_id)], "this cannot be repaired"


async def test_i1_a_space_under_another_name_is_missing_there_and_left_over_here(damaged: App) -> None:
    where = (await apps.created(damaged, "Acme", "enterprise")).placement
    await damaged.storage.rename_space(placements.space_of(where), "org_elsewhere")
    assert named(await apps.findings(damaged)) == [("I1", where.org_id), ("I2", "org_elsewhere")]


# --- I2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_i2_a_space_of_nobody_is_dropped(app: App, plan: str) -> None:
    where = (await apps.created(app, "Acme", plan)).placement
    left = Space("org_gone", where.kind, where.space and "org_gone", 3)
    await app.storage.create_space(left)
    await app.storage.run(left, apps.put, left, apps.record("org_gone", "one"))
    subject = left.name or "org_gone"
    assert named(await apps.findings(app)) == [("I2", subject)]
    (finding,) = await apps.findings(app, repair=True)
    assert finding.repaired
    assert len(await app.storage.spaces()) == 1
    assert await apps.records(app, replace(where, org_id="org_gone", space=left.name, epoch=3)) == {}


# --- I4 ---------------------------------------------------------------------------------------------------------------


async def test_i4_an_organization_that_does_not_hold_its_slug(damaged: App) -> None:
    org_id = (await apps.created(damaged, "Acme")).organization.id
    await removed(damaged, tables.slugs, "acme")
    assert named(await apps.findings(damaged)) == [("I4", org_id)]


async def test_i4_a_slug_that_another_organization_holds(damaged: App) -> None:
    one = (await apps.created(damaged, "One")).organization.id
    two = (await apps.created(damaged, "Two")).organization.id
    await changed(damaged, tables.slugs, "one", org_id=two)
    assert named(await apps.findings(damaged)) == [("I4", one), ("I4", "one")]


async def test_i4_a_slug_that_redirects_to_its_own_organization(damaged: App) -> None:
    org_id = (await apps.created(damaged, "Acme")).organization.id
    await changed(damaged, tables.slugs, "acme", state=SlugState.REDIRECT)
    assert named(await apps.findings(damaged)) == [("I4", org_id)]


@pytest.mark.parametrize("state", [SlugState.CURRENT, SlugState.REDIRECT])
async def test_i4_a_slug_that_is_held_for_nobody(damaged: App, state: SlugState) -> None:
    await added(damaged, tables.slugs, SlugClaim(slug="stuck", org_id="org_gone", state=state))
    assert named(await apps.findings(damaged)) == [("I4", "stuck")]


# --- I6 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["free", "enterprise"])
@pytest.mark.parametrize("off", [{"records": 2}, {"bytes": -7}, {"records": -1, "bytes": 1}, {"collections": 1}])
async def test_i6_counters_that_are_off_are_corrected(app: App, plan: str, off: dict[str, int]) -> None:
    where = (await apps.created(app, "Acme", plan)).placement
    await apps.write(app, where, "one")
    await in_space(app, where, _adjust, where.org_id, off)
    assert named(await apps.findings(app)) == [("I6", where.org_id)]
    (finding,) = await apps.findings(app, repair=True)
    assert finding.repaired


async def _adjust(tx: Transaction, org_id: str, deltas: dict[str, int]) -> None:
    await tx.adjust(tables.slots, org_id, 1, 0, deltas=deltas)


async def test_i6_a_large_space_is_recounted_too(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_integrity, "SMALL", 0)
    where = (await apps.created(app, "Acme")).placement
    await in_space(app, where, _adjust, where.org_id, {"records": 1})
    assert named(await apps.findings(app, repair=True)) == [("I6", where.org_id)]


@pytest.mark.parametrize("off", [-1, 3])
async def test_i6_members_that_are_miscounted_are_counted_again(app: App, off: int) -> None:
    await apps.created(app, "Other")
    org_id = (await apps.created(app, "Acme")).organization.id
    await changed(app, tables.organizations, org_id, members=1 + off)
    assert named(await apps.findings(app)) == [("I6", org_id)]
    (finding,) = await apps.findings(app, repair=True)
    assert (finding.repaired, finding.detail) == (True, f"The usage counters are off: members by {off:+d}.")


def a_key(org_id: str, id: str, at: datetime) -> ApiKey:
    """An API key of whoever."""
    return ApiKey(
        org_id=org_id, id=id, name="x", role=Role.VIEWER, user_id="u", secret_hash="", created_at=at, updated_at=at
    )


async def test_i6_api_keys_that_are_miscounted_are_counted_again(app: App) -> None:
    """Beside members, in one finding."""
    await apps.created(app, "Other")
    org_id = (await apps.created(app, "Acme")).organization.id
    for number in range(2):
        await added(app, tables.api_keys, a_key(org_id, f"key_{number}", app.clock()))
    await changed(app, tables.organizations, org_id, api_keys=5, members=2)
    assert named(await apps.findings(app)) == [("I6", org_id)]
    (finding,) = await apps.findings(app, repair=True)
    assert (finding.repaired, finding.detail) == (True, "The usage counters are off: members by +1, api_keys by +3.")
    found = {one.id: (one.members, one.api_keys) for one in await apps.rows(app, tables.organizations)}
    assert found.pop(org_id) == (1, 2)
    assert list(found.values()) == [(1, 0)]


async def test_i6_a_number_that_events_have_had_already(app: App) -> None:
    """Else the next event could not be written."""
    shelf = await Shelf.made(app)
    await shelf.fill("notes", [{}] * 3)
    await in_space(app, shelf.placement, _adjust, shelf.placement.org_id, {"seq": -2})
    assert named(await apps.findings(app, repair=True)) == [("I6", shelf.placement.org_id)]
    assert (await shelf.usage()).seq == 4
    await shelf.create("notes", {})


@pytest.mark.parametrize("damage", ["missing", "excess", "another's", "of no collection"])
async def test_i13_indexes_that_are_off_are_mended(app: App, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_integrity, "BATCH", 3)
    shelf = await Shelf.made(app)
    await shelf.define("notes", indexes=[["n"], ["tags[]"]], unique=[["sku"]])
    await shelf.fill("notes", [{"n": n, "tags": [n, "x"], "sku": n} for n in range(10)])
    before = await shelf.entries("notes")
    await in_space(app, shelf.placement, _damage, damage)
    assert named(await apps.findings(app)) == [("I13", shelf.placement.org_id)]
    (finding,) = await apps.findings(app, repair=True)
    assert finding.repaired
    assert await shelf.entries("notes") == before
    assert await shelf.entries("tasks") == set()


async def test_i13_entries_in_a_space_without_collections(app: App) -> None:
    where = (await apps.created(app, "Acme")).placement
    entry = IndexEntry(org_id=where.org_id, collection="tasks", number=1, key="x", id="r1")
    await in_space(app, where, lambda tx: tx.add(tables.index_entries, entry))
    assert named(await apps.findings(app)) == [("I13", where.org_id)]
    await apps.findings(app, repair=True)
    assert await apps.findings(app) == []


async def test_many_spaces_are_looked_at_side_by_side_and_told_in_order(app: App) -> None:
    created = [(await apps.created(app, f"Acme {number}")).placement for number in range(20)]
    for where in created[::3]:
        await in_space(app, where, _adjust, where.org_id, {"records": 1})
    assert named(await apps.findings(app)) == sorted(("I6", where.org_id) for where in created[::3])
    assert all(finding.repaired for finding in await apps.findings(app, repair=True))
    assert await apps.findings(app) == []


async def test_a_space_that_cannot_be_looked_at_is_told_once_the_others_are(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = [(await apps.created(app, f"Acme {number}")).placement for number in range(4)]
    looked: list[str] = []
    none = index_integrity.are_none

    async def failing(tx: Transaction) -> bool:
        (slot,) = await tx.page(tables.slots, limit=2)
        looked.append(slot.org_id)
        if slot.org_id == created[0].org_id:
            raise StorageError
        return await none(tx)

    monkeypatch.setattr(index_integrity, "are_none", failing)
    with pytest.raises(StorageError):
        await apps.findings(app)
    assert sorted(looked) == [where.org_id for where in created]


async def _damage(tx: Transaction, damage: str) -> None:
    entries = await tx.page(tables.index_entries, limit=5)
    entry = entries[-1]
    if damage in ("missing", "another's"):
        await tx.remove(tables.index_entries, entry.org_id, entry.collection, entry.number, entry.key)
    if damage == "another's":
        await tx.add(tables.index_entries, replace(entry, id="r9"))
    elif damage == "excess":
        await tx.add(tables.index_entries, replace(entry, key="x"))
    elif damage == "of no collection":
        await tx.add_many(tables.index_entries, [replace(entry, collection="tasks") for entry in entries])


async def test_i6_the_budgets_count_is_corrected(app: App) -> None:
    await apps.created(app, "Acme", "enterprise")
    await changed(app, tables.cells, placements.FIRST_CELL, dedicated=5)
    assert named(await apps.findings(app, repair=True)) == [("I6", placements.FIRST_CELL)]


# --- I7 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["changed", "cut off", "beheaded", "gone"])
async def test_i7_a_chain_that_is_not_as_it_was_written(damaged: App, damage: str) -> None:
    org_id = (await apps.created(damaged, "Acme")).organization.id
    await renaming.rename(damaged, org_id, NewName(name="Labs"), apps.TESTER)
    match damage:
        case "changed":
            await changed(damaged, tables.audit_entries, org_id, 1, details={"name": "other"})
        case "cut off":
            await removed(damaged, tables.audit_entries, org_id, 2)
        case "beheaded":
            await removed(damaged, tables.audit_heads, org_id)
        case "gone":
            for seq in (1, 2):
                await removed(damaged, tables.audit_entries, org_id, seq)
            await removed(damaged, tables.audit_heads, org_id)
    assert named(await apps.findings(damaged)) == [("I7", org_id)]


# --- I9 ---------------------------------------------------------------------------------------------------------------


async def interrupted(app: App) -> tuple[str, str]:
    """The ids of an organization and of its rename, whose process died before the second step."""

    async def die() -> None:
        raise FailpointReached

    org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
    with arm("rename.after_close", die), pytest.raises(FailpointReached):
        await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
    (operation,) = await apps.running(app)
    return org_id, operation.id


async def test_i9_an_operation_that_makes_no_progress_is_resumed(app: App, clock: apps.Clock) -> None:
    org_id, operation_id = await interrupted(app)
    assert await apps.findings(app) == [], "its lease may still be held"
    clock.pass_(STUCK + timedelta(seconds=1))
    assert named(await apps.findings(app)) == [("I9", operation_id)]
    (finding,) = await apps.findings(app, repair=True)
    assert finding.repaired
    assert (await apps.placement(app, org_id)).space == "org_labs"


async def test_i9_an_operation_that_was_given_up_is_tried_again(app: App) -> None:
    org_id, operation_id = await interrupted(app)
    await changed(app, tables.operations, org_id, operation_id, state=OperationState.FAILED, error="storage.full")
    assert named(await apps.findings(app)) == [("I9", operation_id)]
    (finding,) = await apps.findings(app, repair=True)
    assert finding.repaired
    assert (await apps.placement(app, org_id)).space == "org_labs"


async def test_i9_what_stands_in_the_way_is_dropped_before_it_is_tried_again(app: App) -> None:
    """A left-over space has the name: I2 first, then I9."""
    org_id, operation_id = await interrupted(app)
    left = Space("org_gone", (await apps.placement(app, org_id)).kind, "org_labs", 1)
    await app.storage.create_space(left)
    await apps.recover(app)
    assert sorted(named(await apps.findings(app))) == [("I2", "org_labs"), ("I9", operation_id)]
    assert all(finding.repaired for finding in await apps.findings(app, repair=True))


@pytest.mark.parametrize("ended", [True, False])
async def test_i9_an_organization_that_waits_for_nothing(damaged: App, ended: bool) -> None:
    org_id, operation_id = await interrupted(damaged)
    if ended:
        await changed(damaged, tables.operations, org_id, operation_id, state=OperationState.SUCCEEDED)
    else:
        await removed(damaged, tables.operations, org_id, operation_id)
    assert named(await apps.findings(damaged)) == [("I9", org_id)]


@pytest.mark.parametrize("status", [OrganizationStatus.PROVISIONING, OrganizationStatus.PURGING])
async def test_i9_an_organization_between_two_states_without_an_operation(
    damaged: App, status: OrganizationStatus
) -> None:
    org_id = (await apps.created(damaged, "Acme")).organization.id
    await changed(damaged, tables.organizations, org_id, status=status)
    assert named(await apps.findings(damaged)) == [("I9", org_id)]


# --- I10, I11 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_i10_a_slot_of_a_later_epoch(damaged: App, plan: str) -> None:
    where = (await apps.created(damaged, "Acme", plan)).placement
    await in_space(damaged, where, _add_slot, where.org_id, 7, SlotState.CLOSED)
    assert named(await apps.findings(damaged)) == [("I10", where.org_id)]


async def test_i10_an_open_slot_of_an_earlier_epoch(damaged: App) -> None:
    where = (await apps.created(damaged, "Acme")).placement
    await in_space(damaged, where, _add_slot, where.org_id, 0, SlotState.OPEN)
    assert named(await apps.findings(damaged)) == [("I10", where.org_id)]


async def _add_slot(tx: Transaction, org_id: str, epoch: int, state: SlotState) -> None:
    await tx.add(tables.slots, Slot(org_id=org_id, epoch=epoch, slot=0, state=state))


async def test_i11_a_membership_of_a_person_who_does_not_exist(damaged: App) -> None:
    located = await apps.created(damaged, "Acme")
    (member,) = await apps.rows(damaged, tables.memberships)
    await removed(damaged, tables.users, member.user_id)
    assert named(await apps.findings(damaged)) == [("I11", located.organization.id)]


async def test_i11_an_organization_whose_members_are_all_less_than_owners(damaged: App) -> None:
    org_id = (await apps.created(damaged, "Acme")).organization.id
    (member,) = await apps.rows(damaged, tables.memberships)
    await changed(damaged, tables.memberships, org_id, member.user_id, role=Role.ADMIN)
    assert named(await apps.findings(damaged)) == [("I11", org_id)]


@pytest.mark.parametrize("org_id", ["org_0", "org_zzz"])
async def test_i11_a_membership_of_an_organization_that_does_not_exist(damaged: App, org_id: str) -> None:
    """Also before the first organization and behind the last."""
    await apps.created(damaged, "Acme")
    (member,) = await apps.rows(damaged, tables.memberships)
    at = damaged.clock()
    stray = Membership(org_id=org_id, user_id=member.user_id, role=Role.OWNER, created_at=at, updated_at=at)
    await added(damaged, tables.memberships, stray)
    assert named(await apps.findings(damaged)) == [("I11", org_id)]


@pytest.mark.parametrize("org_id", ["org_0", "org_zzz"])
async def test_i11_an_api_key_of_an_organization_that_does_not_exist(damaged: App, org_id: str) -> None:
    await apps.created(damaged, "Acme")
    await added(damaged, tables.api_keys, a_key(org_id, "key_1", damaged.clock()))
    assert named(await apps.findings(damaged)) == [("I11", org_id)]


async def test_what_a_running_operation_is_about_to_finish_is_no_finding(app: App) -> None:
    """At every step of a creation, a rename and a purge."""

    async def look() -> None:
        assert await apps.findings(app) == []

    with ExitStack() as armed:
        for point in failpoints.NAMES - {"idempotency.after_effect"}:
            armed.enter_context(arm(point, look))
        org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
        await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
        await apps.purged(app, org_id)
