"""Organizations from creation to purge, in both placements, on every engine; each test ends with ``fsck``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orgstead import audit, creation, members, organizations, purging, renaming, resuming, slugs
from orgstead.app import App
from orgstead.audit import SYSTEM, Actor
from orgstead.creation import NewOrganization
from orgstead.errors import (
    BudgetExhausted,
    ConfirmationRequired,
    InvalidInput,
    InvalidName,
    LastOwner,
    MoveUnavailable,
    NameReserved,
    NameTaken,
    NotFound,
    OperationInProgress,
    OrgsteadError,
    PlacementMoved,
    PreconditionFailed,
    StatusConflict,
    StorageFull,
    UnknownPlan,
    UserExists,
)
from orgstead.failpoints import arm
from orgstead.model import OperationState, OrganizationStatus, PlacementKind, PlacementState, Role, SlugState
from orgstead.organizations import OPERATOR, OWNER, Located
from orgstead.storage import tables
from orgstead.storage.port import Space
from tests import apps

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("plan", ["free", "enterprise"])
GRACE = timedelta(days=30)
ME = Actor("usr_me", "req_12345678", "192.0.2.1")


async def change(app: App, work: Any, *args: Any, **kwargs: Any) -> Any:
    """One transaction of a use case that takes an actor and the time."""
    return await app.storage.run(apps.SCOPE, work, *args, actor=ME, at=app.clock(), **kwargs)


async def now(app: App, org_id: str) -> Located:
    return await app.storage.read(apps.SCOPE, organizations.get, org_id)


async def trail(app: App, org_id: str) -> tuple[list[str], list[str]]:
    """The actions in the organization's audit log, and the types of its events, in their order."""
    entries = sorted(await apps.rows(app, tables.audit_entries, org_id=org_id), key=lambda entry: entry.seq)
    events = sorted(await apps.rows(app, tables.events, org_id=org_id), key=lambda event: event.id)
    assert await app.storage.read(apps.SCOPE, audit.first_broken, org_id) is None
    return [entry.action for entry in entries], sorted(event.type for event in events)


async def refused(error: type[OrgsteadError], work: Awaitable[Any]) -> None:
    with pytest.raises(error) as raised:
        await work
    assert type(raised.value) is error


# --- creating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("external_id", ["", "x" * 256, "a\x01", "a\nb"])
async def test_an_external_id_is_printable_and_not_empty(app: App, external_id: str) -> None:
    await refused(InvalidInput, apps.created(app, "Acme", external_id=external_id))
    assert await apps.rows(app, tables.slugs) == []


async def test_a_pooled_organization_shares_its_tables(app: App) -> None:
    made = await apps.created(app, "Acme Labs", "pro")
    assert (made.organization.slug, made.organization.status) == ("acme-labs", OrganizationStatus.ACTIVE)
    assert (made.placement.kind, made.placement.space) == (PlacementKind.POOLED, None)
    assert await apps.space_names(app) == set()
    await apps.write(app, made.placement, "first")


async def test_a_dedicated_organization_has_tables_of_its_own_named_after_it(app: App) -> None:
    made = await apps.created(app, "Acme Labs", "enterprise")
    assert (made.placement.kind, made.placement.space) == (PlacementKind.DEDICATED, "org_acme-labs")
    assert await apps.space_names(app) == {"org_acme-labs"}
    await apps.write(app, made.placement, "first")
    (cell,) = await apps.rows(app, tables.cells)
    assert cell.dedicated == 1


