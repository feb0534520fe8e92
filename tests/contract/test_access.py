"""``access``: the one hot read. Each part or None, always as of the latest commit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from orgstead.model import API_KEY_ID, Access, OrganizationStatus, Role
from orgstead.storage.port import OrgScope, Scope, Storage, Table, Transaction
from orgstead.storage.tables import api_keys, memberships, organizations, placements, sessions, users
from tests.contract.work import SYSTEM, do
from tests.engines import Database
from tests.rows import key_of, org_id, sample, token


class Caller:
    """A person, logged in to an organization."""

    def __init__(self) -> None:
        org = org_id()
        self.user = sample(users, epoch=7)
        self.organization = sample(organizations, org, status=OrganizationStatus.ACTIVE)
        self.placement = sample(placements, org)
        self.membership = sample(memberships, org, user_id=self.user.id, role=Role.OWNER)
        self.session = sample(sessions, org, user_id=self.user.id)
        self.key = (org, self.user.id, self.session.id)
        self.rows: dict[str, tuple[Any, Any]] = {
            "organization": (organizations, self.organization),
            "placement": (placements, self.placement),
            "membership": (memberships, self.membership),
            "session": (sessions, self.session),
            "user_epoch": (users, self.user),
        }

    @property
    def access(self) -> Access:
        return Access(self.organization, self.placement, self.membership, self.session, self.user.epoch)

    async def enter(self, tx: Transaction, *, without: str = "") -> None:
        for part, (table, row) in self.rows.items():
            if part != without:
                await tx.add(table, row)


async def test_access_gives_every_part(storage: Storage) -> None:
    """Everything a request must know about its caller, as stored."""
    caller = Caller()
    await storage.run(SYSTEM, caller.enter)
    assert await storage.access(*caller.key) == caller.access


async def test_access_of_nobody(storage: Storage) -> None:
    """Anything that does not exist is None, and everything may be."""
    assert await storage.access("none", "none", "none") == Access(None, None, None, None, None)


@pytest.mark.parametrize("part", ["organization", "placement", "membership", "session", "user_epoch"])
async def test_access_without_one_part(storage: Storage, part: str) -> None:
    """Each part is there or None by itself, before it comes and after it goes."""
    caller = Caller()
    await storage.run(SYSTEM, caller.enter, without=part)
    lacking = replace(caller.access, **{part: None})
    assert await storage.access(*caller.key) == lacking
    table, row = caller.rows[part]
    await do(storage, SYSTEM, "add", table, row)
    assert await storage.access(*caller.key) == caller.access
    await do(storage, SYSTEM, "remove", table, *key_of(table, row))
    assert await storage.access(*caller.key) == lacking


async def test_access_with_an_api_key(storage: Storage) -> None:
    """Where the credential is an API key, there is no session; and a key is one organization's."""
    caller, other = Caller(), Caller()
    for one in (caller, other):
        await storage.run(SYSTEM, one.enter)
    key = sample(api_keys, caller.key[0], id=token(API_KEY_ID + "x"), user_id=caller.user.id)
    twin = sample(api_keys, other.key[0], id=key.id, user_id=other.user.id)
    asked = (*caller.key[:2], key.id)
    without = replace(caller.access, session=None)
    assert await storage.access(*asked) == without
    for row in (key, twin):
        await do(storage, SYSTEM, "add", api_keys, row)
    assert await storage.access(*asked) == replace(without, api_key=key)
    assert (await storage.access(other.key[0], caller.user.id, key.id)).api_key == twin
    assert await storage.access(*caller.key) == caller.access
    rotated = await do(storage, OrgScope(caller.key[0]), "replace", api_keys, replace(key, secret_hash="other"))
    assert (await storage.access(*asked)).api_key == rotated
    await do(storage, OrgScope(caller.key[0]), "remove", api_keys, *key_of(api_keys, key))
    assert await storage.access(*asked) == without


async def test_access_with_sessions_and_api_keys_at_once(storage: Storage) -> None:
    """Each gets what its credential is, whatever those have who ask at the same moment."""
    callers = [Caller() for _ in range(8)]
    wanted: dict[tuple[str, str, str], Access] = {}
    for caller in callers:
        await storage.run(SYSTEM, caller.enter)
        key = sample(api_keys, caller.key[0], id=token(API_KEY_ID + "x"), user_id=caller.user.id)
        await do(storage, SYSTEM, "add", api_keys, key)
        wanted[caller.key] = caller.access
        wanted[(*caller.key[:2], key.id)] = replace(caller.access, session=None, api_key=key)
        wanted[(*caller.key[:2], API_KEY_ID)] = replace(caller.access, session=None)
    wanted["none", "none", API_KEY_ID + "none"] = Access(None, None, None, None, None)
    wanted[callers[0].key[0], "\0", API_KEY_ID + "\ud800"] = Access(
        callers[0].organization, callers[0].placement, None, None, None
    )
    asked = [*wanted, *reversed(wanted)]
    found = await asyncio.gather(*(storage.access(*key) for key in asked))
    assert found == [wanted[key] for key in asked]


