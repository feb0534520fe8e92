"""Sessions: logging in, keeping a log-in alive with refresh tokens, logging out.

A wrong password, an unknown address, an organization that one is no member of and a suspended one are one answer at
one cost, so that none of them can be told from another (security.md R08).
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orgstead import audit, kit, slugs
from orgstead.audit import Actor
from orgstead.errors import (
    BadCredentials,
    Conflict,
    InvalidEmail,
    InvalidToken,
    NotFound,
    OrganizationRequired,
    Overloaded,
)
from orgstead.identity import canonical_email, find_by_email
from orgstead.model import Membership, Organization, OrganizationStatus, Role, Session, User
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

LOGIN = SystemScope("login")
REFRESH = SystemScope("refresh")
LOGOUT = SystemScope("logout")

MAX_ORGANIZATIONS = 1000
"""How many of a person's organizations are looked at when none was named by its id or slug."""

_SEED_BYTES = 16


@dataclass(frozen=True, slots=True)
class LoginResult:
    """What somebody who logged in, or refreshed, is given. ``expires_in`` (seconds) is the access token's."""

    access_token: str
    expires_in: int
    refresh_token: str
    organization_id: str
    user_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A session with the organization and the membership that it acts for."""

    session: Session
    organization: Organization
    membership: Membership


# --- logging in -----------------------------------------------------------------------------------------------------


async def login(
    app: App,
    email: str,
    password: str,
    *,
    organization: str | None = None,
    address: str | None = None,
    request_id: str | None = None,
) -> LoginResult:
    """Begin a session in ``organization`` (its id, slug, former slug or name).

    Without one: in that of the last log-in, else the only one, else ``OrganizationRequired`` says which there are.
    Raises ``BadCredentials``, ``RateLimited``, ``Overloaded``.
    """
    email_key, user = await _account(app, email)
    async with app.throttles.attempt(email_key, address) as attempt:
        if user is None:
            await app.passwords.verify_unknown(password)
            raise BadCredentials
        if not await app.passwords.verify(user.password_hash, password):
            raise BadCredentials
        try:
            entry = await app.storage.run(
                LOGIN, begin, user, organization, lifetime(app), Actor(user.id, request_id, address), app.clock()
            )
        except OrganizationRequired:
            attempt.succeeded()
            raise
        attempt.succeeded()
    if app.passwords.needs_rehash(user.password_hash):
        await _rehash(app, user, password)
    return _granted(app, entry)


async def begin(
    tx: Transaction, user: User, named: str | None, lifetime: timedelta, actor: Actor, at: datetime
) -> Entry:
    """Choose the organization and write the session down. ``user`` is who was verified: it must be unchanged since."""
    present = await tx.find(tables.users, id=user.id)
    if present is None or present.password_hash != user.password_hash:
        raise BadCredentials
    organization, membership = await _chosen(tx, user.id, named)
    session = Session(
        id=kit.new_id("ses"),
        user_id=user.id,
        org_id=organization.id,
        user_epoch=present.epoch,
        seed=secrets.token_hex(_SEED_BYTES),
        rotated_at=at,
        created_at=at,
        expires_at=at + lifetime,
    )
    await tx.add(tables.sessions, session)
    await audit.record(tx, organization.id, actor, "session.created", {"session_id": session.id}, at=at)
    return Entry(session, organization, membership)


def may_enter(organization: Organization, role: Role) -> bool:
    """May a member of this role log in? To a closed organization only an owner may, who can restore it."""
    if organization.status is OrganizationStatus.CLOSED:
        return role is Role.OWNER
    return organization.status is OrganizationStatus.ACTIVE


async def _account(app: App, email: str) -> tuple[str, User | None]:
    """What the throttle counts the address under, and its account. No address at all is an unknown account too."""
    try:
        _, email_key = canonical_email(email)
    except InvalidEmail:
        return email.strip().casefold(), None
    return email_key, await app.storage.read(LOGIN, find_by_email, email_key)


async def _chosen(tx: Transaction, user_id: str, named: str | None) -> tuple[Organization, Membership]:
    """The organization to log in to. Raises ``BadCredentials``, ``OrganizationRequired``."""
    if named is not None:
        choice = await _named(tx, user_id, named)
    else:
        open_to = await _open_to(tx, user_id)
        active = [pair for pair in open_to if pair[0].status is OrganizationStatus.ACTIVE]
        choice = await _last_used(tx, user_id, active or open_to)
    if not choice:
        raise BadCredentials
    if len(choice) > 1:
        raise OrganizationRequired([(o.id, o.slug, o.name) for o, _ in choice])
    return choice[0]


async def _open_to(tx: Transaction, user_id: str) -> list[tuple[Organization, Membership]]:
    memberships = await tx.page(tables.memberships, {"user_id": user_id}, order=("org_id",), limit=MAX_ORGANIZATIONS)
    found = await tx.find_many(tables.organizations, [(membership.org_id,) for membership in memberships])
    by_id = {organization.id: organization for organization in found}
    pairs = [(by_id[m.org_id], m) for m in memberships if m.org_id in by_id]
    return [(organization, m) for organization, m in pairs if may_enter(organization, m.role)]


async def _named(tx: Transaction, user_id: str, text: str) -> list[tuple[Organization, Membership]]:
    """Those meant by ``text``: the one of this id or slug (present or former), or else every one of that name."""
    org_id = text if text.startswith("org_") else await slugs.holder(tx, text.casefold())
    if org_id is not None:
        organization = await tx.find(tables.organizations, id=org_id)
        membership = await tx.find(tables.memberships, org_id=org_id, user_id=user_id)
        if organization and membership and may_enter(organization, membership.role):
            return [(organization, membership)]
    name = text.strip().casefold()
    return [pair for pair in await _open_to(tx, user_id) if pair[0].name.casefold() == name]


async def _last_used(
    tx: Transaction, user_id: str, open_to: list[tuple[Organization, Membership]]
) -> list[tuple[Organization, Membership]]:
    sessions = await tx.page(tables.sessions, {"user_id": user_id}, order=("-created_at",), limit=1)
    last = [pair for pair in open_to if sessions and pair[0].id == sessions[0].org_id]
    return last or open_to


async def _rehash(app: App, user: User, password: str) -> None:
    """Store the password under the parameters now in use. A log-in does not fail for it; the next one tries again."""
    with suppress(Overloaded, Conflict):
        password_hash = await app.passwords.hash(password)
        await app.storage.run(LOGIN, _store_hash, replace(user, password_hash=password_hash))


async def _store_hash(tx: Transaction, user: User) -> None:
    await tx.replace(tables.users, user)


# --- keeping it alive -----------------------------------------------------------------------------------------------


async def refresh(app: App, token: str, *, address: str | None = None, request_id: str | None = None) -> LoginResult:
    """Trade a refresh token for the next one and a new access token.

    A token works once. For a short time after that it gives the same new one again, so that a lost answer can be asked
    for again and two tabs do not log each other out; later use means that somebody copied it, and ends the session
    (RFC 9700 section 4.14). Raises ``InvalidToken``.
    """
    claim = app.tokens.parse_refresh(token)
    session = await app.storage.read(REFRESH, _session, claim.session_id)
    if session is None:
        raise InvalidToken
    app.tokens.verify_refresh(claim, session)
    grace = timedelta(seconds=app.settings.sessions.refresh_grace_seconds)
    actor = Actor(session.user_id, request_id, address)
    try:
        entry = await app.storage.run(REFRESH, rotate, session.id, claim.generation, grace, actor, app.clock())
    except NotFound:
        raise InvalidToken from None
    if entry is None:
        raise InvalidToken
    return _granted(app, entry)


async def rotate(
    tx: Transaction, session_id: str, generation: int, grace: timedelta, actor: Actor, at: datetime
) -> Entry | None:
    """The session in its next generation, or None where it is over: an error would undo the end of a stolen one."""
    session = await tx.lock(tables.sessions, session_id)
    user = await tx.find(tables.users, id=session.user_id)
    if user is None or session.revoked_at or session.expires_at <= at or session.user_epoch != user.epoch:
        return None
    repeated = generation == session.generation - 1 and at - session.rotated_at <= grace
    if generation != session.generation and not repeated:
        await _end(tx, session, "session.reuse_detected", actor, at)
        return None
    organization = await tx.find(tables.organizations, id=session.org_id)
    membership = await tx.find(tables.memberships, org_id=session.org_id, user_id=session.user_id)
    if organization is None or membership is None or not _may_stay(organization, membership.role):
        return None
    if not repeated:
        session = await tx.replace(tables.sessions, replace(session, generation=generation + 1, rotated_at=at))
    return Entry(session, organization, membership)


def _may_stay(organization: Organization, role: Role) -> bool:
    """A suspended organization's sessions live on, so that they work again after it; each request is refused anyway."""
    return organization.status is OrganizationStatus.SUSPENDED or may_enter(organization, role)


