"""Creating organizations over HTTP: who may, the account that becomes the owner, and the creation itself."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request

from orgstead import api_keys, creation, identity, names, placements
from orgstead.access import ACTIVE
from orgstead.api.caller import Caller, actor_of, address_of, app_of, authenticated, bearer_token, guard, values_of
from orgstead.api.faults import pointed
from orgstead.app import App
from orgstead.creation import NewOrganization
from orgstead.errors import InvalidEmail, InvalidToken, PasswordUnacceptable, SignupClosed, UnknownPlan, UserExists
from orgstead.model import IdempotentResponse, OrganizationStatus, User
from orgstead.organizations import Located, checked_metadata
from orgstead.policy import Permission

SIGN_UP: Final = "SIGN-UP"
"""What wrong sign-up tokens are counted under: a name that no account has, as those are in lower case."""


@guard
async def may_sign_up(request: Request) -> None:
    """Let those create an organization, without an account, whom the setting ``signup`` lets.

    Raises ``SignupClosed``; with ``signup = token`` ``Unauthenticated`` or ``InvalidToken`` without the right one, and
    ``RateLimited`` after too many wrong ones.
    """
    signup = app_of(request).settings.signup
    if signup == "closed":
        raise SignupClosed
    if signup == "token" and not await _has_signup_token(request):
        raise InvalidToken("This service asks for its sign-up token to create an organization.")


@guard
async def may_create(request: Request) -> Caller | None:
    """A caller with an account of their own, or None for those who may sign up without one."""
    app = app_of(request)
    if not values_of(request, b"authorization"):
        await may_sign_up(request)
    elif app.settings.signup != "token" or _is_of_a_caller(app, bearer_token(request)):
        return await authenticated(request, Permission.USE_OWN_ACCOUNT, ACTIVE)
    elif not await _has_signup_token(request):
        raise InvalidToken
    return None


for _dependency in (may_sign_up, may_create):
    # The documentation shows that these let people without any credential pass, where the settings do.
    vars(_dependency)["__optional__"] = True

MaySignUp = Depends(may_sign_up)
MayCreateOrganization = Annotated[Caller | None, Depends(may_create)]


async def _has_signup_token(request: Request) -> bool:
    """Is it the token that ``signup = token`` asks for? Wrong ones are throttled as wrong passwords are.

    Raises ``Unauthenticated`` and ``InvalidToken`` where there is none to compare, ``RateLimited``, ``Overloaded``.
    """
    app = app_of(request)
    token, expected = bearer_token(request), app.settings.signup_token
    if _is_of_a_caller(app, token):
        return False
    async with app.throttles.attempt(SIGN_UP, address_of(request)) as attempt:
        if expected is not None and hmac.compare_digest(token.encode(), expected.get_secret_value().encode()):
            attempt.succeeded()
    return attempt.right


def _is_of_a_caller(app: App, token: str) -> bool:
    """Is it an API key or access token that this service can have made? Then it is no guess at the sign-up token, also
    where it is no longer valid: ten programs whose tokens have expired must keep nobody from signing up."""
    if not token.startswith(api_keys.PREFIX):
        return app.tokens.has_form(token)
    try:
        api_keys.parse(token)
    except InvalidToken:
        return False
    return True


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
