"""Creating organizations over HTTP: who may, the account that becomes the owner, and the creation itself."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from orgstead import creation, identity, names, placements
from orgstead.access import ACTIVE
from orgstead.api.caller import Caller, actor_of, address_of, app_of, authenticated, bearer_token, guard, values_of
from orgstead.api.faults import pointed
from orgstead.app import App
from orgstead.creation import NewOrganization
from orgstead.errors import InvalidEmail, InvalidToken, PasswordUnacceptable, SignupClosed, UnknownPlan, UserExists
from orgstead.model import IdempotentResponse, OrganizationStatus, User
from orgstead.organizations import Located, checked_metadata
from orgstead.policy import Permission


@guard
async def may_sign_up(request: Request) -> None:
    """Let those create an organization, without an account, whom the setting ``signup`` lets.

    Raises ``SignupClosed``; with ``signup = token`` ``Unauthenticated`` or ``InvalidToken`` without the right one.
    """
    signup = app_of(request).settings.signup
    if signup == "closed":
        raise SignupClosed
    if signup == "token" and not _has_signup_token(request):
        raise InvalidToken("This service asks for its sign-up token to create an organization.")


@guard
async def may_create(request: Request) -> Caller | None:
    """A caller with an account of their own, or None for those who may sign up without one."""
    if values_of(request, b"authorization") and not _has_signup_token(request):
        return await authenticated(request, Permission.USE_OWN_ACCOUNT, ACTIVE)
    await may_sign_up(request)
    return None


for _dependency in (may_sign_up, may_create):
    # The documentation shows that these let people without any credential pass, where the settings do.
    vars(_dependency)["__optional__"] = True

MaySignUp = Depends(may_sign_up)
MayCreateOrganization = Annotated[Caller | None, Depends(may_create)]


def _has_signup_token(request: Request) -> bool:
    """Raises ``Unauthenticated`` and ``InvalidToken`` where a token is asked for and there is none to compare."""
    settings = app_of(request).settings
    if settings.signup != "token" or settings.signup_token is None:
        return False
    expected = settings.signup_token.get_secret_value()
    return hmac.compare_digest(bearer_token(request).encode(), expected.encode())


def refuse_early(app: App, new: NewOrganization, *, name_at: str) -> None:
    """Refuse what could never be created before a password is hashed for it, with pointers into this request."""
    name = names.checked_name(new.name, pointer=name_at)
    if new.slug is None:
        names.derived_slug(name, pointer=name_at)
    else:
        names.checked_slug(new.slug)
    with pointed({UnknownPlan: "/plan"}):
        placements.kind_of(app.settings, new.plan)
    checked_metadata(new.metadata)


async def create_with_account(
    request: Request,
    new: NewOrganization,
    email: str,
    password: str,
    *,
    below: str = "",
    remember: IdempotentResponse | None,
) -> tuple[Located, User]:
    """Create the organization with the account that will own it: a new one, or an existing one with its password.

    ``below`` is where in the body the e-mail address and password are. Who loses a race for a new address asks again,
    and is then somebody with an account. Raises what ``account_for_signup`` and ``creation.create`` raise.
    """
    app = app_of(request)
    related = [new.name, new.slug or names.plain_slug(new.name)]
    while True:
        with pointed({InvalidEmail: f"{below}/email", PasswordUnacceptable: f"{below}/password"}):
            account = await identity.account_for_signup(
                app, email, password, address=address_of(request), related=related
            )
        owned = replace(new, owner=account.user, owner_is_new=account.is_new)
        try:
            located = await creation.create(app, owned, actor_of(request, account.user.id), remember=remember)
        except UserExists:
            continue
        return located, account.user


def status_of(located: Located) -> int:
    """201, or 202 where the creation takes longer than a request may: it is completed in the background."""
    return 202 if located.organization.status is OrganizationStatus.PROVISIONING else 201
