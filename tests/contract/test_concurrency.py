"""The races that the promises decide, run with real tasks on real transactions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from orgstead.errors import AlreadyExists, LastOwner, NotFound, OrgsteadError, StaleRow
from orgstead.model import PlacementKind, Role
from orgstead.storage.port import OrgScope, Storage, Transaction
from orgstead.storage.tables import memberships, operations, organizations, records, slots, slugs, users
from tests.contract.work import KINDS, SYSTEM, add_each, do, enter, look, rows_of, slots_of, space_of
from tests.rows import MORNING, key_of, org_id, sample, token

T = TypeVar("T")


async def race(*units: Awaitable[T]) -> list[T | BaseException]:
    """All at once; what each returned or raised. Only errors of ours are an outcome."""
    outcomes = await asyncio.gather(*units, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, OrgsteadError):
            raise outcome
    return outcomes


async def test_race_of_replaces_loses_no_update(storage: Storage) -> None:
    """Promise 1, ``replace``: of those who read the same version one writes; the others hear ``StaleRow``."""
    org = org_id()
    row = sample(operations, org, attempts=0)
    await do(storage, OrgScope(org), "add", operations, row)
    written = 0
    for _ in range(5):
        seen = await look(storage, OrgScope(org), "get", operations, *key_of(operations, row))
        new = replace(seen, attempts=seen.attempts + 1)
        outcomes = await race(*(do(storage, OrgScope(org), "replace", operations, new) for _ in range(10)))
        assert Counter(type(outcome).__name__ for outcome in outcomes) == {"Operation": 1, "StaleRow": 9}
        written += 1
    found = await look(storage, OrgScope(org), "get", operations, *key_of(operations, row))
    assert (found.attempts, found.version) == (written, written + 1)


async def test_race_of_units_on_one_row_adds_up(storage: Storage) -> None:
    """Promise 2, ``lock``: who locks a row, reads it and writes it, does so one after the other."""
    org = org_id()
    row = sample(operations, org, attempts=0)
    await do(storage, OrgScope(org), "add", operations, row)

    async def increment(tx: Transaction) -> None:
        seen = await tx.lock(operations, *key_of(operations, row))
        await tx.replace(operations, replace(seen, attempts=seen.attempts + 1))

    outcomes = await race(*(storage.run(OrgScope(org), increment) for _ in range(30)))
    assert outcomes == [None] * 30
    found = await look(storage, OrgScope(org), "get", operations, *key_of(operations, row))
    assert found.attempts == 30


async def test_race_of_unlocked_units_is_told(storage: Storage) -> None:
    """Promise 1: units that read and write without a lock either add up or hear of it; none is lost in silence."""
    org = org_id()
    row = sample(operations, org, attempts=0)
    await do(storage, OrgScope(org), "add", operations, row)

    async def increment(tx: Transaction) -> None:
        seen = await tx.get(operations, *key_of(operations, row))
        await tx.replace(operations, replace(seen, attempts=seen.attempts + 1))

    outcomes = await race(*(storage.run(OrgScope(org), increment) for _ in range(30)))
    assert all(outcome is None or isinstance(outcome, StaleRow) for outcome in outcomes)
    found = await look(storage, OrgScope(org), "get", operations, *key_of(operations, row))
    assert found.attempts == outcomes.count(None) > 0


async def test_race_of_owners_who_leave_keeps_the_last(storage: Storage) -> None:
    """Promise 1, ``lock``: a rule over several rows holds when each who may break it locks the same row first."""
    for count in (2, 2, 2, 8):
        org = org_id()
        owners = [sample(memberships, org, role=Role.OWNER) for _ in range(count)]
        await do(storage, OrgScope(org), "add", organizations, sample(organizations, org))
        await storage.run(OrgScope(org), add_each, memberships, owners)

        async def leave(tx: Transaction, org: str, user_id: str) -> None:
            await tx.lock(organizations, org)
            if len(await tx.page(memberships, {"role": Role.OWNER}, limit=2)) < 2:
                raise LastOwner
            await tx.remove(memberships, org, user_id)

        outcomes = await race(*(storage.run(OrgScope(org), leave, org, owner.user_id) for owner in owners))
        assert Counter(type(outcome) for outcome in outcomes) == {type(None): count - 1, LastOwner: 1}
        assert len(await rows_of(storage, OrgScope(org), memberships)) == 1


async def test_race_to_take_has_one_winner(storage: Storage) -> None:
    """``take``: at most one caller ever gets the row."""
    for _ in range(5):
        person = sample(users)
        await do(storage, SYSTEM, "add", users, person)
        by_key = [do(storage, SYSTEM, "take", users, id=person.id) for _ in range(8)]
        by_mail = [do(storage, SYSTEM, "take", users, email_key=person.email_key) for _ in range(8)]
        outcomes = await race(*by_key, *by_mail)
        assert sorted(outcomes, key=repr) == sorted([person, *[None] * 15], key=repr)


async def test_race_to_claim_gives_each_row_to_one(storage: Storage) -> None:
    """``claim``: no two owners hold the same row, and none is left behind."""
    org = org_id()
    rows = [sample(operations, org, lease_until=MORNING, lease_owner=None) for _ in range(30)]
    await storage.run(OrgScope(org), add_each, operations, rows)

    async def worker(name: str) -> list[Any]:
        mine: list[Any] = []
        lease = {"due": MORNING, "until": MORNING + timedelta(minutes=1), "owner": name, "limit": 4}
        while claimed := await do(storage, SYSTEM, "claim", operations, {"org_id": org}, **lease):
            assert all(row.lease_owner == name for row in claimed)
            mine += claimed
            assert len(mine) <= len(rows), "the same rows again and again"
        return mine

    shares = await asyncio.gather(*(worker(f"worker {number}") for number in range(6)))
    claimed = [row for share in shares for row in share]
    assert Counter(row.id for row in claimed) == Counter(row.id for row in rows)
    assert sorted(claimed, key=repr) == sorted(await rows_of(storage, OrgScope(org), operations), key=repr)


async def test_race_for_a_slug_has_one_winner(storage: Storage) -> None:
    """Promise 6: of those who add the same key one does; the others hear its constraint."""
    slug = token("slug")
    claims = [sample(slugs, org_id(), slug=slug) for _ in range(50)]
    outcomes = await race(*(do(storage, SYSTEM, "add", slugs, claim) for claim in claims))
    assert outcomes.count(None) == 1
    assert {error.constraint for error in outcomes if isinstance(error, AlreadyExists)} == {"slugs.key"}
    assert await look(storage, SYSTEM, "get", slugs, slug) == claims[outcomes.index(None)]


async def test_race_for_a_unique_value_has_one_winner(storage: Storage) -> None:
    """Promise 6: the same of a unique constraint, with the rest of each unit undone."""
    email = token("mail")
    people = [sample(users, email_key=email) for _ in range(30)]

    async def sign_up(tx: Transaction, person: Any) -> None:
        await tx.add(memberships, sample(memberships, org_id(), user_id=person.id))
        await tx.add(users, person)

    outcomes = await race(*(storage.run(SYSTEM, sign_up, person) for person in people))
    assert outcomes.count(None) == 1
    assert {error.constraint for error in outcomes if isinstance(error, AlreadyExists)} == {"users.email"}
    joined = [await rows_of(storage, SYSTEM, memberships, user_id=person.id) for person in people]
    assert [bool(rows) for rows in joined] == [outcome is None for outcome in outcomes]


@pytest.mark.parametrize("kind", KINDS)
async def test_race_for_a_quota_never_exceeds_it(storage: Storage, kind: PlacementKind) -> None:
    """``adjust`` with ``at_most``: exactly as many get in as there is room for, and the data agrees."""
    space = space_of(org_id(), kind)
    await storage.create_space(space)

    async def store(tx: Transaction) -> bool:
        key, room = (space.org_id, space.epoch, 0), {"records": 10}
        if not await tx.adjust(slots, *key, deltas={"records": 1, "bytes": 7}, at_most=room):
            return False
        await tx.add(records, sample(records, space.org_id))
        return True

    outcomes = await race(*(storage.run(space, store) for _ in range(40)))
    assert Counter(outcomes) == {True: 10, False: 30}
    assert len(await rows_of(storage, space, records)) == 10
    slot = (await slots_of(storage, space))[1, 0]
    assert (slot.records, slot.bytes) == (10, 70)


@pytest.mark.parametrize("kind", KINDS)
async def test_race_of_writers_with_a_closing_space(storage: Storage, kind: PlacementKind) -> None:
    """Promise 9: when ``close_space`` returns no writer is left, none comes, and the counters equal the rows."""
    space = space_of(org_id(), kind)
    await storage.create_space(space, slots=4)
    closed = asyncio.Event()
    late: list[bool] = []

    async def store(tx: Transaction, slot: int) -> bool:
        if not await enter(tx, space, slot=slot):
            return False
        await tx.add(records, sample(records, space.org_id))
        return True

    async def writer(number: int) -> None:
        while not closed.is_set():
            await storage.run(space, store, number % 4)
        late.append(await storage.run(space, store, number % 4))

    async def close() -> int:
        for _ in range(20):
            await asyncio.sleep(0)
        await storage.close_space(space)
        count = len(await rows_of(storage, space, records, limit=10_000))
        closed.set()
        return count

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(writer(number))
        count = group.create_task(close())
    found = await rows_of(storage, space, records, limit=10_000)
    assert late == [False] * 8
    assert len(found) == count.result()
    assert sum(slot.records for slot in (await slots_of(storage, space)).values()) == len(found)


async def test_race_of_removals_has_one_winner(storage: Storage) -> None:
    """Promise 6: of those who remove the same row one does; the others hear ``NotFound``."""
    org = org_id()
    row = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, row)
    remove = [do(storage, OrgScope(org), "remove", memberships, *key_of(memberships, row)) for _ in range(12)]
    outcomes = await race(*remove)
    assert Counter(type(outcome) for outcome in outcomes) == {type(None): 1, NotFound: 11}
