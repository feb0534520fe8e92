"""API keys: what one looks like, what is refused unseen, how many there may be, and that each change is noted."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from orgstead import api_keys, members
from orgstead.api_keys import KeyUses, Minted, NewApiKey
from orgstead.app import App
from orgstead.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidToken,
    NotFound,
    StatusConflict,
    StorageBusy,
    StorageError,
)
from orgstead.model import ApiKey, OrganizationStatus, Role
from orgstead.record_errors import QuotaExceeded
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Transaction
from tests import apps

pytestmark = pytest.mark.anyio

ULID = "01kcy7w2e4g8m3n5p7q9r1s3t5"


async def acme(app: App) -> tuple[str, str]:
    """An organization and its owner."""
    org_id = (await apps.created(app, "Acme")).organization.id
    (owner,) = await apps.rows(app, tables.memberships)
    return org_id, owner.user_id


async def made(app: App, org_id: str, user_id: str, **given: Any) -> Minted:
    new = NewApiKey(**{"name": "export", "role": Role.MEMBER, "expires_at": None, **given}, user_id=user_id)
    return await app.storage.run(OrgScope(org_id), api_keys.create, app.settings, org_id, new, apps.TESTER, app.clock())


async def deleted(app: App, key: ApiKey) -> None:
    await app.storage.run(OrgScope(key.org_id), api_keys.delete, key.org_id, key.id, apps.TESTER, app.clock())


async def rotated(app: App, key: ApiKey, user_id: str | None = None) -> Minted:
    by = user_id or key.user_id
    return await app.storage.run(
        OrgScope(key.org_id), api_keys.rotate, key.org_id, key.id, by, apps.TESTER, app.clock()
    )


async def joined(app: App, org_id: str, role: Role) -> str:
    """Another member."""
    user = apps.person(app)

    async def join(tx: Transaction) -> None:
        await tx.add(tables.users, user)
        await members.add(tx, app.settings, org_id, user.id, role, apps.TESTER, app.clock())

    await app.storage.run(apps.SCOPE, join)
    return user.id


def allow(app: App, limit: int | None) -> None:
    app.settings.plans["free"] = app.settings.plans["free"].model_copy(update={"max_api_keys": limit})


# --- the key itself ---------------------------------------------------------------------------------------------------


def a_key() -> str:
    return api_keys._minted(f"org_{ULID}", f"usr_{ULID}", f"key_{ULID}")


def test_a_key_says_whose_it_is_and_nothing_more() -> None:
    first, second = a_key(), a_key()
    assert first != second
    assert re.fullmatch(f"ok_({ULID}){{3}}[0-9a-hjkmnp-tv-z]{{39}}", first)
    claims = api_keys.parse(first)
    assert (claims.org_id, claims.user_id, claims.key_id) == (f"org_{ULID}", f"usr_{ULID}", f"key_{ULID}")
    assert claims.secret_hash != api_keys.parse(second).secret_hash


def test_the_secret_has_160_random_bits() -> None:
    secrets = {a_key()[-39:-7] for _ in range(500)}
    assert len(secrets) == 500
    for place in range(32):
        assert len({secret[place] for secret in secrets}) > 16


def test_any_other_character_is_refused_unseen() -> None:
    """The checksum finds every single error, and two digits that were exchanged."""
    text = a_key()
    for place in range(len(text)):
        for other in {"0", "z", text[place - 1]} - {text[place]}:
            with pytest.raises(InvalidToken):
                api_keys.parse(text[:place] + other + text[place + 1 :])
    swapped = text[:40] + text[41] + text[40] + text[42:]
    if swapped != text:
        with pytest.raises(InvalidToken):
            api_keys.parse(swapped)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda text: "",
        lambda text: "ok_",
        lambda text: text.upper(),
        lambda text: text + "\n",
        lambda text: text + "0",
        lambda text: text[:-1],
        lambda text: " " + text,
        lambda text: text.replace("ok_", "rt_"),
        lambda text: text[:3] + "8" + text[4:],
        lambda text: text[:-3] + "é" * 3,
    ],
)
def test_what_is_no_key_is_refused_unseen(spoilt: Any) -> None:
    with pytest.raises(InvalidToken):
        api_keys.parse(spoilt(a_key()))


@pytest.mark.parametrize(
    "text", ["", "key_", ULID, f"ses_{ULID}", f"key_{ULID}x", f"key_{ULID.upper()}", "key_8" + ULID[1:]]
)
def test_what_is_no_id(text: str) -> None:
    assert not api_keys.is_id(text)
    assert api_keys.is_id(f"key_{ULID}")


# --- making, rotating, deleting ---------------------------------------------------------------------------------------


async def test_a_key_is_made_rotated_and_deleted(app: App) -> None:
    org_id, user_id = await acme(app)
    first = await made(app, org_id, user_id, name="export ü", expires_at=app.clock() + timedelta(days=1))
    assert first.key.id == api_keys.parse(first.text).key_id
    assert api_keys.parse(first.text).is_of(first.key)
    second = await rotated(app, first.key)
    assert (second.key.id, second.key.version) == (first.key.id, 2)
    assert api_keys.parse(second.text).is_of(second.key)
    assert not api_keys.parse(first.text).is_of(second.key)
    assert await apps.rows(app, tables.api_keys) == [second.key]
    await deleted(app, second.key)
    assert await apps.rows(app, tables.api_keys) == []
    for gone in (deleted(app, second.key), rotated(app, second.key)):
        with pytest.raises(NotFound):
            await gone
    noted = ["api_key.created", "api_key.rotated", "api_key.deleted"]
    entries = (await apps.rows(app, tables.audit_entries))[1:]
    assert [entry.action for entry in entries] == noted
    assert [event.type for event in sorted(await apps.rows(app, tables.events), key=lambda e: e.id)][1:] == noted


async def test_nothing_that_is_stored_can_be_used_as_a_key(app: App) -> None:
    """What a stolen database has: the hash, and nothing that the key could be made of."""
    org_id, user_id = await acme(app)
    minted = await made(app, org_id, user_id)
    again = await rotated(app, minted.key)
    for table in tables.DIRECTORY:
        for row in await apps.rows(app, table):
            for text in (minted.text, again.text):
                assert text not in repr(row)
                assert text[-39:-7] not in repr(row)


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": " a"}, "/name"),
        ({"expires_at": timedelta(0)}, "/expires_at"),
        ({"expires_at": timedelta(days=-1)}, "/expires_at"),
    ],
)
async def test_what_no_key_can_be(app: App, given: dict[str, Any], pointer: str) -> None:
    org_id, user_id = await acme(app)
    if "expires_at" in given:
        given = {"expires_at": app.clock() + given["expires_at"]}
    with pytest.raises(InvalidInput) as caught:
        await made(app, org_id, user_id, **given)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert await apps.rows(app, tables.api_keys) == []


async def test_nobody_is_shown_a_key_above_their_own_role(app: App) -> None:
    """As of now, under the lock that changes of members take, too."""
    org_id, owner = await acme(app)
    admin, member = await joined(app, org_id, Role.ADMIN), await joined(app, org_id, Role.MEMBER)
    high = (await made(app, org_id, owner, role=Role.OWNER)).key
    low = (await made(app, org_id, admin, role=Role.ADMIN)).key
    for refused in (
        made(app, org_id, admin, role=Role.OWNER),
        made(app, org_id, member, role=Role.VIEWER),
        made(app, org_id, "usr_nobody", role=Role.VIEWER),
        rotated(app, high, admin),
        rotated(app, low, member),
        rotated(app, low, "usr_nobody"),
    ):
        with pytest.raises(Forbidden):
            await refused
    assert sorted(await apps.rows(app, tables.api_keys), key=lambda key: key.id) == [high, low]
    await app.storage.run(apps.SCOPE, members.change_role, org_id, admin, Role.MEMBER, apps.TESTER, app.clock())
    for refused in (made(app, org_id, admin, role=Role.VIEWER), rotated(app, low, admin)):
        with pytest.raises(Forbidden):
            await refused


async def test_a_key_is_whose_who_rotated_it_last(app: App) -> None:
    org_id, owner = await acme(app)
    admin = await joined(app, org_id, Role.ADMIN)
    key = (await made(app, org_id, owner, role=Role.MEMBER)).key
    minted = await rotated(app, key, admin)
    assert minted.key.user_id == api_keys.parse(minted.text).user_id == admin


async def test_an_expired_key_is_not_rotated(app: App) -> None:
    org_id, owner = await acme(app)
    soon = app.clock() + timedelta(minutes=1)
    key = (await made(app, org_id, owner, expires_at=soon)).key
    with pytest.raises(Conflict):
        await app.storage.run(OrgScope(org_id), api_keys.rotate, org_id, key.id, owner, apps.TESTER, soon)
    assert await apps.rows(app, tables.api_keys) == [key]


async def test_a_key_is_rotated_while_its_use_is_noted(app: App) -> None:
    """Both change the row; whoever comes second goes on with what the first has made of it."""
    org_id, owner = await acme(app)
    for _ in range(10):
        key = (await made(app, org_id, owner)).key
        at = app.clock()
        minted, _ = await asyncio.gather(
            rotated(app, key), app.storage.run(OrgScope(org_id), api_keys.note_use, org_id, key.id, at)
        )
        (stored,) = await apps.rows(app, tables.api_keys, id=key.id)
        assert (stored.secret_hash, stored.used_at) == (minted.key.secret_hash, at)
        await deleted(app, stored)


@pytest.mark.parametrize("status", [OrganizationStatus.PROVISIONING, OrganizationStatus.PURGING])
async def test_an_organization_that_is_made_or_purged_gets_none(damaged: App, status: OrganizationStatus) -> None:
    org_id, user_id = await acme(damaged)
    (organization,) = await apps.rows(damaged, tables.organizations)
    await damaged.storage.run(
        apps.SCOPE, lambda tx: tx.replace(tables.organizations, replace(organization, status=status))
    )
    with pytest.raises(StatusConflict):
        await made(damaged, org_id, user_id)


async def test_a_list_has_every_key_once_whichever_way_it_goes(app: App) -> None:
    org_id, user_id = await acme(app)
    keys = [(await made(app, org_id, user_id, name=f"n{number}")).key for number in range(5)]
    await apps.created(app, "Other")
    for newest_first in (False, True):
        found: list[ApiKey] = []
        after: str | None = None
        while True:
            part, after = await app.storage.read(
                OrgScope(org_id), api_keys.page, org_id, after=after, limit=2, newest_first=newest_first
            )
            found += part
            if after is None:
                break
        assert found == (keys[::-1] if newest_first else keys)


# --- how many ---------------------------------------------------------------------------------------------------------


async def test_the_limit_holds_and_what_is_deleted_makes_room(app: App) -> None:
    """``app`` ends with ``fsck``, which counts again."""
    org_id, user_id = await acme(app)
    allow(app, 2)
    first = await made(app, org_id, user_id)
    await made(app, org_id, user_id)
    with pytest.raises(QuotaExceeded) as caught:
        await made(app, org_id, user_id)
    assert (caught.value.what, caught.value.limit, caught.value.used) == ("api_keys", 2, 2)
    assert "allows 2 API keys" in caught.value.detail
    await rotated(app, first.key)
    await deleted(app, first.key)
    await made(app, org_id, user_id)
    allow(app, 0)
    with pytest.raises(QuotaExceeded):
        await made(app, org_id, user_id)
    assert len(await apps.rows(app, tables.api_keys)) == 2


async def test_a_hundred_at_once_at_the_limit_but_one(app: App) -> None:
    org_id, user_id = await acme(app)
    allow(app, 3)
    for _ in range(2):
        await made(app, org_id, user_id)

    async def tried() -> Minted:
        while True:
            try:
                return await made(app, org_id, user_id)
            except StorageBusy:
                continue

    ended = await asyncio.gather(*(tried() for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(one, Minted) for one in ended) == 1
    assert sum(isinstance(one, QuotaExceeded) for one in ended) == 99
    (organization,) = await apps.rows(app, tables.organizations)
    assert organization.api_keys == len(await apps.rows(app, tables.api_keys)) == 3


async def test_a_key_outlives_who_made_it_in_the_list_only(app: App) -> None:
    """Whoever leaves takes no key from the count: an administrator decides what becomes of it."""
    org_id, _ = await acme(app)
    user_id = await joined(app, org_id, Role.ADMIN)
    key = (await made(app, org_id, user_id)).key
    await app.storage.run(apps.SCOPE, members.remove, org_id, user_id, apps.TESTER, app.clock())
    assert await apps.rows(app, tables.api_keys) == [key]
    await deleted(app, key)


# --- when it was used -------------------------------------------------------------------------------------------------


async def test_use_is_noted_to_the_hour(app: App) -> None:
    org_id, user_id = await acme(app)
    minted = await made(app, org_id, user_id)
    uses, first = KeyUses(app.storage, app.in_background), app.clock()

    async def used(key: ApiKey, at: datetime) -> ApiKey:
        uses.note(minted.text, key, at)
        uses.note(minted.text, key, at)
        if app._tasks:
            await asyncio.wait(app._tasks)
        stored: list[ApiKey] = await apps.rows(app, tables.api_keys)
        return stored[0]

    assert uses.organization_of(minted.text) is None
    key = await used(minted.key, first)
    assert (key.used_at, key.version) == (first, 2)
    assert uses.organization_of(minted.text) == org_id
    assert await used(minted.key, first + timedelta(minutes=1)) == key  # another process has noted it meanwhile
    assert await used(key, first + timedelta(minutes=59)) == key
    later = first + timedelta(hours=1)
    key = await used(key, later)
    assert (key.used_at, key.version) == (later, 3)
    await deleted(app, key)
    uses.note(minted.text, key, later + timedelta(hours=2))
    assert app._tasks
    await asyncio.wait(app._tasks)
    assert await apps.rows(app, tables.api_keys) == []


async def test_use_that_cannot_be_noted_harms_nobody(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again after a minute, not with every request."""
    org_id, user_id = await acme(app)
    minted = await made(app, org_id, user_id)
    tried: list[str] = []

    async def failing(*_: Any) -> None:
        tried.append("again")
        raise StorageError

    monkeypatch.setattr(app.storage, "run", failing)
    uses, first = KeyUses(app.storage, app.in_background), app.clock()
    for seconds in (0, 1, 59, 60, 61):
        uses.note(minted.text, minted.key, first + timedelta(seconds=seconds))
        if app._tasks:
            await asyncio.wait(app._tasks)
    assert len(tried) == 2
    monkeypatch.undo()
