"""API keys: credentials of an organization for its programs, instead of somebody's password.

    ok_ <organization> <who was shown it> <key> <secret> <checksum>

Everything that the hot read looks for is in the key, so that a key costs a request what a log-in costs. Nothing of it
is believed before the store has confirmed it: only the hash of a key is kept, and whoever was shown it must be a member
since before then. A key with a typing error is refused by its checksum, without a look into the database.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from orgstead import audit, events, kit, lifecycle, usage
from orgstead.audit import Actor
from orgstead.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidToken,
    NotFound,
    OrgsteadError,
    Problem,
    StatusConflict,
)
from orgstead.model import API_KEY_ID, ApiKey, Json, Role
from orgstead.policy import RANK, Permission, allowed
from orgstead.recent import Recent
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Storage, Transaction
from orgstead.usage import Limits

if TYPE_CHECKING:
    from orgstead.settings import Settings

PREFIX: Final = "ok_"
"""What every key begins with, and no other token."""

MAX_NAME: Final = 100

USED_EVERY: Final = timedelta(hours=1)
"""How exactly it is known when a key was last used."""

_TRIED_EVERY = timedelta(minutes=1)
"""How soon noting is tried again that has failed."""

_SECRET_BITS, _SECRET = 160, 32
_CHECKSUM = 7

_ULID = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_SHAPE = re.compile(f"{PREFIX}({_ULID})({_ULID})({_ULID})[0-9a-hjkmnp-tv-z]{{{_SECRET + _CHECKSUM}}}")
_ID = re.compile(API_KEY_ID + _ULID)

_log = structlog.get_logger("orgstead.api_keys")


# --- the key itself ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyClaims:
    """What a well-formed key says, before anything about it was verified."""

    org_id: str
    user_id: str
    key_id: str
    secret_hash: str

    def is_of(self, key: ApiKey) -> bool:
        """Is it this key, as it was shown when it was made? Takes the same time however much of it is right."""
        return hmac.compare_digest(self.secret_hash, key.secret_hash) and self.user_id == key.user_id


def parse(text: str) -> KeyClaims:
    """Which key it is, unverified. Raises ``InvalidToken`` for what this service never made."""
    match = _SHAPE.fullmatch(text)
    if match is None or text[-_CHECKSUM:] != _checksum(text[:-_CHECKSUM]):
        raise InvalidToken
    org, user, key = match.groups()
    return KeyClaims(f"org_{org}", f"usr_{user}", API_KEY_ID + key, _hash(text))


def _minted(org_id: str, user_id: str, key_id: str) -> str:
    ids = org_id.removeprefix("org_") + user_id.removeprefix("usr_") + key_id.removeprefix(API_KEY_ID)
    text = f"{PREFIX}{ids}{kit.base32(secrets.randbits(_SECRET_BITS), _SECRET)}"
    return text + _checksum(text)


def _checksum(text: str) -> str:
    return kit.base32(zlib.crc32(text.encode()), _CHECKSUM)


def _hash(text: str) -> str:
    """A fast hash will do: what it is of cannot be guessed."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_id(text: str) -> bool:
    """Can a key have this id?"""
    return _ID.fullmatch(text) is not None


# --- the keys of an organization --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """What somebody asks for; ``user_id`` is the person."""

    name: str
    role: Role
    expires_at: datetime | None
    user_id: str


@dataclass(frozen=True, slots=True)
class Minted:
    """A key with its text, which nobody can be shown again."""

    key: ApiKey
    text: str


async def create(
    tx: Transaction, settings: Settings, org_id: str, new: NewApiKey, actor: Actor, at: datetime
) -> Minted:
    """Make a key. Raises ``InvalidInput``, ``Forbidden`` for a role above one's own, ``QuotaExceeded``, ``NotFound``,
    ``StatusConflict`` while the organization is made or purged."""
    _check(new, at)
    organization = await tx.lock(tables.organizations, org_id)
    if organization.status in lifecycle.BUSY:
        raise StatusConflict(f"The organization is {organization.status}.")
    await _require_role(tx, org_id, new.user_id, new.role)
    await usage.count(tx, organization, usage.limits_of(settings, organization.plan), {"api_keys": 1})
    key_id = kit.new_id(API_KEY_ID.removesuffix("_"))
    text = _minted(org_id, new.user_id, key_id)
    key = ApiKey(
        org_id=org_id,
        id=key_id,
        name=new.name,
        role=new.role,
        user_id=new.user_id,
        secret_hash=_hash(text),
        expires_at=new.expires_at,
        created_at=at,
        updated_at=at,
    )
    await tx.add(tables.api_keys, key)
    await _note(tx, "api_key.created", key, actor, at)
    return Minted(key, text)