# --- logging out ----------------------------------------------------------------------------------------------------


async def logout(app: App, session_id: str, *, actor: Actor) -> None:
    """End a session: its tokens are refused from the next request on. May be repeated."""
    await app.storage.run(LOGOUT, end, session_id, actor, app.clock())


async def end(tx: Transaction, session_id: str, actor: Actor, at: datetime) -> None:
    """End the session unless it is over already, or was never there."""
    if await _session(tx, session_id) is None:
        return
    session = await tx.lock(tables.sessions, session_id)
    if session.revoked_at is None:
        await _end(tx, session, "session.ended", actor, at)


async def _end(tx: Transaction, session: Session, action: str, actor: Actor, at: datetime) -> None:
    await tx.replace(tables.sessions, replace(session, revoked_at=at))
    await audit.record(tx, session.org_id, actor, action, {"session_id": session.id}, at=at)


async def forget_expired(tx: Transaction, at: datetime, limit: int) -> int:
    """Remove up to ``limit`` sessions past their time; returns how many. Others may be at it at the same time."""
    rows = await tx.page(tables.sessions, order=("expires_at",), limit=limit)
    expired = [session for session in rows if session.expires_at <= at]
    for session in expired:
        await tx.take(tables.sessions, id=session.id)
    return len(expired)


async def _session(tx: Transaction, session_id: str) -> Session | None:
    return await tx.find(tables.sessions, id=session_id)


def _granted(app: App, entry: Entry) -> LoginResult:
    session = entry.session
    access = app.tokens.mint_access(
        user_id=session.user_id,
        session_id=session.id,
        org_id=session.org_id,
        role=entry.membership.role,
        org_epoch=entry.organization.epoch,
    )
    return LoginResult(
        access_token=access.token,
        expires_in=access.expires_in,
        refresh_token=app.tokens.refresh_token(session),
        organization_id=session.org_id,
        user_id=session.user_id,
        session_id=session.id,
    )


def lifetime(app: App) -> timedelta:
    """How long a session can be kept alive at most."""
    return timedelta(days=app.settings.sessions.days)