async def test_access_of_another_organization(storage: Storage) -> None:
    """The twin of promise 4: a caller of ours who names another organization is no member of it."""
    ours, theirs = Caller(), Caller()
    for caller in (ours, theirs):
        await storage.run(SYSTEM, caller.enter)
    crossed = await storage.access(theirs.key[0], ours.user.id, ours.session.id)
    assert crossed.membership is None
    assert crossed.organization == theirs.organization


_CHANGED: dict[str, dict[str, Any]] = {
    "organization": {"status": OrganizationStatus.SUSPENDED},
    "placement": {"epoch": 9},
    "membership": {"role": Role.VIEWER},
    "session": {"user_epoch": 8},
    "user_epoch": {"epoch": 8},
}


async def _replaced(tx: Transaction, table: Table[Any], old: Any, new: Any) -> None:
    await tx.replace(table, new)


async def _replaced_among_many(tx: Transaction, table: Table[Any], old: Any, new: Any) -> None:
    await tx.replace_many(table, [new])


async def _removed_and_added(tx: Transaction, table: Table[Any], old: Any, new: Any) -> None:
    await tx.remove(table, *key_of(table, old))
    await tx.add(table, new)


async def _removed_among_many_and_added(tx: Transaction, table: Table[Any], old: Any, new: Any) -> None:
    await tx.remove_many(table, [key_of(table, old)])
    await tx.add_many(table, [new])


async def _taken_and_added(tx: Transaction, table: Table[Any], old: Any, new: Any) -> None:
    await tx.take(table, **dict(zip(table.key, key_of(table, old), strict=True)))
    await tx.add_all([(table, [new])])


async def _adjusted(tx: Transaction, table: Table[Any], old: Any, new: Any) -> None:
    number = next(name for name in ("epoch", "user_epoch", "members") if name in table.columns)
    await tx.adjust(table, *key_of(table, old), deltas={number: 3})


_WAYS = [
    _replaced,
    _replaced_among_many,
    _removed_and_added,
    _removed_among_many_and_added,
    _taken_and_added,
    _adjusted,
]
_CASES = [(part, way) for part in _CHANGED for way in _WAYS if (part, way) != ("membership", _adjusted)]  # no numbers


@pytest.mark.parametrize(("part", "change"), _CASES)
async def test_access_sees_a_change_however_it_is_made(storage: Storage, part: str, change: Any) -> None:
    """Whatever verb changes whatever row, in whatever scope, shows in the very next answer; and nothing else does."""
    caller, other = Caller(), Caller()
    for one in (caller, other):
        await storage.run(SYSTEM, one.enter)
        assert [await storage.access(*one.key) for _ in range(2)] == [one.access] * 2
    table, row = caller.rows[part]
    key = key_of(table, row)
    scopes: list[Scope] = [SYSTEM] if table.scope is None else [SYSTEM, OrgScope(caller.key[0])]
    for scope in scopes:
        for wanted in (replace(row, **_CHANGED[part]), row):
            old = await do(storage, SYSTEM, "get", table, *key)
            new = replace(wanted, version=old.version) if table.versioned else wanted
            await storage.run(scope, change, table, old, new)
            found = await storage.access(*caller.key)
            stored = await do(storage, SYSTEM, "get", table, *key)
            assert getattr(found, part) == (stored.epoch if part == "user_epoch" else stored)
            assert replace(found, **{part: None}) == replace(caller.access, **{part: None})
            assert await storage.access(*other.key) == other.access


async def test_access_sees_changes_of_a_session_that_is_another_organizations(storage: Storage) -> None:
    """A session is found by its id alone, whosever it is, and even where it changes hands."""
    ours, theirs = Caller(), Caller()
    for caller in (ours, theirs):
        await storage.run(SYSTEM, caller.enter)
    membership = sample(memberships, theirs.key[0], user_id=ours.user.id)
    await do(storage, SYSTEM, "add", memberships, membership)
    crossed = (theirs.key[0], ours.user.id, ours.session.id)
    session = ours.session
    for change in ({"user_epoch": 8}, {"org_id": theirs.key[0]}, {"user_epoch": 9}, {"org_id": ours.key[0]}):
        for key in (crossed, ours.key):
            assert (await storage.access(*key)).session == session
        session = await do(storage, SYSTEM, "replace", sessions, replace(session, **change))
        for key in (crossed, ours.key):
            assert (await storage.access(*key)).session == session