@BOTH
async def test_a_creation_leaves_an_owner_an_operation_an_entry_and_an_event(app: App, plan: str) -> None:
    made = await apps.created(app, "Acme", plan)
    (membership,) = await apps.rows(app, tables.memberships)
    assert (membership.org_id, membership.role) == (made.organization.id, Role.OWNER)
    (operation,) = await apps.rows(app, tables.operations)
    assert (operation.kind, operation.state, operation.progress) == (creation.CREATE, OperationState.SUCCEEDED, 1.0)
    assert made.organization.operation_id is None
    assert await trail(app, made.organization.id) == (["organization.created"], ["organization.created"])


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": ""}, InvalidName),
        ({"name": "api"}, NameReserved),
        ({"name": "Acme", "plan": "gold"}, UnknownPlan),
        ({"name": "Acme", "metadata": {"a": "x" * organizations.MAX_METADATA_BYTES}}, InvalidInput),
    ],
)
async def test_what_cannot_be_created_leaves_nothing(
    app: App, fields: dict[str, Any], error: type[OrgsteadError]
) -> None:
    await refused(error, creation.create(app, NewOrganization(**{"plan": "free", **fields}), ME))
    for table in (tables.organizations, tables.slugs, tables.users, tables.operations, tables.audit_entries):
        assert await apps.rows(app, table) == []


