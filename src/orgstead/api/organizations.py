"""/v1/organizations: creating, reading, changing and ending organizations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from orgstead import creation, organizations, purging, renaming
from orgstead.api import idempotent, lists, schemas, views
from orgstead.api.caller import (
    Caller,
    CanChangePlan,
    CanDeleteOrganization,
    CanManageOrganization,
    CanReactivateOrganization,
    CanReadOrganization,
    CanRenameOrganization,
    CanRestoreOrganization,
    CanSuspendOrganization,
    CanUseOwnAccount,
    app_of,
)
from orgstead.api.documented import UNCHANGED, WITH_BODY, later, problems
from orgstead.api.faults import pointed, said_once
from orgstead.api.guarded import GuardedRoute
from orgstead.api.signup import MayCreateOrganization, create_with_account, refuse_early, status_of
from orgstead.creation import NewOrganization
from orgstead.errors import ConfirmationRequired, InvalidInput, Problem, UnknownPlan
from orgstead.idempotency import Answer
from orgstead.model import IdempotentResponse, Operation, OperationState, Organization
from orgstead.organizations import OWNER, Located
from orgstead.storage.port import SystemScope, Transaction

router = APIRouter(tags=["Organizations"], route_class=GuardedRoute)

OWN = "/v1/organizations/{organization_id}"
LIST = SystemScope("list own organizations")
READ_CREATED = SystemScope("read created organization")


# --- reading --------------------------------------------------------------------------------------------------------


@router.get(
    OWN,
    operation_id="organizations_get",
    summary="Read an organization",
    response_model=schemas.Organization,
    responses={**UNCHANGED, **problems(401, 404, 423)},
)
async def get(caller: CanReadOrganization) -> Response:
    """One organization: the caller's own."""
    return views.read_organization(caller)


@router.get(
    "/v1/organizations",
    operation_id="organizations_list",
    summary="List your organizations",
    response_model=schemas.OrganizationList,
    responses=problems(401, 422, 423),
    dependencies=[Depends(said_once)],
)
async def page(caller: CanUseOwnAccount, query: Annotated[lists.Page, Query()]) -> Response:
    """The organizations that the caller is a member of, oldest first, or newest first with ``order=-created_at``."""
    user_id, app = caller.principal.user_id, caller.app
    binding = ("organizations_list", user_id, query.order)
    after = lists.after(app, query.cursor, binding)
    found, following = await app.storage.read(
        LIST,
        organizations.of_user,
        user_id,
        after=str(after[0]) if after else None,
        limit=query.limit,
        newest_first=query.order == lists.NEWEST_FIRST,
    )
    data = [views.organization(located.organization, located.placement) for located in found]
    return lists.shown(app, data, [following] if following else None, binding)


# --- creating -------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/organizations",
    operation_id="organizations_create",
    summary="Create an organization",
    status_code=201,
    response_model=schemas.Organization,
    responses={**later(schemas.Organization), **problems(401, 403, 409, 423, 429, *WITH_BODY)},
)
async def create(request: Request, body: schemas.OrganizationCreate, caller: MayCreateOrganization) -> Response:
    """Create an organization. With an access token the caller becomes its owner; without, ``owner`` does."""
    app = app_of(request)
    if caller is None and body.owner is None:
        raise InvalidInput(problems=[Problem("/owner", "owner.missing", "Name the owner, or send an access token.")])
    if caller is not None and body.owner is not None:
        raise InvalidInput(problems=[Problem("/owner", "owner.given", "The caller becomes the owner; leave it out.")])
    new = NewOrganization(
        name=body.name, slug=body.slug, plan=body.plan or app.settings.default_plan, metadata=body.metadata or {}
    )
    refuse_early(app, new, name_at="/name")

    async def work(remember: IdempotentResponse | None) -> Answer:
        if body.owner is not None:
            given = body.owner.email, body.owner.password
            located, _ = await create_with_account(request, new, *given, below="/owner", remember=remember)
        else:
            assert caller is not None
            owned = replace(new, owner=await caller.account())
            located = await creation.create(app, owned, caller.actor, remember=remember)
        return created(located)

    async def again(org_id: str) -> Answer:
        return created(await app.storage.read(READ_CREATED, organizations.get, org_id))

    return await idempotent.journalled(request, idempotent.who(caller), work, again)


def created(located: Located) -> Answer:
    return views.answer(located, status_of(located), location=True)


# --- changing -------------------------------------------------------------------------------------------------------


@router.patch(
    OWN,
    operation_id="organizations_update",
    summary="Update name or metadata",
    response_model=schemas.Organization,
    responses=problems(401, 403, 404, 409, 412, 423, *WITH_BODY),
)
async def update(body: schemas.OrganizationUpdate, caller: CanManageOrganization) -> Response:
    """Change the display name (the slug stays, so links keep working) and merge into the metadata."""
    located = await caller.run(
        _updated,
        caller.org_id,
        body,
        caller=caller,
        if_version=caller.if_match,
    )
    return views.shown(located.organization, located.placement)


async def _updated(
    tx: Transaction, org_id: str, body: schemas.OrganizationUpdate, *, caller: Caller, if_version: int | None
) -> Located:
    changed = await organizations.update(
        tx,
        org_id,
        name=body.name,
        metadata=body.metadata,
        actor=caller.actor,
        at=caller.app.clock(),
        if_version=if_version,
    )
    return Located(changed, caller.principal.placement)