async def test_access_sees_the_latest_commit(storage: Storage) -> None:
    """What a commit changed, or a rollback did not, shows in the very next answer."""
    caller = Caller()
    await storage.run(SYSTEM, caller.enter)
    await storage.access(*caller.key)
    for status in (OrganizationStatus.SUSPENDED, OrganizationStatus.ACTIVE, OrganizationStatus.CLOSED):
        seen = (await storage.access(*caller.key)).organization
        assert seen is not None
        new = await do(storage, OrgScope(caller.key[0]), "replace", organizations, replace(seen, status=status))
        assert (await storage.access(*caller.key)).organization == new

    async def demote(tx: Transaction) -> None:
        await tx.replace(memberships, replace(caller.membership, role=Role.VIEWER))
        raise LookupError

    with pytest.raises(LookupError):
        await storage.run(OrgScope(caller.key[0]), demote)
    assert (await storage.access(*caller.key)).membership == caller.membership


async def test_access_of_many_at_once(storage: Storage) -> None:
    """Whoever asks at the same moment as others gets what is theirs, also where it is nothing."""
    callers = [Caller() for _ in range(20)]
    for caller in callers[:-2]:
        await storage.run(SYSTEM, caller.enter)
    strange = {("", "", ""), ("é", "İ", "\U0001f600"), ("none",) * 3, ("NULL", "{}", '","')}
    strange |= {("a\0", "b", "c"), ("a", "b\0", "c"), ("a", "b", "\ud800"), ("\ud800", "\udfff", "\0")}
    wanted = {caller.key: caller.access for caller in callers[:-2]}
    wanted |= dict.fromkeys(strange | {caller.key for caller in callers[-2:]}, Access(None, None, None, None, None))
    first, second = callers[:2]
    wanted[first.key[0], "\0", "\ud800"] = Access(first.organization, first.placement, None, None, None)
    wanted[first.key[0], second.key[1], first.key[2]] = Access(
        first.organization, first.placement, None, first.session, second.user.epoch
    )
    asked = [*wanted, *wanted, *reversed(wanted)]
    found = await asyncio.gather(*(storage.access(*key) for key in asked))
    assert found == [wanted[key] for key in asked]


async def test_access_of_many_at_once_while_some_leave(storage: Storage) -> None:
    """Who does not wait for the answer takes nobody else's with them."""
    callers = [Caller() for _ in range(20)]
    for caller in callers:
        await storage.run(SYSTEM, caller.enter)
    asking = [asyncio.create_task(storage.access(*caller.key)) for caller in callers]
    await asyncio.sleep(0)
    for task in asking[::3]:
        task.cancel()
    found = await asyncio.gather(*asking, return_exceptions=True)
    for caller, task, answer in zip(callers, asking, found, strict=True):
        assert task.cancelled() or answer == caller.access
    assert await storage.access(*callers[0].key) == callers[0].access


async def test_access_sees_what_was_committed_before_it_was_asked(storage: Storage) -> None:
    """Also when others are asking all the time, whose answer may be older."""
    caller = Caller()
    await storage.run(SYSTEM, caller.enter)
    stop = asyncio.Event()

    async def keep_asking() -> None:
        while not stop.is_set():
            await storage.access(*caller.key)
            await asyncio.sleep(0)

    others = [asyncio.create_task(keep_asking()) for _ in range(8)]
    try:
        organization = caller.organization
        for _ in range(30):
            organization = await do(storage, SYSTEM, "replace", organizations, organization)
            seen = await storage.access(*caller.key)
            assert seen.organization == organization
    finally:
        stop.set()
        await asyncio.gather(*others)


async def test_closing_finishes_the_reads_that_were_accepted(fresh: Database) -> None:
    async with fresh.opened() as storage:
        caller = Caller()
        await storage.run(SYSTEM, caller.enter)
        asking = []
        for _ in range(6):
            asking += [asyncio.create_task(storage.access(*caller.key)) for _ in range(3)]
            await asyncio.sleep(0)
        await storage.close()
        assert await asyncio.gather(*asking) == [caller.access] * len(asking)


async def test_access_is_one_snapshot(storage: Storage) -> None:
    """One round trip is one moment: parts that are written together are read together."""
    caller = Caller()
    await storage.run(SYSTEM, caller.enter)
    stop = asyncio.Event()

    async def bump(tx: Transaction) -> None:
        for table, row in (caller.rows["organization"], caller.rows["session"]):
            await tx.replace(table, await tx.get(table, *key_of(table, row)))

    async def keep_writing() -> None:
        while not stop.is_set():
            await storage.run(SYSTEM, bump)
            await asyncio.sleep(0)

    writer = asyncio.create_task(keep_writing())
    try:
        seen = []
        for _ in range(60):
            seen.append(await storage.access(*caller.key))
            await asyncio.sleep(0)
    finally:
        stop.set()
        await writer
    pairs = [(access.organization, access.session) for access in seen]
    assert all(one and other and one.version == other.version for one, other in pairs)