@BOTH
async def test_one_of_many_creates_of_one_name_wins_and_the_others_leave_nothing(app: App, plan: str) -> None:
    outcomes = await asyncio.gather(*(apps.created(app, "Acme", plan) for _ in range(20)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Located"] + ["NameTaken"] * 19
    for table in (tables.organizations, tables.users, tables.memberships, tables.placements):
        assert len(await apps.rows(app, table)) == 1


async def test_of_two_sign_ups_with_one_new_address_one_is_refused(app: App) -> None:
    first, second = apps.person(app), apps.person(app)
    second = replace(second, email_key=first.email_key)
    outcomes = await asyncio.gather(
        *(
            creation.create(app, NewOrganization(name=name, plan="free", owner=owner, owner_is_new=True), ME)
            for name, owner in (("Acme", first), ("Nova", second))
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Located", UserExists.__name__]
    assert len(await apps.rows(app, tables.organizations)) == 1


async def test_a_space_that_cannot_be_made_undoes_the_creation(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(space: Space, *, slots: int = 1) -> None:
        raise UnknownPlan("not to be mended by waiting")

    monkeypatch.setattr(app.storage, "create_space", broken)
    await refused(UnknownPlan, apps.created(app, "Acme", "enterprise"))
    monkeypatch.undo()
    assert await apps.rows(app, tables.organizations) == []
    assert (await apps.created(app, "Acme", "enterprise")).placement.space == "org_acme"


async def test_a_database_that_is_full_for_a_moment_delays_a_creation(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(space: Space, *, slots: int = 1) -> None:
        raise StorageFull

    monkeypatch.setattr(app.storage, "create_space", full)
    await refused(StorageFull, apps.created(app, "Acme", "enterprise"))
    monkeypatch.undo()
    (organization,) = await apps.rows(app, tables.organizations)
    assert organization.status is OrganizationStatus.PROVISIONING
    await apps.recover(app)
    assert (await now(app, organization.id)).organization.status is OrganizationStatus.ACTIVE


async def test_dedicated_spaces_are_made_within_the_budget_only(database: Any) -> None:
    async with apps.opened(database, placement={"max_dedicated": 2, "warn_dedicated": 1}) as app:
        outcomes = await asyncio.gather(
            *(apps.created(app, f"Acme {n}", "enterprise") for n in range(5)), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["BudgetExhausted"] * 3 + ["Located"] * 2
        first = next(outcome for outcome in outcomes if isinstance(outcome, Located))
        await change(app, organizations.close, first.organization.id, GRACE)
        await purging.purge(app, first.organization.id, ME)
        assert (await apps.created(app, "Acme 9", "enterprise")).placement.space == "org_acme-9"
        with pytest.raises(BudgetExhausted):
            await apps.created(app, "Acme 10", "enterprise")


# --- updating -------------------------------------------------------------------------------------------------------


async def test_an_update_changes_the_name_and_merges_the_metadata(app: App) -> None:
    org_id = (await apps.created(app, "Acme", metadata={"a": {"b": 1, "c": 2}, "d": [1]})).organization.id
    changed = await change(app, organizations.update, org_id, name=" Acme  Ltd ", metadata={"a": {"b": None}, "d": {}})
    assert (changed.name, changed.slug, changed.metadata) == ("Acme Ltd", "acme", {"a": {"c": 2}, "d": {}})
    same = await change(app, organizations.update, org_id, name="Acme Ltd")
    assert same == changed
    assert (await trail(app, org_id))[0] == ["organization.created", "organization.updated"]


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # RFC 7396, appendix A, as far as both are objects.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_as_its_standard_says(target: Any, patch: Any, result: Any) -> None:
    before = repr(target)
    assert organizations.merged(target, patch) == result
    assert repr(target) == before


@pytest.mark.parametrize("values", [(1, True), (0, False), (1, 1.0), (0.0, -0.0), ([1], [True])])
async def test_values_that_only_python_holds_to_be_equal_are_a_change(app: App, values: tuple[Any, Any]) -> None:
    before, after = values
    org_id = (await apps.created(app, "Acme", metadata={"a": before})).organization.id
    await change(app, organizations.update, org_id, metadata={"a": after})
    stored = (await app.storage.read(apps.SCOPE, organizations.get, org_id)).organization
    assert repr(stored.metadata) == repr({"a": after})


async def test_a_change_of_another_version_is_refused(app: App) -> None:
    made = (await apps.created(app, "Acme")).organization
    changed = await change(app, organizations.update, made.id, name="Acme 2", if_version=made.version)
    for work, arguments in (
        (organizations.update, {"name": "Acme 3"}),
        (organizations.suspend, {"by": OWNER}),
        (organizations.close, {"grace": GRACE}),
    ):
        await refused(PreconditionFailed, change(app, work, made.id, if_version=made.version, **arguments))
    assert (await now(app, made.id)).organization == changed


async def test_a_plan_changes_unless_the_data_had_to_move(app: App) -> None:
    org_id = (await apps.created(app, "Acme", "free")).organization.id
    changed = await change(app, organizations.change_plan, org_id, "pro", app.settings)
    assert changed.plan == "pro"
    await refused(MoveUnavailable, change(app, organizations.change_plan, org_id, "enterprise", app.settings))
    await refused(UnknownPlan, change(app, organizations.change_plan, org_id, "gold", app.settings))
    assert (await now(app, org_id)).organization.plan == "pro"


# --- renaming -------------------------------------------------------------------------------------------------------


@BOTH
async def test_a_rename_keeps_the_data_and_the_old_slug_as_a_redirect(app: App, plan: str) -> None:
    made = await apps.created(app, "Acme", plan)
    await apps.write(app, made.placement, "before")
    located, operation = await renaming.rename(app, made.organization.id, renaming.NewName(name="Nova"), ME)
    assert operation is None
    assert (located.organization.name, located.organization.slug) == ("Nova", "nova")
    assert located.organization.operation_id is None
    assert located.placement.state is PlacementState.STABLE
    assert await apps.space_names(app) == ({"org_nova"} if plan == "enterprise" else set())
    await apps.write(app, located.placement, "after")
    assert set(await apps.records(app, located.placement)) == {"before", "after"}
    for slug in ("acme", "nova"):
        assert await app.storage.read(apps.SCOPE, organizations.resolve, slug) == made.organization.id
    assert await trail(app, made.organization.id) == (
        ["organization.created", "organization.renamed"],
        ["organization.created", "organization.renamed"],
    )


async def test_a_writer_with_the_old_placement_writes_nothing_after_a_rename(app: App) -> None:
    made = await apps.created(app, "Acme", "enterprise")
    located, _ = await renaming.rename(app, made.organization.id, renaming.NewName(name="Nova"), ME)
    await refused(PlacementMoved, apps.write(app, made.placement, "late"))
    assert await apps.records(app, located.placement) == {}
    assert await apps.space_names(app) == {"org_nova"}


async def test_a_writer_from_before_a_rename_there_and_back_writes_nothing(app: App) -> None:
    """The name is the same again, so that only the epoch tells the old place from the new one."""
    made = await apps.created(app, "Acme", "enterprise")
    for name in ("Nova", "Acme"):
        located, _ = await renaming.rename(app, made.organization.id, renaming.NewName(name=name), ME)
    assert located.placement.space == made.placement.space
    await refused(PlacementMoved, apps.write(app, made.placement, "late"))
    assert await apps.records(app, located.placement) == {}


@BOTH
async def test_a_rename_there_and_back_takes_the_own_redirect(app: App, plan: str) -> None:
    org_id = (await apps.created(app, "Acme", plan)).organization.id
    for name in ("Nova", "Acme", "Nova", "NOVA"):
        located, _ = await renaming.rename(app, org_id, renaming.NewName(name=name), ME)
        assert (located.organization.name, located.organization.slug) == (name, name.lower())
    claims = {claim.slug: claim.state for claim in await apps.rows(app, tables.slugs)}
    assert claims == {"acme": SlugState.REDIRECT, "nova": SlugState.CURRENT}


async def test_a_taken_name_a_redirect_of_another_and_a_reserved_name_are_refused(app: App) -> None:
    acme = (await apps.created(app, "Acme", "enterprise")).organization
    other = (await apps.created(app, "Other", "enterprise")).organization
    await renaming.rename(app, other.id, renaming.NewName(name="Third"), ME)
    before = await now(app, acme.id)
    for name, error in (("THIRD", NameTaken), ("Other", NameTaken), ("api", NameReserved), ("\u200b", InvalidName)):
        await refused(error, renaming.rename(app, acme.id, renaming.NewName(name=name), ME))
    assert await now(app, acme.id) == before
    assert await apps.space_names(app) == {"org_acme", "org_third"}


async def test_redirects_beyond_their_number_are_quarantined(app: App) -> None:
    org_id = (await apps.created(app, "Acme")).organization.id
    for number in range(slugs.MAX_REDIRECTS + 2):
        await renaming.rename(app, org_id, renaming.NewName(name=f"Acme {number}"), ME)
    states = [claim.state for claim in await apps.rows(app, tables.slugs)]
    assert states.count(SlugState.REDIRECT) == slugs.MAX_REDIRECTS
    assert states.count(SlugState.QUARANTINED) == 2
    assert states.count(SlugState.CURRENT) == 1


async def test_nothing_else_happens_to_an_organization_while_it_is_renamed(app: App) -> None:
    made = (await apps.created(app, "Acme", "enterprise")).organization
    met: list[type[BaseException]] = []

    async def meddle() -> None:
        for work in (
            change(app, organizations.update, made.id, name="Acme 2"),
            change(app, organizations.suspend, made.id, OWNER),
            change(app, organizations.close, made.id, GRACE),
            renaming.rename(app, made.id, renaming.NewName(name="Third"), ME),
        ):
            try:
                await work
            except OrgsteadError as error:
                met.append(type(error))

    with arm("rename.after_close", meddle):
        located, _ = await renaming.rename(app, made.id, renaming.NewName(name="Nova"), ME)
    assert met == [OperationInProgress] * 4
    assert (located.organization.name, located.placement.space) == ("Nova", "org_nova")


async def test_a_name_is_created_or_renamed_to_but_not_both(app: App) -> None:
    for number in range(10):
        made = await apps.created(app, f"Acme {number}", "enterprise")
        outcomes = await asyncio.gather(
            renaming.rename(app, made.organization.id, renaming.NewName(name=f"Wanted {number}"), ME),
            apps.created(app, f"Wanted {number}", "enterprise"),
            return_exceptions=True,
        )
        assert [type(o).__name__ for o in outcomes].count("NameTaken") == 1, outcomes


# --- suspending, closing, restoring -----------------------------------------------------------------------------------


@BOTH
async def test_from_suspended_and_closed_back_to_active(app: App, plan: str) -> None:
    made = await apps.created(app, "Acme", plan)
    org_id = made.organization.id
    await apps.write(app, made.placement, "kept")
    await change(app, organizations.suspend, org_id, OWNER)
    closed = await change(app, organizations.close, org_id, GRACE)
    assert closed.status is OrganizationStatus.CLOSED
    assert closed.purge_at == closed.closed_at + GRACE
    restored = await change(app, organizations.restore, org_id)
    assert (restored.status, restored.closed_at, restored.purge_at) == (OrganizationStatus.SUSPENDED, None, None)
    active = await change(app, organizations.reactivate, org_id, OWNER)
    assert (active.status, active.suspended_by) == (OrganizationStatus.ACTIVE, None)
    assert set(await apps.records(app, made.placement)) == {"kept"}
    assert (await trail(app, org_id))[0][1:] == [
        "organization.suspended",
        "organization.closed",
        "organization.restored",
        "organization.reactivated",
    ]


async def test_what_the_operator_suspended_only_the_operator_reactivates(app: App) -> None:
    org_id = (await apps.created(app, "Acme")).organization.id
    await change(app, organizations.suspend, org_id, OPERATOR)
    await refused(StatusConflict, change(app, organizations.reactivate, org_id, OWNER))
    assert (await change(app, organizations.reactivate, org_id, OPERATOR)).status is OrganizationStatus.ACTIVE


async def test_a_step_that_the_lifecycle_does_not_know_is_refused(app: App) -> None:
    org_id = (await apps.created(app, "Acme")).organization.id
    await refused(StatusConflict, change(app, organizations.reactivate, org_id, OWNER))
    await refused(StatusConflict, change(app, organizations.restore, org_id))
    await refused(StatusConflict, purging.purge(app, org_id, ME))
    await change(app, organizations.close, org_id, GRACE)
    await refused(StatusConflict, change(app, organizations.close, org_id, GRACE))
    await refused(StatusConflict, change(app, organizations.update, org_id, name="Nova"))
    await refused(StatusConflict, renaming.rename(app, org_id, renaming.NewName(name="Nova"), ME))


# --- purging --------------------------------------------------------------------------------------------------------


@BOTH
async def test_a_purge_removes_everything_but_a_receipt(app: App, plan: str) -> None:
    made, other = await apps.created(app, "Acme", plan), await apps.created(app, "Other", plan)
    for located in (made, other):
        for number in range(5):
            await apps.write(app, located.placement, f"record-{number}")
    org_id = made.organization.id
    await change(app, organizations.close, org_id, GRACE)
    operation = await purging.purge(app, org_id, ME)
    assert operation.state is OperationState.SUCCEEDED
    for table in (tables.organizations, tables.memberships, tables.placements, tables.events, tables.audit_entries):
        scope = table.scope or "org_id"
        assert [row for row in await apps.rows(app, table) if getattr(row, scope) == org_id] == []
    receipt = await app.storage.read(apps.SCOPE, purging.receipt, org_id)
    assert receipt.removed["records"] == 5
    assert receipt.removed["memberships"] == 1
    assert receipt.actor == ME.id
    assert receipt.closed_at is not None
    assert receipt.purged_at >= receipt.closed_at
    assert len(await apps.records(app, other.placement)) == 5
    assert await apps.space_names(app) == ({"org_other"} if plan == "enterprise" else set())


async def test_purges_are_due_when_the_grace_has_ended(app: App, clock: apps.Clock) -> None:
    org_id = (await apps.created(app, "Acme")).organization.id
    await change(app, organizations.close, org_id, GRACE)
    clock.pass_(GRACE - timedelta(seconds=5))
    assert await purging.purge_due(app) == 0
    clock.pass_(timedelta(seconds=5))
    assert await purging.purge_due(app) == 1
    with pytest.raises(NotFound):
        await now(app, org_id)


async def test_an_organization_that_cannot_be_purged_keeps_no_other_from_it(
    app: App, clock: apps.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = [(await apps.created(app, name)).organization.id for name in ("Acme", "Nova")]
    for org_id in (stuck, other):
        await change(app, organizations.close, org_id, timedelta(0))
    drop = app.storage.drop_space

    async def full(space: Space, *, batch: int = 1000) -> dict[str, int] | None:
        if space.org_id == stuck:
            raise StorageFull
        return await drop(space, batch=batch)

    monkeypatch.setattr(app.storage, "drop_space", full)
    await purging.purge_due(app)
    monkeypatch.undo()
    assert [row.id for row in await apps.rows(app, tables.organizations)] == [stuck]
    await apps.recover(app)
    assert await apps.rows(app, tables.organizations) == []


async def test_a_released_name_is_quarantined_for_everyone_but_its_owner(app: App, clock: apps.Clock) -> None:
    made = await apps.created(app, "Acme")
    (owner,) = await apps.rows(app, tables.users)
    await change(app, organizations.close, made.organization.id, GRACE)
    await purging.purge(app, made.organization.id, ME)
    await refused(NameTaken, apps.created(app, "Acme"))
    again = await creation.create(app, NewOrganization(name="Acme", plan="free", owner=owner), ME)
    await change(app, organizations.close, again.organization.id, GRACE)
    await purging.purge(app, again.organization.id, ME)
    clock.pass_(timedelta(days=app.settings.name_quarantine_days, seconds=1))
    assert (await apps.created(app, "Acme")).organization.slug == "acme"


async def test_a_purge_is_confirmed_with_the_slug(app: App) -> None:
    made = (await apps.created(app, "Acme Labs")).organization
    for text in (None, "", "Acme Labs", "acme"):
        with pytest.raises(ConfirmationRequired):
            purging.confirm(made, text)
    purging.confirm(made, "acme-labs")


# --- members and operations -----------------------------------------------------------------------------------------


async def test_of_two_owners_who_remove_each_other_one_stays(app: App) -> None:
    for number in range(10):
        made = await apps.created(app, f"Acme {number}")
        org_id = made.organization.id
        second = apps.person(app)
        await members_added(app, org_id, second)
        (first, other) = await apps.rows(app, tables.memberships, org_id=org_id)
        outcomes = await asyncio.gather(
            *(
                app.storage.run(apps.SCOPE, members.remove, org_id, member.user_id, ME, app.clock())
                for member in (first, other)
            ),
            return_exceptions=True,
        )
        assert [type(o) for o in outcomes].count(LastOwner) == 1
        assert len(await apps.rows(app, tables.memberships, org_id=org_id)) == 1


async def members_added(app: App, org_id: str, user: Any) -> None:
    async def work(tx: Any) -> None:
        await tx.add(tables.users, user)
        await members.add(tx, app.settings, org_id, user.id, Role.OWNER, SYSTEM, app.clock())

    await app.storage.run(apps.SCOPE, work)


async def test_the_list_of_a_person_goes_on_past_what_is_hidden(app: App) -> None:
    owner = apps.person(app)
    wanted = []
    for number in range(5):
        new = NewOrganization(name=f"Acme {number}", plan="free", owner=owner, owner_is_new=number == 0)
        wanted.append((await creation.create(app, new, ME)).organization.id)
    hidden = wanted.pop(1)

    async def hide(tx: Any) -> None:
        row = await tx.get(tables.organizations, hidden)
        await tx.replace(tables.organizations, replace(row, status=OrganizationStatus.PURGING))

    async def show(tx: Any) -> None:
        row = await tx.get(tables.organizations, hidden)
        await tx.replace(tables.organizations, replace(row, status=OrganizationStatus.ACTIVE))

    await app.storage.run(apps.SCOPE, hide)
    found, after = [], None
    while True:
        page, after = await app.storage.read(apps.SCOPE, organizations.of_user, owner.id, after=after, limit=1)
        found += [located.organization.id for located in page]
        if after is None:
            break
    await app.storage.run(apps.SCOPE, show)
    assert found == sorted(wanted)


async def test_an_operation_that_a_process_left_is_finished_by_another(app: App) -> None:
    made = (await apps.created(app, "Acme", "enterprise")).organization

    async def die() -> None:
        raise asyncio.CancelledError

    with arm("rename.after_rename", die), pytest.raises(asyncio.CancelledError):
        await renaming.rename(app, made.id, renaming.NewName(name="Nova"), ME)
    assert len(await apps.running(app)) == 1
    other = apps.second_process(app)
    assert await resuming.resume_due(other) == 0, "the lease still runs"
    await apps.recover(other)
    located = await now(app, made.id)
    assert (located.organization.slug, located.placement.space) == ("nova", "org_nova")
