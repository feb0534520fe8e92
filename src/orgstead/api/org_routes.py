"""The five routes of the brief, over the same use cases as /v1: /org/create, get, update, delete and /admin/login."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from orgstead import identity, names, organizations, renaming, slugs
from orgstead.api import idempotent, schemas, views
from orgstead.api.auth import logged_in
from orgstead.api.caller import (
    Caller,
    CanDeleteOrganization,
    CanReadOrganization,
    CanRenameOrganization,
    app_of,
    public,
)
from orgstead.api.documented import UNCHANGED, WITH_BODY, later, problems
from orgstead.api.faults import pointed, said_once
from orgstead.api.guarded import GuardedRoute
from orgstead.api.organizations import READ_CREATED, deleted
from orgstead.api.responses import Json, encoded
from orgstead.api.signup import MaySignUp, create_with_account, refuse_early, status_of
from orgstead.creation import NewOrganization
from orgstead.errors import (
    AlreadyExists,
    InvalidEmail,
    InvalidInput,
    NotFound,
    PasswordUnacceptable,
    Problem,
    UserExists,
)
from orgstead.idempotency import Answer
from orgstead.model import IdempotentResponse, Role, User
from orgstead.organizations import Located
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

router = APIRouter(tags=["Organization service"], route_class=GuardedRoute)

RESOLVE = SystemScope("resolve own slug")

_NAME = "/organization_name"


class Named(BaseModel):
    """The query that names an organization."""

    model_config = ConfigDict(extra="forbid")

    organization_name: str = Field(description="Name or slug of the caller's organization.", examples=["acme-labs"])


class NamedDeletion(Named):
    """The query that names an organization to delete."""

    purge: Literal["now"] | None = Field(default=None, description="Skip the grace: this cannot be undone.")


@router.post(
    "/org/create",
    operation_id="org_create",
    summary="Create an organization and its admin",
    status_code=201,
    response_model=schemas.CreatedOrganization,
    responses={**later(schemas.CreatedOrganization), **problems(401, 403, 409, 429, *WITH_BODY)},
    dependencies=[MaySignUp],
)
async def create(request: Request, body: schemas.OrgCreate) -> Response:
    """Create an organization, its own collection ``org_{name}``, and its first administrator."""
    app = app_of(request)
    new = NewOrganization(name=body.organization_name, plan=body.plan or app.settings.org_route_plan)
    refuse_early(app, new, name_at=_NAME)

    async def work(remember: IdempotentResponse | None) -> Answer:
        return _created(*await create_with_account(request, new, body.email, body.password, remember=remember))

    async def again(org_id: str) -> Answer:
        return _created(*await app.storage.read(READ_CREATED, _with_owner, org_id))

    return await idempotent.journalled(request, idempotent.ANONYMOUS, work, again)


def _created(located: Located, owner: User) -> Answer:
    organization = views.organization(located.organization, located.placement)
    return views.answered({"organization": organization, "admin": views.admin(owner)}, status_of(located))


async def _with_owner(tx: Transaction, org_id: str) -> tuple[Located, User]:
    """The organization with the first of its owners; just created it has one."""
    owners = await tx.page(tables.memberships, {"org_id": org_id, "role": Role.OWNER}, limit=1)
    if not owners:
        raise NotFound
    return await organizations.get(tx, org_id), await tx.get(tables.users, owners[0].user_id)


@router.get(
    "/org/get",
    operation_id="org_get",
    summary="Read your organization by name",
    response_model=schemas.Organization,
    responses={**UNCHANGED, **problems(401, 404, 422, 423)},
    dependencies=[Depends(said_once)],
)
async def get(caller: CanReadOrganization, query: Annotated[Named, Query()]) -> Response:
    """The organization of that name or slug, if it is the caller's own."""
    await _refuse_foreign(caller, query.organization_name)
    return views.read_organization(caller)