async def rotate(tx: Transaction, org_id: str, key_id: str, user_id: str, actor: Actor, at: datetime) -> Minted:
    """Give a key another secret; the one that it had is refused from the next request on. It is ``user_id``'s from now
    on, who is shown it: it ends with their membership.

    Raises ``NotFound``, ``Forbidden`` for a key above their own role, ``Conflict`` for one that has expired.
    """
    await tx.lock(tables.organizations, org_id)
    key = await tx.lock(tables.api_keys, org_id, _checked_id(key_id))  # its use is noted beside
    await _require_role(tx, org_id, user_id, key.role)
    if key.expires_at is not None and key.expires_at <= at:
        raise Conflict("The API key has expired; delete it and make another.")
    text = _minted(org_id, user_id, key_id)
    changed = replace(key, user_id=user_id, secret_hash=_hash(text), updated_at=at)
    rotated = await tx.replace(tables.api_keys, changed)
    await _note(tx, "api_key.rotated", rotated, actor, at)
    return Minted(rotated, text)


async def delete(tx: Transaction, org_id: str, key_id: str, actor: Actor, at: datetime) -> None:
    """End a key, of whatever role: it is refused from the next request on. Raises ``NotFound``."""
    organization = await tx.lock(tables.organizations, org_id)
    key = await get(tx, org_id, key_id)
    await tx.remove(tables.api_keys, org_id, key_id)
    await usage.count(tx, organization, Limits(), {"api_keys": -1})
    await _note(tx, "api_key.deleted", key, actor, at)


def _check(new: NewApiKey, at: datetime) -> None:
    if not 1 <= len(new.name) <= MAX_NAME or not new.name.isprintable() or new.name != new.name.strip():
        detail = f"The name of an API key is 1 to {MAX_NAME} printable characters, without spaces around them."
        raise InvalidInput(detail, problems=[Problem("/name", "api_key.name_invalid", detail)])
    if new.expires_at is not None and new.expires_at <= at:
        detail = "An API key expires in the future, or not at all."
        raise InvalidInput(detail, problems=[Problem("/expires_at", "api_key.expiry_invalid", detail)])


async def _require_role(tx: Transaction, org_id: str, user_id: str, role: Role) -> None:
    """Raise ``Forbidden`` unless the person may manage keys and has this role at least: as of now, because the
    organization is locked by whoever changes its members, too."""
    member = await tx.find(tables.memberships, org_id=org_id, user_id=user_id)
    if member is None or not allowed(member.role, Permission.MANAGE_API_KEYS):
        raise Forbidden
    if RANK[role] > RANK[member.role]:
        raise Forbidden("Nobody can be shown an API key that may do more than they may themselves.")


async def get(tx: Transaction, org_id: str, key_id: str) -> ApiKey:
    """Raises ``NotFound``, also for an id that none can have."""
    return await tx.get(tables.api_keys, org_id, _checked_id(key_id))


def _checked_id(text: str) -> str:
    if not is_id(text):
        raise NotFound
    return text


async def page(
    tx: Transaction, org_id: str, *, after: str | None, limit: int, newest_first: bool = False
) -> tuple[list[ApiKey], str | None]:
    """The organization's keys, oldest first or last, at most ``limit``; and the id after which to go on, if any."""
    # Ids sort by age.
    found = await tx.page(
        tables.api_keys,
        {"org_id": org_id},
        order=("-id" if newest_first else "id",),
        after=None if after is None else (after, org_id),
        limit=limit + 1,
    )
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def is_use_to_be_noted(key: ApiKey, at: datetime) -> bool:
    """Is it worth a write that the key is used now?"""
    return key.used_at is None or at - key.used_at >= USED_EVERY


async def note_use(tx: Transaction, org_id: str, key_id: str, at: datetime) -> None:
    """Remember that the key was used, unless that is known well enough, or it is gone."""
    if await tx.find(tables.api_keys, org_id=org_id, id=key_id) is None:
        return
    key = await tx.lock(tables.api_keys, org_id, key_id)  # it may be rotated beside
    if is_use_to_be_noted(key, at):
        await tx.replace(tables.api_keys, replace(key, used_at=at))


class KeyUses:
    """What one process remembers of the keys that were used lately."""

    def __init__(self, storage: Storage, in_background: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._storage = storage
        self._in_background = in_background
        self._org_ids: Recent[str, str] = Recent(4096)
        self._tried: Recent[str, datetime] = Recent(4096)

    def organization_of(self, text: str) -> str | None:
        """Whose key this is, if it was good lately; None of any other, whatever it is."""
        return self._org_ids.get(text)

    def note(self, text: str, key: ApiKey, at: datetime) -> None:
        """The key was used now, and found good. That is written down in the background, once an hour."""
        self._org_ids.put(text, key.org_id)
        if not is_use_to_be_noted(key, at):
            return
        tried = self._tried.get(key.id)
        if tried is None or at - tried >= _TRIED_EVERY:
            self._tried.put(key.id, at)
            self._in_background(self._write(key, at))

    async def _write(self, key: ApiKey, at: datetime) -> None:
        try:
            await self._storage.run(OrgScope(key.org_id), note_use, key.org_id, key.id, at)
        except OrgsteadError as error:  # nobody waits for it, and a later use will be noted instead
            _log.warning("api_key.use_not_noted", api_key=key.id, code=error.code)


async def _note(tx: Transaction, action: str, key: ApiKey, actor: Actor, at: datetime) -> None:
    facts: Mapping[str, Json] = {"api_key_id": key.id, "name": key.name, "role": key.role.value}
    await audit.record(tx, key.org_id, actor, action, facts, at=at)
    await events.emit(tx, key.org_id, action, facts, at=at)
