"""Promises 1, 2, 3 and 8: a unit of work is whole or nothing, may be repeated, and ends with its first error."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import weakref
from typing import Any

import pytest

from orgstead.errors import AlreadyExists, NotFound, OutcomeUnknown, StorageError, StorageReadOnly, TransactionEnded
from orgstead.model import Membership
from orgstead.storage.port import OrgScope, Storage, Transaction
from orgstead.storage.tables import memberships, operations, slugs
from tests.contract.work import SYSTEM, add_each, do, look, rows_of
from tests.engines import Database
from tests.rows import MORNING, org_id, sample


class OutOfLuck(Exception):
    """What a use case raises for reasons of its own."""


async def test_p01_what_work_returns_is_committed(storage: Storage) -> None:
    """Promise 1: ``run`` commits when the work returns."""
    org = org_id()
    row = sample(memberships, org)

    async def work(tx: Transaction, given: Membership, *, answer: int) -> int:
        await tx.add(memberships, given)
        return answer

    assert await storage.run(OrgScope(org), work, row, answer=42) == 42
    assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def test_p01_work_that_raises_leaves_nothing(storage: Storage) -> None:
    """Promise 1: ``run`` rolls back when the work raises, every verb of it, and raises the same error."""
    org = org_id()
    kept, removed, added = (sample(memberships, org) for _ in range(3))
    await storage.run(OrgScope(org), add_each, memberships, [kept, removed])
    error = OutOfLuck()

    async def work(tx: Transaction) -> None:
        await tx.add(memberships, added)
        await tx.replace(memberships, kept)
        await tx.remove(memberships, org, removed.user_id)
        raise error

    with pytest.raises(OutOfLuck) as raised:
        await storage.run(OrgScope(org), work)
    assert raised.value is error
    assert sorted(await rows_of(storage, OrgScope(org), memberships), key=repr) == sorted([kept, removed], key=repr)


async def test_p01_work_sees_what_it_wrote(storage: Storage) -> None:
    """Promise 1: a unit is one thing, so that its later verbs see what its earlier ones did."""
    org = org_id()
    row = sample(memberships, org)

    async def work(tx: Transaction) -> tuple[Any, ...]:
        await tx.add(memberships, row)
        stored = await tx.replace(memberships, row)
        seen = await tx.get(memberships, org, row.user_id)
        paged = await tx.page(memberships, {"org_id": org}, limit=5)
        await tx.remove(memberships, org, row.user_id)
        return stored, seen, paged, await tx.find(memberships, org_id=org, user_id=row.user_id)

    stored, seen, paged, gone = await storage.run(OrgScope(org), work)
    assert (seen, paged, gone) == (stored, [stored], None)
    assert stored.version == row.version + 1


async def test_p01_neighbours_in_time_do_not_share_a_fate(storage: Storage) -> None:
    """Promise 1: units that are committed together still fail alone."""
    org = org_id()
    rows = [sample(memberships, org) for _ in range(20)]

    async def work(tx: Transaction, number: int) -> None:
        await tx.add(memberships, rows[number])
        if number % 3 == 0:
            raise OutOfLuck

    async def unit(number: int) -> bool:
        try:
            await storage.run(OrgScope(org), work, number)
        except OutOfLuck:
            return False
        return True

    done = await asyncio.gather(*(unit(number) for number in range(len(rows))))
    assert done == [number % 3 != 0 for number in range(len(rows))]
    expected = {row.user_id for row, committed in zip(rows, done, strict=True) if committed}
    assert {row.user_id for row in await rows_of(storage, OrgScope(org), memberships)} == expected


async def test_p01_a_cancelled_caller_leaves_all_or_nothing(storage: Storage) -> None:
    """Promise 1: whenever the caller is cancelled, the unit is whole or absent, and the storage serves the next."""
    for units, turns in itertools.product(range(3), range(5)):
        org = org_id()
        rows = [sample(memberships, org) for _ in range(5)]
        task = asyncio.create_task(storage.run(OrgScope(org), add_each, memberships, rows))
        for _ in range(units):
            await do(storage, SYSTEM, "add", slugs, sample(slugs))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await do(storage, SYSTEM, "add", slugs, sample(slugs))
        found = len(await rows_of(storage, OrgScope(org), memberships))
        assert found in (0, 5), f"cancelled after {units} units and {turns} turns"
        if outcome is None:
            assert found == 5, "acknowledged, then lost"


async def test_p02_only_what_goes_through_the_transaction_counts_once(storage: Storage) -> None:
    """Promise 2: work may run more than once; its effect is there once."""
    org = org_id()
    first = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, first)
    attempts = 0

    async def work(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await tx.replace(memberships, await tx.lock(memberships, org, first.user_id))

    await asyncio.gather(*(storage.run(OrgScope(org), work) for _ in range(25)))
    stored = await look(storage, OrgScope(org), "get", memberships, org, first.user_id)
    assert stored.version == first.version + 25
    assert attempts >= 25


async def _break(tx: Transaction, org: str, first: Membership) -> None:
    """A write that succeeds, then a verb that fails, and whose error is swallowed."""
    await tx.add(memberships, sample(memberships, org))
    with pytest.raises(AlreadyExists):
        await tx.add(memberships, first)


async def test_p03_a_caught_error_still_ends_the_transaction(storage: Storage) -> None:
    """Promise 3: after an error nothing is committed, even if the error was caught."""
    org = org_id()
    first = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, first)

    async def work(tx: Transaction) -> str:
        await _break(tx, org, first)
        return "fine"

    with pytest.raises(TransactionEnded):
        await storage.run(OrgScope(org), work)
    assert await rows_of(storage, OrgScope(org), memberships) == [first]


@pytest.mark.parametrize(
    "verb",
    ["add", "add_all", "get", "find", "find_many", "replace", "remove", "lock", "take", "adjust", "page", "aggregate"],
)
async def test_p03_later_calls_raise_transaction_ended(storage: Storage, verb: str) -> None:
    """Promise 3: later calls raise ``TransactionEnded``, whichever verb."""
    org = org_id()
    first = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, first)
    key = (org, first.user_id)
    calls: dict[str, Any] = {
        "add": lambda tx: tx.add(memberships, sample(memberships, org)),
        "add_all": lambda tx: tx.add_all([]),
        "get": lambda tx: tx.get(memberships, *key),
        "find": lambda tx: tx.find(memberships, org_id=org, user_id=first.user_id),
        "find_many": lambda tx: tx.find_many(memberships, [key]),
        "replace": lambda tx: tx.replace(memberships, first),
        "remove": lambda tx: tx.remove(memberships, *key),
        "lock": lambda tx: tx.lock(memberships, *key),
        "take": lambda tx: tx.take(memberships, org_id=org, user_id=first.user_id),
        "adjust": lambda tx: tx.adjust(memberships, *key, deltas={"version": 1}),
        "page": lambda tx: tx.page(memberships, limit=1),
        "aggregate": lambda tx: tx.aggregate(memberships),
    }

    async def work(tx: Transaction) -> None:
        await _break(tx, org, first)
        with pytest.raises(TransactionEnded):
            await calls[verb](tx)

    with pytest.raises(TransactionEnded):
        await storage.run(OrgScope(org), work)
    assert await rows_of(storage, OrgScope(org), memberships) == [first]


async def test_p03_reading_verbs_that_fail_end_the_transaction_too(storage: Storage) -> None:
    """Promise 3: *any* error of a verb, ``NotFound`` of a ``get`` included."""
    org = org_id()

    async def work(tx: Transaction) -> None:
        await tx.add(memberships, sample(memberships, org))
        with pytest.raises(NotFound):
            await tx.get(memberships, org, "nobody")
        with pytest.raises(TransactionEnded):
            await tx.page(memberships, limit=1)

    with pytest.raises(TransactionEnded):
        await storage.run(OrgScope(org), work)
    assert await rows_of(storage, OrgScope(org), memberships) == []


async def test_p03_a_transaction_kept_beyond_its_unit_is_of_no_use(storage: Storage) -> None:
    """Promise 3, the end that is no error: what leaks out of a unit can neither read nor write."""
    org = org_id()
    leaked: list[Transaction] = []

    async def work(tx: Transaction) -> None:
        leaked.append(tx)

    await storage.run(OrgScope(org), work)
    await storage.read(OrgScope(org), work)
    for tx in leaked:
        with pytest.raises(TransactionEnded):
            await tx.find(memberships, org_id=org, user_id="nobody")
        with pytest.raises(TransactionEnded):
            await tx.add(memberships, sample(memberships, org))
    assert await rows_of(storage, OrgScope(org), memberships) == []


@pytest.mark.parametrize("verb", ["add", "add_all", "replace", "remove", "lock", "take", "adjust", "claim"])
@pytest.mark.parametrize("how", ["read", "scan"])
async def test_p01_reading_units_write_nothing(storage: Storage, how: str, verb: str) -> None:
    """``read`` and ``scan`` are for work that only reads: a writing verb raises ``StorageReadOnly``."""
    org = org_id()
    row = sample(memberships, org)
    await do(storage, OrgScope(org), "add", memberships, row)
    key = (org, row.user_id)
    calls: dict[str, Any] = {
        "add": lambda tx: tx.add(memberships, sample(memberships, org)),
        "add_all": lambda tx: tx.add_all([(memberships, [sample(memberships, org)])]),
        "replace": lambda tx: tx.replace(memberships, row),
        "remove": lambda tx: tx.remove(memberships, *key),
        "lock": lambda tx: tx.lock(memberships, *key),
        "take": lambda tx: tx.take(memberships, org_id=org, user_id=row.user_id),
        "adjust": lambda tx: tx.adjust(memberships, *key, deltas={"version": 1}),
        "claim": claim_operations,
    }

    with pytest.raises(StorageReadOnly):
        await getattr(storage, how)(OrgScope(org), calls[verb])
    assert await rows_of(storage, OrgScope(org), memberships) == [row]


async def claim_operations(tx: Transaction) -> None:
    await tx.claim(operations, {}, due=MORNING, until=MORNING, owner="worker", limit=1)


@pytest.mark.parametrize("how", ["read", "scan"])
async def test_p01_reading_units_see_one_snapshot(storage: Storage, how: str) -> None:
    """``read`` and ``scan`` are one consistent snapshot: a pair that is always written together is read together."""
    claims = [sample(slugs, org_id()) for _ in range(2)]
    await storage.run(SYSTEM, add_each, slugs, claims)
    stop = asyncio.Event()

    async def bump(tx: Transaction) -> None:
        for claim in claims:
            await tx.replace(slugs, await tx.get(slugs, claim.slug))

    async def keep_writing() -> None:
        while not stop.is_set():
            await storage.run(SYSTEM, bump)
            await asyncio.sleep(0)

    async def both(tx: Transaction) -> tuple[int, int]:
        first = await tx.get(slugs, claims[0].slug)
        return first.version, (await tx.get(slugs, claims[1].slug)).version

    writer = asyncio.create_task(keep_writing())
    try:
        seen = [await getattr(storage, how)(SYSTEM, both) for _ in range(60)]
    finally:
        stop.set()
        await writer
    assert all(first == second for first, second in seen), seen


async def test_p08_work_given_to_a_closing_storage_is_whole_or_refused(fresh: Database) -> None:
    """Promise 8: what was not committed is reported as "nothing happened"; what was acknowledged is there."""
    org = org_id()
    rows = [sample(memberships, org) for _ in range(30)]
    async with fresh.opened() as storage:
        units = [asyncio.create_task(storage.run(OrgScope(org), add_each, memberships, [row])) for row in rows]
        await asyncio.sleep(0)
        await storage.close()
        outcomes = await asyncio.gather(*units, return_exceptions=True)
        with pytest.raises(StorageError):
            await storage.run(OrgScope(org), add_each, memberships, [sample(memberships, org)])
        with pytest.raises(StorageError):
            await rows_of(storage, OrgScope(org), memberships)
    acknowledged = {row.user_id for row, outcome in zip(rows, outcomes, strict=True) if outcome is None}
    for outcome in outcomes:
        assert outcome is None or (isinstance(outcome, StorageError) and not isinstance(outcome, OutcomeUnknown)), (
            outcome
        )
    async with fresh.opened() as storage:
        assert {row.user_id for row in await rows_of(storage, OrgScope(org), memberships)} == acknowledged


class Held:
    """Something that a unit of work has in a variable."""


async def test_what_a_refused_read_had_is_freed_at_once(storage: Storage) -> None:
    """An error that is held by what it holds keeps all of it, a request's body too, until the collector comes by."""
    org = org_id()
    kept: list[weakref.ref[Held]] = []

    async def work(tx: Transaction) -> None:
        held = Held()
        kept.append(weakref.ref(held))
        await tx.get(memberships, org, "nobody")

    gc.disable()
    try:
        with contextlib.suppress(NotFound):
            await storage.read(OrgScope(org), work)
        assert [ref() for ref in kept] == [None]
    finally:
        gc.enable()
