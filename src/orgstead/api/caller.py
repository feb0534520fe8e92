"""Who is calling: the guards of the routes, and what a guard hands out. Nothing else in a request reaches storage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Concatenate, Final, ParamSpec, TypeVar, cast

import msgspec
from fastapi import Depends
from starlette.requests import Request

from orgstead import api_keys, record_batches, spaces
from orgstead.access import ACTIVE, Principal, authenticate, authenticate_key, authorize
from orgstead.api.limits import FIELDS
from orgstead.api.preconditions import NO_VERSION, Conditions, is_unchanged
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.errors import Forbidden, InvalidToken, PreconditionFailed, RateLimited, Suspended, Unauthenticated
from orgstead.idempotency import checked_key
from orgstead.model import OrganizationStatus, User
from orgstead.policy import Permission
from orgstead.record_batches import Terms
from orgstead.spaces import Work
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, SystemScope, Transaction

T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
Guard = Callable[[Request], Awaitable["Caller"]]


class Caller(msgspec.Struct, frozen=True):
    """A credential that the store has confirmed, for one request. Its transactions see its own organization only."""

    app: App
    principal: Principal
    request: Request
    refusal: Suspended | None = None
    """Why nothing new may be done: the caller may only be given again what a POST of theirs was answered before."""

    @property
    def org_id(self) -> str:
        return self.principal.organization.id

    @property
    def actor(self) -> Actor:
        """The caller as audit entries name them."""
        return actor_of(self.request, self.principal.id)

    @property
    def conditions(self) -> Conditions:
        """What the request asks of the state that it changes."""
        return Conditions(values_of(self.request, b"if-match"), values_of(self.request, b"if-none-match"))

    @property
    def if_match(self) -> int | None:
        """The version that the organization must still have, or None. Raises ``PreconditionFailed``."""
        return self.conditions.version(self.principal.organization, self.principal.placement)

    @property
    def if_match_later(self) -> int | None:
        """The same for a POST, whose transaction fails instead, and only if its Idempotency-Key is new.

        What succeeded once has changed the version: sent again, it is due its answer and not a 412.
        """
        try:
            return self.if_match
        except PreconditionFailed:
            return NO_VERSION

    def has_seen(self, tag: bytes) -> bool:
        """Does If-None-Match say that the client has the state of this tag? Then it need not be sent."""
        fields = values_of(self.request, b"if-none-match")
        return bool(fields) and is_unchanged(fields, tag)

    async def run(
        self,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """One transaction in the caller's organization, committed when this returns."""
        return await self.app.storage.run(OrgScope(self.org_id), work, *args, **kwargs)

    async def read(
        self,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """One snapshot of the caller's organization."""
        return await self.app.storage.read(OrgScope(self.org_id), work, *args, **kwargs)

    async def run_in_space(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction in the organization's space, wherever it is, committed when this returns."""
        result = await spaces.run(self.app, self.principal.placement, work, *args, **kwargs)
        self.app.arrivals.tell(self.org_id)
        return result

    async def read_in_space(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One snapshot of the space, for reading what is soon read."""
        return await spaces.read(self.app, self.principal.placement, work, *args, **kwargs)

    async def scan_in_space(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One snapshot of the space, for reading what may take a while."""
        return await spaces.scan(self.app, self.principal.placement, work, *args, **kwargs)

    @property
    def terms(self) -> Terms:
        """What the caller writes records on."""
        app = self.app
        return record_batches.terms_of(app, self.principal.organization.plan, self.actor)

    def named(self, what: str) -> str:
        """The value of a parameter of the path."""
        value: str = self.request.scope["path_params"][what]
        return value

    async def account(self) -> User:
        """The caller's own account. Raises ``Forbidden`` for an API key."""
        if not self.principal.may(Permission.USE_OWN_ACCOUNT):
            raise Forbidden
        return await self.app.storage.read(_ACCOUNT, _user, self.principal.user_id)


_ACCOUNT = SystemScope("read own account")


async def _user(tx: Transaction, user_id: str) -> User:
    return await tx.get(tables.users, user_id)


# --- guards ---------------------------------------------------------------------------------------------------------


def guard(dependency: F) -> F:
    """Mark a dependency as one that lets a request pass or refuses it; every route has one, or is ``public``."""
    vars(dependency)["__guard__"] = True
    return dependency


def public(reason: str) -> Callable[[F], F]:
    """Mark an endpoint that needs no credential, and say why it needs none."""

    def marked(endpoint: F) -> F:
        vars(endpoint)["__public__"] = reason
        return endpoint

    return marked


LOGOUTS: Final = 1.0
"""Requests a second that a session may make apart from its organization's rate, which others may have used up."""


def can(
    permission: Permission,
    statuses: Collection[OrganizationStatus] = ACTIVE,
    *,
    repeatable: bool = True,
    apart: bool = False,
) -> Guard:
    """The guard of routes that ask for ``permission`` in an organization of one of the ``statuses``.

    It reads who the caller is from the store on each request. An ``organization_id`` in the path must be the caller's
    own: any other is answered as one that does not exist. A POST that only reads is not ``repeatable``; one that must
    be possible beyond the organization's rate is counted ``apart`` from it, by session.
    """

    @guard
    async def may(request: Request) -> Caller:
        caller = await authenticated(request, permission, statuses, repeatable=repeatable, apart=apart)
        if not repeatable and request.scope["method"] == "POST":
            for value in values_of(request, b"idempotency-key"):  # taken and not needed, but one that can be a key
                checked_key(value.decode("latin-1"))
        return caller

    return may


async def authenticated(
    request: Request,
    permission: Permission,
    statuses: Collection[OrganizationStatus],
    *,
    repeatable: bool = True,
    counted: bool = True,
    apart: bool = False,
) -> Caller:
    """The caller, if the access token or API key is valid and allows this.

    Raises what ``access`` raises, and ``RateLimited``.

    A POST with an Idempotency-Key is let pass although the organization is suspended, with the ``refusal`` that
    ``idempotent`` raises unless the key has an answer: it is due also where the status has changed since, most of all
    by that very request. ``counted`` is False for looking again at a caller who was let in by this very request, and
    ``apart`` counts a session's request as its own, not its organization's.
    """
    app = app_of(request)
    token = bearer_token(request)
    if token.startswith(api_keys.PREFIX):
        principal = await _holder_of_key(app, token, counted=counted)
        bucket, apart = principal.organization.id, False
    else:
        claims = app.tokens.verify_access(token)
        bucket = claims.session_id if apart else claims.org_id
        if counted:
            _spend(app, bucket, apart=apart)
        found = await app.storage.access(claims.org_id, claims.user_id, claims.session_id)
        try:
            principal = authenticate(found, claims, app.clock())
        except InvalidToken:
            if counted:
                app.rates.give_back(bucket)
            raise
    if counted:
        plan = app.settings.plans.get(principal.organization.plan)
        rate = plan.requests_per_second if plan else None
        app.rates.learn(bucket, LOGOUTS if apart and rate is not None else rate)
    try:
        authorize(principal, permission, statuses, named=request.scope["path_params"].get("organization_id"))
    except Suspended as refusal:
        repeatable = repeatable and request.scope["method"] == "POST" and bool(values_of(request, b"idempotency-key"))
        if not repeatable or not principal.may(permission):
            raise
        return Caller(app, principal, request, refusal)
    return Caller(app, principal, request)


def _spend(app: App, bucket: str, *, apart: bool) -> None:
    try:
        app.rates.spend(bucket)
    except RateLimited as refusal:
        if apart:  # it is no plan's rate, which the refusal names
            raise RateLimited(retry_after=refusal.retry_after) from None
        raise


async def _holder_of_key(app: App, token: str, *, counted: bool) -> Principal:
    """Whom an API key stands for. Raises ``InvalidToken``, and ``RateLimited``.

    Unlike a token it has no signature: whose rate it may use is only known when the store has confirmed it.
    """
    at = app.clock()
    claims = api_keys.parse(token)
    found = await app.storage.access(claims.org_id, claims.user_id, claims.key_id)
    limited = app.settings.api_keys.after_demotion == "limited"
    principal, key = authenticate_key(found, claims, at, limited=limited)
    if counted:
        app.rates.spend(claims.org_id)
    app.key_uses.note(token, key, at)
    return principal


EVERY_STATUS = frozenset({OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED, OrganizationStatus.CLOSED})
NOT_CLOSED = frozenset({OrganizationStatus.ACTIVE, OrganizationStatus.SUSPENDED})

CanReadOrganization = Annotated[Caller, Depends(can(Permission.READ_ORGANIZATION))]
CanManageOrganization = Annotated[Caller, Depends(can(Permission.UPDATE_ORGANIZATION))]
CanRenameOrganization = Annotated[Caller, Depends(can(Permission.RENAME_ORGANIZATION))]
CanDeleteOrganization = Annotated[Caller, Depends(can(Permission.DELETE_ORGANIZATION))]
CanRestoreOrganization = Annotated[Caller, Depends(can(Permission.RESTORE_ORGANIZATION, EVERY_STATUS))]
CanSuspendOrganization = Annotated[Caller, Depends(can(Permission.SUSPEND_ORGANIZATION))]
CanReactivateOrganization = Annotated[Caller, Depends(can(Permission.REACTIVATE_ORGANIZATION, NOT_CLOSED))]
CanChangePlan = Annotated[Caller, Depends(can(Permission.CHANGE_PLAN))]
CanReadOperations = Annotated[Caller, Depends(can(Permission.READ_OPERATIONS))]
CanReadRecords = Annotated[Caller, Depends(can(Permission.READ_RECORDS, repeatable=False))]
CanWriteRecords = Annotated[Caller, Depends(can(Permission.WRITE_RECORDS))]
CanDefineCollections = Annotated[Caller, Depends(can(Permission.DEFINE_COLLECTIONS))]
CanManageApiKeys = Annotated[Caller, Depends(can(Permission.MANAGE_API_KEYS))]
CanUseOwnAccount = Annotated[Caller, Depends(can(Permission.USE_OWN_ACCOUNT))]
CanLogOut = Annotated[Caller, Depends(can(Permission.USE_OWN_ACCOUNT, NOT_CLOSED, apart=True))]


# --- what a request says --------------------------------------------------------------------------------------------


def app_of(request: Request) -> App:
    """The App that serves this request."""
    return cast(App, request.scope["app"].orgstead)


def actor_of(request: Request, user_id: str) -> Actor:
    """``user_id`` with the request that they act by."""
    return Actor(user_id, request.scope["state"]["request_id"], address_of(request))


def address_of(request: Request) -> str | None:
    """The client's network address, as far as the outer layer could tell."""
    client = request.scope.get("client")
    return client[0] if client else None


def values_of(request: Request, name: bytes) -> list[bytes]:
    """The values of every field of that (lower-case) name."""
    fields: Mapping[bytes, bytes] | None = request.scope.get(FIELDS)
    if fields is not None:
        return [fields[name]] if name in fields else []
    headers: Iterable[tuple[bytes, bytes]] = request.scope["headers"]
    return [value for key, value in headers if key == name]


def bearer_token(request: Request) -> str:
    """The token of the one Authorization header (RFC 6750 §2.1), as it was sent: whoever verifies it judges its form.

    Raises ``Unauthenticated`` without that header, ``InvalidToken`` for anything but one bearer token in it.
    """
    values = values_of(request, b"authorization")
    if not values:
        raise Unauthenticated
    token = token_in(values[0])
    if len(values) > 1 or not token:
        raise InvalidToken
    return token


def token_in(field: bytes) -> str:
    """The bearer token of an Authorization header's value, whatever it is; empty for any other scheme."""
    scheme, _, token = field.partition(b" ")
    return token.decode("latin-1") if scheme.lower() == b"bearer" else ""
