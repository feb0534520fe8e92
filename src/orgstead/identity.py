"""Accounts: the e-mail address and password of a person, from sign-up to change. Logging in is in ``sessions.py``."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from orgstead import audit, events, kit
from orgstead.audit import Actor
from orgstead.errors import AlreadyExists, BadCredentials, InvalidEmail, InvalidToken, NotFound, UserExists
from orgstead.model import IdempotentResponse, Organization, User
from orgstead.storage import tables
from orgstead.storage.port import SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("account")

MAX_EMAIL_LENGTH = 1024
"""Code points of an address worth looking at: none has more than 254 bytes once it is in normal form, and judging a
text as long as a body may be would keep everybody else waiting for seconds."""

MAX_NOTED = 1000
"""In the logs of how many of a person's organizations, the first by id, the operator's change is noted."""


@dataclass(frozen=True, slots=True)
class SignupAccount:
    """Who signs up. A new user is not stored yet: the transaction that creates the organization adds the row."""

    user: User
    is_new: bool


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to change about an account, ready to be stored; None leaves a thing as it is."""

    email: str | None = None
    email_key: str | None = None
    password_hash: str | None = None


def canonical_email(email: str) -> tuple[str, str]:
    """The address as it is shown and mailed to, and the key that makes it unique.

    The key is case-folded in both parts and has the domain in its ASCII form (IDNA), so that one mailbox is one
    account however it is spelled; ``+tags`` are kept, because whether they mean the same mailbox is the server's own
    business. No DNS is asked, and ``.test`` is a domain like others. Raises ``InvalidEmail``.
    """
    # Loaded when the first address comes: every start, also that of a command, would wait for its tables.
    from email_validator import EmailNotValidError, validate_email

    if len(email) > MAX_EMAIL_LENGTH:
        raise InvalidEmail
    try:
        parsed = validate_email(email, check_deliverability=False, test_environment=True, strict=True)
    except EmailNotValidError:
        raise InvalidEmail from None
    if "." not in parsed.ascii_domain:
        raise InvalidEmail
    local = unicodedata.normalize("NFC", parsed.local_part.casefold())
    return parsed.normalized, f"{local}@{parsed.ascii_domain.casefold()}"


async def find_by_email(tx: Transaction, email_key: str) -> User | None:
    """The account of this canonical address (the key that ``canonical_email`` gives), or None."""
    return await tx.find(tables.users, email_key=email_key)


async def account_for_signup(
    app: App, email: str, password: str, *, address: str | None, related: Iterable[str] = ()
) -> SignupAccount:
    """The account that creates an organization: a new one, or the existing one if this is its password.

    ``related`` are texts the password must not equal (the organization's name and slug). A race for a new address is
    decided by the transaction that adds the user; who loses it asks again, and is then an existing account. Raises
    ``InvalidEmail``, ``PasswordUnacceptable``, ``UserExists``, ``RateLimited``, ``Overloaded``.
    """
    email, email_key = canonical_email(email)
    user = await app.storage.read(SCOPE, find_by_email, email_key)
    if user is not None:
        async with app.throttles.attempt(email_key, address) as attempt:
            if not await app.passwords.verify(user.password_hash, password):
                raise UserExists
            attempt.succeeded()
        return SignupAccount(user, is_new=False)
    app.passwords.check(password, related=[email, *related])
    password_hash = await app.passwords.hash(password)
    at = app.clock()
    return SignupAccount(
        User(
            id=kit.new_id("usr"),
            email=email,
            email_key=email_key,
            password_hash=password_hash,
            created_at=at,
            updated_at=at,
        ),
        is_new=True,
    )


async def prepared_change(
    app: App, user: User, *, email: str | None = None, password: str | None = None, related: Iterable[str] = ()
) -> AccountChange:
    """Check a new address and password, and hash the password: what must be done before the transaction begins.

    Raises ``InvalidEmail``, ``PasswordUnacceptable``, ``Overloaded``.
    """
    shown, key = canonical_email(email) if email is not None else (None, None)
    password_hash = None
    if password is not None:
        app.passwords.check(password, related=[shown or user.email, *related])
        password_hash = await app.passwords.hash(password)
    return AccountChange(email=shown, email_key=key, password_hash=password_hash)


