"""Operations: written before their first effect, resumed by anybody, undone where nothing can mend them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog

from orgstead import (
    api_keys,
    creation,
    operations,
    organizations,
    placements,
    purging,
    renaming,
    resuming,
    storage,
    worker,
)
from orgstead.api_keys import NewApiKey
from orgstead.app import OPERATIONS, App
from orgstead.errors import (
    Conflict,
    FailpointReached,
    InternalError,
    NotFound,
    OperationInProgress,
    OrgsteadError,
    OutcomeUnknown,
    SpaceMismatch,
    StaleRow,
    StatusConflict,
    StorageFull,
    Unavailable,
)
from orgstead.failpoints import arm
from orgstead.model import Operation, OperationState, OrganizationStatus, Placement, PlacementKind, Role
from orgstead.operations import LEASE, MAX_ATTEMPTS, Kind, Step
from orgstead.renaming import NewName
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction
from tests import apps

pytestmark = pytest.mark.anyio


async def die() -> None:
    """What a death leaves: the step is not recorded, the lease is held."""
    raise FailpointReached


async def left_behind(app: App, point: str = "create.after_space") -> Operation:
    """The operation of a creation whose process died at ``point``."""
    with arm(point, die), pytest.raises(FailpointReached):
        await apps.created(app, "Acme", "enterprise")
    (operation,) = await apps.running(app)
    return operation


def failing(app: App, monkeypatch: pytest.MonkeyPatch, verb: str, *errors: Exception) -> list[Exception]:
    """Have a verb of the storage raise these errors first; returns those that are left."""
    works: Callable[..., Awaitable[Any]] = getattr(app.storage, verb)
    left = list(errors)

    async def fails(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop(0)
        return await works(*args, **kwargs)

    monkeypatch.setattr(app.storage, verb, fails)
    return left


async def stored(app: App, operation: Operation) -> Operation:
    return await app.storage.read(apps.SCOPE, operations.get, operation.org_id, operation.id)


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_whoever_has_an_app_can_complete_every_operation() -> None:
    """The modules that own the operations are imported with the App, whatever else a process imports."""
    program = "import orgstead.app, orgstead.operations as o; print(sorted(o.KINDS))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(sorted(OPERATIONS))


async def test_a_lease_that_is_held_is_respected(app: App, clock: apps.Clock) -> None:
    operation = await left_behind(app)
    other = apps.second_process(app)
    assert await resuming.resume_due(other) == 0
    assert (await resuming.retry_now(other, operation)).state is OperationState.RUNNING
    clock.pass_(LEASE)
    assert await resuming.resume_due(other) == 1
    assert (await stored(app, operation)).state is OperationState.SUCCEEDED
    assert (await apps.rows(app, tables.organizations))[0].status is OrganizationStatus.ACTIVE


async def test_what_dead_processes_left_is_adopted_at_once_where_only_one_can_write(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(App, "is_only_writer", True)
    operation = await left_behind(app)
    assert await resuming.adopt_left_behind(app) == 0, "it is this process's own"
    assert await resuming.adopt_left_behind(apps.second_process(app)) == 1
    assert (await stored(app, operation)).state is OperationState.SUCCEEDED


async def test_where_others_can_write_their_leases_are_waited_for(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = await left_behind(app)
    described = replace(storage.describe(app.settings.database_url), concurrent=True)
    monkeypatch.setattr("orgstead.app.describe", lambda _: described)
    other = apps.second_process(app)
    assert await resuming.adopt_left_behind(other) == 0
    assert await resuming.resume_due(other) == 0
    clock.pass_(LEASE)
    assert await resuming.resume_due(other) == 1
    assert (await stored(app, operation)).state is OperationState.SUCCEEDED


async def test_many_are_adopted_and_one_that_fails_stops_none(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(App, "is_only_writer", True)
    with arm("create.after_space", die):
        for number in range(resuming.SIDE_BY_SIDE + 3):
            with pytest.raises(FailpointReached):
                await apps.created(app, f"Acme {number}")
    failing(app, monkeypatch, "create_space", StorageFull())
    assert await resuming.adopt_left_behind(apps.second_process(app)) == resuming.SIDE_BY_SIDE + 3
    assert [operation.error for operation in await apps.running(app)] == [StorageFull.code]
    await apps.recover(app)


async def test_the_worker_begins_with_what_was_left_behind(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(App, "is_only_writer", True)
    operation = await left_behind(app)
    stop = asyncio.Event()
    stop.set()
    await worker.run(apps.second_process(app), stop)
    assert (await stored(app, operation)).state is OperationState.SUCCEEDED


async def test_one_operation_of_an_organization_at_a_time(app: App, clock: apps.Clock) -> None:
    operation = await left_behind(app)
    at = clock()
    for change in (organizations.update, organizations.restore):
        with pytest.raises((OperationInProgress, StatusConflict)):
            await app.storage.run(apps.SCOPE, change, operation.org_id, actor=apps.TESTER, at=at)
    organization = (await apps.rows(app, tables.organizations))[0]
    with pytest.raises(OperationInProgress):
        operations.begun(renaming.RENAME, organization, operations.beginning(app, apps.TESTER), {})
    await apps.recover(app)


async def test_progress_is_shown_and_ends_at_one(app: App) -> None:
    org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
    seen: list[float] = []

    async def look() -> None:
        (operation,) = await apps.running(app)
        seen.append(operation.progress)

    with arm("rename.after_close", look), arm("rename.after_rename", look), arm("rename.after_flip", look):
        await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
    assert seen == [0.25, 0.5, 0.75]
    (operation,) = await apps.rows(app, tables.operations, kind=renaming.RENAME)
    assert (operation.progress, operation.state) == (1.0, OperationState.SUCCEEDED)
    assert operation.lease_owner is None


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_what_waiting_may_mend_is_tried_again_later(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = failing(app, monkeypatch, "create_space", StorageFull(), StorageFull())
    with pytest.raises(StorageFull):
        await apps.created(app, "Acme")
    (operation,) = await apps.running(app)
    assert (operation.attempts, operation.error, operation.lease_owner) == (1, StorageFull.code, None)
    assert await resuming.resume_due(app) == 0, "not at once"
    clock.pass_(LEASE)
    assert await resuming.resume_due(app) == 1
    assert len(left) == 0
    clock.pass_(LEASE)
    assert await resuming.resume_due(app) == 1
    ended = await stored(app, operation)
    assert (ended.state, ended.attempts, ended.error) == (OperationState.SUCCEEDED, 2, None)


@pytest.mark.parametrize("fault", [SpaceMismatch(), KeyError("a fault of ours")])
async def test_what_nothing_can_mend_is_undone_and_the_name_is_free(
    app: App, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    failing(app, monkeypatch, "create_space", fault)
    with pytest.raises(OrgsteadError) as caught:
        await apps.created(app, "Acme", "enterprise")
    expected = fault if isinstance(fault, OrgsteadError) else InternalError()
    assert type(caught.value) is type(expected)
    (operation,) = await apps.rows(app, tables.operations)
    assert (operation.state, operation.error) == (OperationState.FAILED, expected.code)
    for table in (tables.organizations, tables.slugs, tables.placements, tables.memberships, tables.audit_entries):
        assert await apps.rows(app, table) == [], table.name
    await apps.created(app, "Acme", "enterprise")


async def test_an_undo_that_fails_is_tried_again_later_not_in_a_loop(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(app, monkeypatch, "create_space", SpaceMismatch())
    left = failing(app, monkeypatch, "drop_space", *[StorageFull()] * 2)
    with pytest.raises(SpaceMismatch):
        await apps.created(app, "Acme", "enterprise")
    assert len(left) == 1, "tried once, not until it works"
    (operation,) = await apps.running(app)
    assert operation.step == "undo"
    for _ in range(2):
        clock.pass_(LEASE)
        assert await resuming.resume_due(app) == 1
    assert (await stored(app, operation)).state is OperationState.FAILED
    assert await apps.rows(app, tables.slugs) == []


async def test_a_death_while_undoing_is_recovered_from(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(app, monkeypatch, "create_space", SpaceMismatch())
    failing(app, monkeypatch, "drop_space", FailpointReached())
    with pytest.raises(FailpointReached):
        await apps.created(app, "Acme", "enterprise")
    (operation,) = await apps.running(app)
    assert operation.step == "undo"
    await apps.recover(app)
    assert (await stored(app, operation)).state is OperationState.FAILED
    assert await apps.rows(app, tables.organizations) == []


async def test_what_fails_for_ever_is_given_up_and_found(
    damaged: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = damaged
    org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
    failing(app, monkeypatch, "rename_space", *[StorageFull()] * MAX_ATTEMPTS)
    with pytest.raises(StorageFull):
        await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
    for _ in range(MAX_ATTEMPTS - 1):
        clock.pass_(LEASE)
        assert await resuming.resume_due(app) == 1
    clock.pass_(LEASE)
    assert await resuming.resume_due(app) == 0
    (finding,) = await apps.findings(app)
    assert finding.id == "I9"
    (repaired,) = await apps.findings(app, repair=True)
    assert repaired.repaired
    assert (await apps.placement(app, org_id)).space == "org_labs"
    await apps.assert_clean(app)


async def test_an_unknown_outcome_is_looked_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step was saved, but the answer got lost: the operation goes on as saved, and nobody hears of a failure."""
    org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
    run: Callable[..., Awaitable[Any]] = app.storage.run
    lost: list[str] = []

    async def loses_answers(scope: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
        result = await run(scope, work, *args, **kwargs)
        if work is operations._advance:
            lost.append(args[1].name)
            raise OutcomeUnknown
        return result

    with monkeypatch.context() as patch:
        patch.setattr(app.storage, "run", loses_answers)
        await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
    assert lost == ["close", "rename", "flip", "open"]
    assert (await apps.placement(app, org_id)).space == "org_labs"
    (operation,) = await apps.rows(app, tables.operations, kind=renaming.RENAME)
    assert operation.attempts == 0


async def test_a_long_step_keeps_its_lease(app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "LEASE", timedelta(milliseconds=30))
    renewed = asyncio.Event()
    renew = operations._renew

    async def watched(tx: Transaction, operation: Operation) -> Operation:
        loop.call_soon_threadsafe(renewed.set)
        return await renew(tx, operation)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(operations, "_renew", watched)
    with arm("create.after_space", lambda: _wait(renewed)):
        await apps.created(app, "Acme")
    (operation,) = await apps.rows(app, tables.operations)
    assert operation.version > 2


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_who_lost_the_lease_stops_in_the_middle_of_a_step(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes longer than its lease, which another process has taken meanwhile, is ended."""
    monkeypatch.setattr(operations, "LEASE", timedelta(milliseconds=30))
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with arm("create.after_space", endless):
        creating = asyncio.create_task(apps.created(app, "Acme"))
        await begun.wait()
        taken = False
        while not taken:  # its owner renews the lease meanwhile, and of two at once one wins
            (operation,) = await apps.running(app)
            with suppress(StaleRow):
                await app.storage.run(apps.SCOPE, resuming._lease, operation, "another process", app.clock())
                taken = True
        with pytest.raises(Conflict):
            await creating
        await cancelled.wait()
    await apps.recover(app)


async def test_the_work_goes_on_when_whoever_asked_for_it_goes_away(app: App) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        reached.set()
        await go_on.wait()

    with arm("create.after_space", pause):
        asking = asyncio.create_task(apps.created(app, "Acme"))
        await reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        go_on.set()
        while tasks := list(app._tasks):
            await asyncio.wait(tasks)
    assert (await apps.rows(app, tables.organizations))[0].status is OrganizationStatus.ACTIVE


async def test_a_caller_waits_only_so_long(app: App) -> None:
    go_on = asyncio.Event()
    with arm("create.after_space", lambda: _wait(go_on)):
        operation = await _intent(app)
        assert (await operations.finish(app, operation, within=0.01)).state is OperationState.RUNNING
        go_on.set()
        assert (
            await operations.finish(app, await _settled(app, operation), within=5)
        ).state is OperationState.SUCCEEDED


async def test_a_failure_that_nobody_waits_for_is_noted(app: App) -> None:
    go_on = asyncio.Event()

    async def overtaken() -> None:
        await go_on.wait()
        raise operations.taken_over()

    with arm("create.after_space", overtaken), structlog.testing.capture_logs() as logs:
        operation = await _intent(app)
        assert (await operations.finish(app, operation, within=0.01)).state is OperationState.RUNNING
        go_on.set()
        await _settled(app, operation)
    assert [(entry["event"], entry["operation"]) for entry in logs] == [("operation.failed", operation.id)]


async def _intent(app: App, plan: str = "free") -> Operation:
    owner = apps.person(app)
    new = creation.NewOrganization(name="Acme", plan=plan, owner=owner, owner_is_new=True)
    drawn = creation.draft(app, new, apps.TESTER)
    await app.storage.run(creation.SCOPE, creation.write_intent, drawn, apps.TESTER)
    return drawn.operation


async def _settled(app: App, operation: Operation) -> Operation:
    while tasks := list(app._tasks):
        await asyncio.wait(tasks)
    return await stored(app, operation)


# --- where a new space is made ----------------------------------------------------------------------------------------


async def test_a_creation_need_not_read_where_its_space_is_to_be(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    get = placements.get

    async def noted(tx: Transaction, org_id: str) -> Placement:
        asked.append(org_id)
        return await get(tx, org_id)

    monkeypatch.setattr(placements, "get", noted)
    for plan in ("free", "enterprise"):
        await apps.created(app, f"Acme {plan}", plan)
    assert asked == []
    await apps.assert_clean(app)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_creation_that_an_older_version_began_is_completed(app: App, plan: str) -> None:
    """Its operation does not say where the space is to be."""
    operation = await _intent(app, plan)
    older = replace(operation, payload={"actor": operation.payload["actor"]})
    await app.storage.run(apps.SCOPE, lambda tx: tx.replace(tables.operations, older))
    assert (await operations.drive(app, await stored(app, operation))).state is OperationState.SUCCEEDED
    await apps.assert_clean(app)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
@pytest.mark.parametrize("end", ["undone", "renamed", "purged"])
async def test_who_was_silent_for_too_long_makes_no_space_where_it_was_to_be(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch, plan: str, end: str
) -> None:
    """Another process went on meanwhile: there is no organization any more, or its space is elsewhere."""
    operation = await _intent(app, plan)
    clock.pass_(LEASE)
    with monkeypatch.context() as patch:
        failing(app, patch, "create_space", *([SpaceMismatch()] if end == "undone" else []))
        assert await resuming.resume_due(apps.second_process(app)) == 1
    if end == "renamed":
        await renaming.rename(app, operation.org_id, NewName(name="Labs"), apps.TESTER)
    elif end == "purged":
        await apps.purged(app, operation.org_id)
    before = await app.storage.spaces()
    with pytest.raises(OrgsteadError):
        await operations.drive(app, operation)
    assert await app.storage.spaces() == before
    await apps.assert_clean(app)


# --- the effect of no step comes before its row -----------------------------------------------------------------------


async def test_the_row_is_there_before_the_first_effect(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for verb in ("create_space", "close_space", "rename_space", "open_space", "drop_space"):
        works: Callable[..., Awaitable[Any]] = getattr(app.storage, verb)

        async def noted(
            *args: Any, verb: str = verb, works: Callable[..., Awaitable[Any]] = works, **kwargs: Any
        ) -> Any:
            (operation,) = await apps.running(app)
            seen.append(f"{operation.kind}: {verb}")
            return await works(*args, **kwargs)

        monkeypatch.setattr(app.storage, verb, noted)
    org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
    await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
    await apps.purged(app, org_id)
    assert list(dict.fromkeys(seen)) == [
        "organization.create: create_space",
        "organization.rename: close_space",
        "organization.rename: rename_space",
        "organization.rename: open_space",
        "organization.purge: close_space",
        "organization.purge: drop_space",
    ]


# --- side by side -----------------------------------------------------------------------------------------------------


async def test_a_batch_is_done_together_and_says_what_failed(app: App) -> None:
    left = Space("org_gone", PlacementKind.DEDICATED, "org_acme-3", 1)
    await app.storage.create_space(left)
    drawn = []
    for number in range(5):
        new = creation.NewOrganization(name=f"Acme {number}", plan="enterprise")
        drawn.append(creation.draft(app, new, apps.TESTER))
        await app.storage.run(creation.SCOPE, creation.write_intent, drawn[-1], apps.TESTER)
    errors = await operations.drive_together(app, [d.operation for d in drawn])
    assert {key: type(error) for key, error in errors.items()} == {drawn[3].operation.id: SpaceMismatch}
    states = Counter(o.state for o in await apps.rows(app, tables.operations))
    assert states == {OperationState.SUCCEEDED: 4, OperationState.FAILED: 1}
    assert await operations.drive_together(app, []) == {}
    await app.storage.drop_space(left)


# --- tidying ----------------------------------------------------------------------------------------------------------


async def test_old_operations_are_forgotten_in_batches_and_new_ones_kept(app: App, clock: apps.Clock) -> None:
    for number in range(5):
        await apps.created(app, f"Old {number}")
    clock.pass_(timedelta(days=1))
    await apps.created(app, "Young")
    before = clock() - timedelta(hours=1)
    assert [await app.storage.run(apps.SCOPE, resuming.forget_old, before, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert len(await apps.rows(app, tables.operations)) == 1


async def test_what_an_organization_waits_for_is_not_forgotten(
    damaged: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it keep others from being forgotten."""
    app = damaged
    org_id = (await apps.created(app, "Acme", "enterprise")).organization.id
    failing(app, monkeypatch, "rename_space", SpaceMismatch())
    with pytest.raises(SpaceMismatch):
        await renaming.rename(app, org_id, NewName(name="Labs"), apps.TESTER)
    failing(app, monkeypatch, "create_space", SpaceMismatch())
    with pytest.raises(SpaceMismatch):
        await apps.created(app, "Undone")
    assert await app.storage.run(apps.SCOPE, resuming.forget_old, clock() + timedelta(days=1), 1) == 1
    assert await app.storage.run(apps.SCOPE, resuming.forget_old, clock() + timedelta(days=1), 1) == 1
    assert await app.storage.run(apps.SCOPE, resuming.forget_old, clock() + timedelta(days=1), 1) == 0
    (kept,) = await apps.rows(app, tables.operations)
    assert kept.kind == renaming.RENAME


# --- purging ----------------------------------------------------------------------------------------------------------


async def _closed(app: App, name: str, grace: timedelta, plan: str = "free") -> str:
    org_id = (await apps.created(app, name, plan)).organization.id
    await app.storage.run(apps.SCOPE, organizations.close, org_id, grace, actor=apps.TESTER, at=app.clock())
    return org_id


async def test_what_is_due_is_purged_and_one_that_fails_stops_none(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = [await _closed(app, f"Due {number}", timedelta(days=1)) for number in range(4)]
    later = await _closed(app, "Later", timedelta(days=9))
    assert await purging.purge_due(app) == 0
    clock.pass_(timedelta(days=2))
    failing(app, monkeypatch, "drop_space", SpaceMismatch(), StorageFull())
    assert await purging.purge_due(app) == 2
    assert await purging.purge_due(app) == 0
    clock.pass_(LEASE)
    await resuming.resume_due(app)
    (given_up,) = await apps.findings(app, repair=True)
    assert given_up.repaired
    assert [o.id for o in await apps.rows(app, tables.organizations)] == [later]
    assert {receipt.org_id for receipt in await apps.rows(app, tables.purge_receipts)} == set(due)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
@pytest.mark.parametrize("point", ["delete.mid_purge", "delete.after_drop", None])
async def test_a_receipt_counts_right_even_when_the_purge_was_interrupted(
    app: App, plan: str, point: str | None
) -> None:
    where = (await apps.created(app, "Acme", plan)).placement
    for number in range(7):
        await apps.write(app, where, f"record {number}")
    at = app.clock()
    (owner,) = await apps.rows(app, tables.memberships)
    new = NewApiKey(name="export", role=Role.VIEWER, expires_at=None, user_id=owner.user_id)
    await app.storage.run(apps.SCOPE, api_keys.create, app.settings, where.org_id, new, apps.TESTER, at)
    await app.storage.run(apps.SCOPE, organizations.close, where.org_id, timedelta(), actor=apps.TESTER, at=at)
    if point:
        with arm(point, die), pytest.raises(FailpointReached):
            await purging.purge(app, where.org_id, apps.TESTER)
        await apps.recover(app)
    else:
        await purging.purge(app, where.org_id, apps.TESTER)
    receipt = await app.storage.read(apps.SCOPE, purging.receipt, where.org_id)
    assert receipt.removed == {
        "records": 7,
        "collections": 0,
        "index_entries": 0,
        "record_events": 0,
        "space_responses": 0,
        "slots": 1,
        "memberships": 1,
        "sessions": 0,
        "api_keys": 1,
        "events": 3,
        "audit_entries": 3,
        "idempotent_responses": 0,
        "operations": 1,
    }
    assert receipt.audit_seq == 3
    with pytest.raises(NotFound):
        await app.storage.read(apps.SCOPE, organizations.get, where.org_id)


# --- the worker -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [KeyError("a fault of ours"), Unavailable()])
async def test_no_failure_ends_the_worker(app: App, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    stop, runs = asyncio.Event(), []

    async def job(_: App) -> int:
        runs.append(1)
        if len(runs) == 3:
            stop.set()
            return 0
        raise fault

    monkeypatch.setattr(worker, "JOBS", (("fails", job, 0.001),))
    await asyncio.wait_for(worker.run(app, stop), 5)
    assert len(runs) == 3


async def test_the_worker_does_not_wait_while_there_is_work(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, left = asyncio.Event(), [1, 1, 1, 0]

    async def job(_: App) -> int:
        found = left.pop(0)
        if not left:
            stop.set()
        return found

    monkeypatch.setattr(worker, "JOBS", (("works", job, 3600.0),))
    await asyncio.wait_for(worker.run(app, stop), 5)
    assert left == []


def test_a_kind_is_registered_under_its_name() -> None:
    async def nothing(app: App, operation: Operation) -> Mapping[str, Any]:
        return {}

    kind = Kind("test.nothing", (Step("only", nothing),))
    operations.register(kind)
    assert operations.KINDS.pop("test.nothing") is kind