async def _refuse_foreign(caller: Caller, text: str) -> None:
    """Raise ``NotFound`` unless ``text`` is the name or a slug, present or former, of the caller's organization."""
    organization = caller.principal.organization
    if names.same_name(text, name=organization.name, slug=organization.slug):
        return
    if await caller.app.storage.read(RESOLVE, slugs.holder, text.casefold()) != organization.id:
        raise NotFound


@router.put(
    "/org/update",
    operation_id="org_update",
    summary="Rename it, change its admin",
    response_model=schemas.Organization,
    responses={
        202: {"model": schemas.Operation, "description": "Renaming takes longer; follow the operation at `Location`."},
        **problems(401, 403, 409, 412, 423, *WITH_BODY),
    },
)
async def update(body: schemas.OrgUpdate, caller: CanRenameOrganization) -> Response:
    """Rename the organization and its collection; change the e-mail address or password of the calling administrator.

    A new password ends the caller's other sessions.
    """
    if not body.model_fields_set:
        raise InvalidInput(problems=[Problem("", "value.missing", "Give at least one thing to change.")])
    app, org_id, if_version = caller.app, caller.org_id, caller.if_match
    if body.organization_name is not None:
        names.derived_slug(names.checked_name(body.organization_name, pointer=_NAME), pointer=_NAME)
    wanted = await _account_change(caller, body)
    located, operation = Located(caller.principal.organization, caller.principal.placement), None
    if body.organization_name is not None:
        new = renaming.NewName(name=body.organization_name, if_version=if_version)
        located, operation = await renaming.rename(app, org_id, new, caller.actor)
    if wanted != identity.AccountChange():
        await _store(caller, wanted)
    answer = views.answer(located) if operation is None else views.running(operation)
    return Json(answer.body.encode(), answer.status, encoded(answer.headers))


async def _account_change(caller: Caller, body: schemas.OrgUpdate) -> identity.AccountChange:
    """What is to change about the caller's account, checked before anything is: an address that is taken, too."""
    if body.email is None and body.password is None:
        return identity.AccountChange()
    app = caller.app
    user = await caller.account()
    name = body.organization_name or caller.principal.organization.name
    with pointed({InvalidEmail: "/email", PasswordUnacceptable: "/password"}):
        wanted = await identity.prepared_change(
            app,
            user,
            email=body.email,
            password=body.password,
            related=[name, names.plain_slug(name)],
        )
    if wanted.email_key is not None:
        holder = await app.storage.read(identity.SCOPE, identity.find_by_email, wanted.email_key)
        if holder is not None and holder.id != user.id:
            raise UserExists("Another account has this e-mail address.")
    return wanted


async def _store(caller: Caller, wanted: identity.AccountChange) -> None:
    principal, app = caller.principal, caller.app
    try:
        await app.storage.run(
            identity.SCOPE,
            identity.change,
            principal.user_id,
            principal.session.id,
            caller.org_id,
            wanted,
            actor=caller.actor,
            at=app.clock(),
        )
    except AlreadyExists:
        raise UserExists("Another account has this e-mail address.") from None


@router.delete(
    "/org/delete",
    operation_id="org_delete",
    summary="Delete your organization",
    response_model=schemas.Deletion,
    responses=problems(401, 403, 404, 409, 412, 422, 423),
    dependencies=[Depends(said_once)],
)
async def delete(caller: CanDeleteOrganization, query: Annotated[NamedDeletion, Query()]) -> Response:
    """Close the organization; with ``purge=now`` drop its collection at once instead of after the grace."""
    await _refuse_foreign(caller, query.organization_name)
    return await deleted(caller, now=query.purge is not None)


@router.post(
    "/admin/login",
    operation_id="admin_login",
    summary="Log in as an admin",
    response_model=schemas.Tokens,
    responses=problems(401, 409, 429, *WITH_BODY),
)
@public("Logging in is how a credential is got.")
async def login(request: Request, body: schemas.AdminLogin) -> Response:
    """Check an e-mail address and password; the access token embeds the organization's identifier."""
    return await logged_in(request, body)