async def change(
    tx: Transaction,
    user_id: str,
    session_id: str,
    org_id: str,
    wanted: AccountChange,
    *,
    actor: Actor,
    at: datetime,
    remember: IdempotentResponse | None = None,
) -> User:
    """Change an account. A new password ends every session of the person but the one it was changed from (R11).

    ``org_id`` is the organization whose log notes it, ``remember`` the idempotency row to write with the change.

    Raises ``InvalidToken`` when the session has ended meanwhile, as
    by another change of the password; ``NotFound``, ``UserExists``; a race for an address ends in ``AlreadyExists``
    ("users.email").
    """
    user = await tx.lock(tables.users, user_id)
    session = await tx.lock(tables.sessions, session_id)
    if session.revoked_at is not None or session.user_epoch != user.epoch:
        raise InvalidToken
    if wanted.email is not None and wanted.email_key is not None and wanted.email != user.email:
        holder = await find_by_email(tx, wanted.email_key)
        if holder is not None and holder.id != user_id:
            raise UserExists("Another account has this e-mail address.")
        user = replace(user, email=wanted.email, email_key=wanted.email_key)
        await _note(tx, org_id, "user.email_changed", user_id, actor, at)
    if wanted.password_hash is not None:
        user = replace(user, password_hash=wanted.password_hash, epoch=user.epoch + 1)
        await tx.replace(tables.sessions, replace(session, user_epoch=user.epoch))
        await _note(tx, org_id, "user.password_changed", user_id, actor, at)
    if remember is not None:
        await tx.add(tables.idempotent_responses, replace(remember, subject=org_id))
    return await tx.replace(tables.users, replace(user, updated_at=at))


async def change_account(
    app: App,
    user_id: str,
    session_id: str,
    org_id: str,
    *,
    actor: Actor,
    email: str | None = None,
    password: str | None = None,
    current: str | None = None,
    related: Iterable[str] = (),
    remember: IdempotentResponse | None = None,
) -> User:
    """``prepared_change`` and ``change`` in one, for when nothing else changes with them.

    ``current`` is the present password, where the caller must prove to know it; it is throttled like a login. Raises
    what they raise, ``BadCredentials`` and ``RateLimited``.
    """
    user = await app.storage.read(SCOPE, _user, user_id)
    if current is not None:
        async with app.throttles.attempt(user.email_key, actor.address) as attempt:
            if not await app.passwords.verify(user.password_hash, current):
                raise BadCredentials("The present password is not right.")
            attempt.succeeded()
    wanted = await prepared_change(app, user, email=email, password=password, related=related)
    try:
        return await app.storage.run(
            SCOPE, change, user_id, session_id, org_id, wanted, actor=actor, at=app.clock(), remember=remember
        )
    except AlreadyExists as error:
        if error.constraint != "users.email":
            raise
        raise UserExists("Another account has this e-mail address.") from None


async def set_password(app: App, email: str, password: str, *, actor: Actor) -> User:
    """Give an account another password without knowing the present one, or its first: for the operator.

    It ends every session of the person, and is noted in each of their organizations. Raises ``InvalidEmail``,
    ``NotFound``, ``PasswordUnacceptable``, ``Overloaded``.
    """
    _, email_key = canonical_email(email)
    user, organizations = await app.storage.read(SCOPE, _with_organizations, email_key)
    related = [text for organization in organizations for text in (organization.name, organization.slug)]
    app.passwords.check(password, related=[user.email, *related])
    password_hash = await app.passwords.hash(password)
    return await app.storage.run(SCOPE, _set_password, user.id, password_hash, actor=actor, at=app.clock())


async def _with_organizations(tx: Transaction, email_key: str) -> tuple[User, list[Organization]]:
    user = await find_by_email(tx, email_key)
    if user is None:
        raise NotFound
    return user, await tx.find_many(tables.organizations, [(org_id,) for org_id in await _org_ids(tx, user.id)])


async def _set_password(tx: Transaction, user_id: str, password_hash: str, *, actor: Actor, at: datetime) -> User:
    user = await tx.lock(tables.users, user_id)
    for org_id in await _org_ids(tx, user_id):
        await _note(tx, org_id, "user.password_changed", user_id, actor, at)
    changed = replace(user, password_hash=password_hash, epoch=user.epoch + 1, updated_at=at)
    return await tx.replace(tables.users, changed)


async def _org_ids(tx: Transaction, user_id: str) -> list[str]:
    """The person's organizations in the order in which their logs are locked."""
    found = await tx.page(tables.memberships, {"user_id": user_id}, order=("org_id",), limit=MAX_NOTED)
    return [membership.org_id for membership in found]


async def _user(tx: Transaction, user_id: str) -> User:
    return await tx.get(tables.users, user_id)


async def _note(tx: Transaction, org_id: str, action: str, user_id: str, actor: Actor, at: datetime) -> None:
    await audit.record(tx, org_id, actor, action, {"user_id": user_id}, at=at)
    await events.emit(tx, org_id, action, {"user_id": user_id}, at=at)