@router.post(
    OWN + "/rename",
    operation_id="organizations_rename",
    summary="Rename an organization",
    response_model=schemas.Organization,
    responses={
        202: {"model": schemas.Operation, "description": "It takes longer; follow the operation at `Location`."},
        **problems(401, 403, 404, 409, 412, 423, *WITH_BODY),
    },
)
async def rename(request: Request, body: schemas.Rename, caller: CanRenameOrganization) -> Response:
    """Change name and slug, and with them the name of the organization's own collection. The old slug leads here."""
    new = renaming.NewName(name=body.name, slug=body.slug, if_version=caller.if_match_later)

    async def work(remember: IdempotentResponse | None) -> Answer:
        return renamed(*await renaming.rename(caller.app, caller.org_id, new, caller.actor, remember=remember))

    async def again(org_id: str) -> Answer:
        return views.answer(await caller.read(organizations.get, org_id))

    return await idempotent.journalled(request, idempotent.who(caller), work, again)


def renamed(located: Located, operation: Operation | None) -> Answer:
    """The renamed organization, or the operation where it takes longer than a request may."""
    return views.answer(located) if operation is None else views.running(operation)


@router.post(
    OWN + "/plan",
    operation_id="organizations_change_plan",
    summary="Change the plan",
    response_model=schemas.Organization,
    responses=problems(401, 403, 404, 409, 412, 423, *WITH_BODY),
)
async def change_plan(body: schemas.PlanChange, caller: CanChangePlan) -> Response:
    """Put the organization on another plan, as far as its data can stay where it is."""
    with pointed({UnknownPlan: "/plan"}):
        return await _changed(caller, organizations.change_plan, body.plan, caller.app.settings)


# --- suspending, ending, restoring ------------------------------------------------------------------------------------

_STATUS_PROBLEMS = problems(400, 401, 403, 404, 409, 412, 422, 423)


@router.post(
    OWN + "/suspend",
    operation_id="organizations_suspend",
    summary="Suspend an organization",
    response_model=schemas.Organization,
    responses=_STATUS_PROBLEMS,
)
async def suspend(caller: CanSuspendOrganization) -> Response:
    """Refuse the organization's members from their next request on, until an owner reactivates it.

    Sessions are kept, and can be refreshed, but nobody can log in: an owner who loses their session cannot come back,
    and only the operator of the service can then reactivate the organization.
    """
    return await _changed(caller, organizations.suspend, OWNER)


@router.post(
    OWN + "/reactivate",
    operation_id="organizations_reactivate",
    summary="Reactivate an organization",
    response_model=schemas.Organization,
    responses=_STATUS_PROBLEMS,
)
async def reactivate(caller: CanReactivateOrganization) -> Response:
    """End a suspension. One by the operator of the service an owner cannot end.

    It takes an owner's session from before the suspension, as nobody can log in to a suspended organization; where none
    is left, only the operator can reactivate it.
    """
    return await _changed(caller, organizations.reactivate, OWNER)


@router.post(
    OWN + "/restore",
    operation_id="organizations_restore",
    summary="Restore a deleted organization",
    response_model=schemas.Organization,
    responses=_STATUS_PROBLEMS,
)
async def restore(caller: CanRestoreOrganization) -> Response:
    """Bring a closed organization back as it was, as long as it is not purged. For an owner, who may still log in."""
    return await _changed(caller, organizations.restore)


async def _changed(caller: Caller, change: Callable[..., Awaitable[Organization]], *args: object) -> Response:
    """Make one change of the directory and show the caller's organization as it is then; its place is as it was."""
    placement = caller.principal.placement
    return await idempotent.once(
        caller,
        lambda organization: views.answer(Located(organization, placement)),
        change,
        caller.org_id,
        *args,
        actor=caller.actor,
        at=caller.app.clock(),
        if_version=caller.if_match_later,
    )


class Purge(BaseModel):
    """The query of a deletion."""

    model_config = ConfigDict(extra="forbid")

    purge: Literal["now"] | None = Field(default=None, description="Skip the grace: this cannot be undone.")
    confirm: str | None = Field(default=None, description="With `purge=now`: the organization's slug.")


@router.delete(
    OWN,
    operation_id="organizations_delete",
    summary="Delete an organization",
    response_model=schemas.Deletion,
    responses=problems(401, 403, 404, 409, 412, 422, 423),
    dependencies=[Depends(said_once)],
)
async def delete(caller: CanDeleteOrganization, query: Annotated[Purge, Query()]) -> Response:
    """Close the organization: it can be restored until ``purge_at``, when its data is removed."""
    if query.purge:
        with pointed({ConfirmationRequired: "/confirm"}):
            purging.confirm(caller.principal.organization, query.confirm)
    return await deleted(caller, now=query.purge is not None)


async def deleted(caller: Caller, *, now: bool) -> Response:
    """Close the caller's organization and, if ``now``, purge it; a purge that is not over yet goes on by itself."""
    app, at = caller.app, caller.app.clock()
    grace = timedelta(0) if now else timedelta(days=app.settings.delete_grace_days)
    closed = await caller.run(
        organizations.close, caller.org_id, grace, actor=caller.actor, at=at, if_version=caller.if_match
    )
    status = "closed"
    if now:
        operation = await purging.purge(app, caller.org_id, caller.actor)
        status = "purged" if operation.state is OperationState.SUCCEEDED else "purging"
    return views.deletion(caller.org_id, status, closed.purge_at or at)
