"""/v1/auth: logging in and out, keeping a log-in alive, changing the password; and the keys that tokens verify with."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from orgstead import identity, sessions
from orgstead.api import idempotent, schemas, views
from orgstead.api.caller import CanLogOut, CanUseOwnAccount, address_of, app_of, public
from orgstead.api.documented import WITH_BODY, problems
from orgstead.api.faults import pointed
from orgstead.api.guarded import GuardedRoute
from orgstead.api.responses import Json
from orgstead.errors import PasswordUnacceptable
from orgstead.idempotency import Answer
from orgstead.model import IdempotentResponse

router = APIRouter(tags=["Authentication"], route_class=GuardedRoute)


async def logged_in(request: Request, body: schemas.AdminLogin) -> Response:
    """Begin a session and answer with its tokens."""
    request_id: str = request.scope["state"]["request_id"]

    async def work() -> Answer:
        granted = await sessions.login(
            app_of(request),
            body.email,
            body.password,
            organization=body.organization,
            address=address_of(request),
            request_id=request_id,
        )
        return views.answered(views.tokens(granted))

    return await idempotent.sealed(request, idempotent.ANONYMOUS, work)


@router.post(
    "/v1/auth/login",
    operation_id="auth_login",
    summary="Log in",
    response_model=schemas.Tokens,
    responses=problems(401, 409, 429, *WITH_BODY),
)
@public("Logging in is how a credential is got.")
async def login(request: Request, body: schemas.Login) -> Response:
    """Begin a session in the organization named, else the last used, else the only one."""
    return await logged_in(request, body)


@router.post(
    "/v1/auth/refresh",
    operation_id="auth_refresh",
    summary="Refresh a session",
    response_model=schemas.Tokens,
    responses=problems(401, 409, *WITH_BODY),
)
@public("The refresh token in the body is the credential.")
async def refresh(request: Request, body: schemas.Refresh) -> Response:
    """Trade the refresh token for the next one and a new access token. Used again after a short grace, it ends the
    session: somebody must have copied it."""
    request_id: str = request.scope["state"]["request_id"]

    async def work() -> Answer:
        granted = await sessions.refresh(
            app_of(request), body.refresh_token, address=address_of(request), request_id=request_id
        )
        return views.answered(views.tokens(granted))

    return await idempotent.sealed(request, idempotent.ANONYMOUS, work, repeatable=True)


@router.post(
    "/v1/auth/logout",
    operation_id="auth_logout",
    summary="Log out",
    status_code=204,
    responses=problems(400, 401, 409, 422),
)
async def logout(caller: CanLogOut) -> Response:
    """End the session: its tokens are refused from the next request on.

    So is this request when it is sent again, also with its ``Idempotency-Key``: a 401 then says that it had its effect.
    """

    async def work() -> Answer:
        await sessions.logout(caller.app, caller.principal.session.id, actor=caller.actor)
        return Answer(204, "", {})

    return await idempotent.sealed(caller.request, idempotent.who(caller), work)


@router.post(
    "/v1/auth/password",
    operation_id="auth_change_password",
    summary="Change your password",
    status_code=204,
    responses=problems(401, 409, 423, 429, *WITH_BODY),
)
async def change_password(request: Request, body: schemas.PasswordChange, caller: CanUseOwnAccount) -> Response:
    """Change the caller's password. Every other session of the caller ends; this one goes on."""
    organization = caller.principal.organization

    async def work(remember: IdempotentResponse | None) -> Answer:
        with pointed({PasswordUnacceptable: "/new_password"}):
            await identity.change_account(
                caller.app,
                caller.principal.user_id,
                caller.principal.session.id,
                caller.org_id,
                actor=caller.actor,
                password=body.new_password,
                current=body.current_password,
                related=[organization.name, organization.slug],
                remember=remember,
            )
        return Answer(204, "", {})

    async def again(_: str) -> Answer:
        return Answer(204, "", {})

    return await idempotent.journalled(request, idempotent.who(caller), work, again)


@router.get(
    "/.well-known/jwks.json",
    operation_id="auth_keys",
    summary="Public keys of tokens",
    response_model=schemas.KeySet,
    responses=problems(),
)
@public("Public keys are public.")
async def keys(request: Request) -> Response:
    """The public keys that access tokens can be verified with; none where they are signed with a shared secret."""
    return Json(orjson.dumps(app_of(request).keys.jwks()), 200, [(b"cache-control", b"public, max-age=300")])
