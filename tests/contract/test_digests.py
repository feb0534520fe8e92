"""Promise 10: equal rows have equal digests, on every engine and in every placement."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orgstead.model import Record, Role
from orgstead.storage.port import Digest, OrgScope, Scope, Storage, Transaction
from orgstead.storage.tables import events, memberships, records
from tests.contract.work import KINDS, POOLED, SYSTEM, add_each, do, space_of
from tests.rows import MORNING, changed, key_of, org_id, sample

ROWS = 12


async def placed(storage: Storage, org: str) -> list[Scope]:
    """The organization's two spaces, as in the middle of a move."""
    spaces = [space_of(org, kind, epoch) for epoch, kind in enumerate(KINDS, start=1)]
    for space in spaces:
        await storage.create_space(space)
    return list(spaces)


async def test_p10_equal_rows_in_both_kinds_of_space(storage: Storage) -> None:
    """Promise 10: count and hash do not know the placement, nor the order in which the rows came."""
    org = org_id()
    pooled, dedicated = await placed(storage, org)
    rows = [sample(records, org, data={"b": [1, 1.5, None], "a": {"y": "ä😀", "x": True}}) for _ in range(ROWS)]
    await storage.run(pooled, add_each, records, rows)
    turned = [replace(row, data=dict(reversed(row.data.items()))) for row in reversed(rows)]
    await storage.run(dedicated, add_each, records, turned)
    digest = await storage.digest(pooled, records)
    assert digest.count == ROWS
    assert digest == await storage.digest(dedicated, records)
    assert digest.hash == digest.hash.lower()
    assert int(digest.hash, 16) > 0


async def test_p10_the_way_to_the_rows_does_not_count(storage: Storage) -> None:
    """Promise 10: the digest is of what is there, not of what happened."""
    org = org_id()
    pooled, dedicated = await placed(storage, org)
    final = sample(records, org, version=3)
    await do(storage, pooled, "add", records, final)
    await do(storage, dedicated, "add", records, sample(records, org))
    await do(storage, dedicated, "add", records, replace(changed(records, final), version=1))
    for version in (1, 2):
        await do(storage, dedicated, "replace", records, replace(final, version=version))
    assert (await storage.digest(dedicated, records)) != await storage.digest(pooled, records)
    for row in await storage.run(dedicated, _others, final.id):
        await do(storage, dedicated, "remove", records, *key_of(records, row))
    assert await storage.digest(dedicated, records) == await storage.digest(pooled, records)


async def _others(tx: Transaction, id: str) -> list[Any]:
    return [row for row in await tx.page(records, limit=100) if row.id != id]


DIFFERENCES: dict[str, dict[str, Any]] = {
    "a letter's case": {"id": "A"},
    "another key's value": {"collection": "notes "},
    "an integer": {"bytes": 8},
    "a version": {"version": 2},
    "a millisecond": {"created_at": MORNING + timedelta(milliseconds=1)},
    "two times swapped": {"created_at": MORNING + timedelta(seconds=1), "updated_at": MORNING},
    "a JSON value": {"data": {"x": 2}},
    "a JSON type": {"data": {"x": "1"}},
    "a JSON float": {"data": {"x": 1.0}},
    "a JSON boolean": {"data": {"x": True}},
    "a JSON key": {"data": {"y": 1}},
    "a JSON null": {"data": {"x": 1, "y": None}},
    "a JSON nesting": {"data": {"x": [1]}},
}


@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES)
async def test_p10_one_value_makes_another_digest(storage: Storage, difference: dict[str, Any]) -> None:
    """Promise 10: any one value that differs in any one row makes another hash of the same count."""
    org = org_id()
    pooled, dedicated = await placed(storage, org)
    row = sample(
        records,
        org,
        collection="notes",
        id="a",
        data={"x": 1},
        bytes=7,
        created_at=MORNING,
        updated_at=MORNING + timedelta(seconds=1),
    )
    common = [sample(records, org) for _ in range(3)]
    await storage.run(pooled, add_each, records, [*common, row])
    await storage.run(dedicated, add_each, records, [*common, replace(row, **difference)])
    one, other = await storage.digest(pooled, records), await storage.digest(dedicated, records)
    assert one.count == other.count == 4
    assert one.hash != other.hash


async def test_p10_values_do_not_slide_between_rows(storage: Storage) -> None:
    """Promise 10: the hash is of rows, not of a heap of values: two that swap a value make another hash."""
    org = org_id()
    pooled, dedicated = await placed(storage, org)
    one, two = (sample(records, org) for _ in range(2))
    await storage.run(pooled, add_each, records, [one, two])
    await storage.run(dedicated, add_each, records, [replace(one, data=two.data), replace(two, data=one.data)])
    assert (await storage.digest(pooled, records)).hash != (await storage.digest(dedicated, records)).hash


async def test_p10_nothing_has_a_digest(storage: Storage) -> None:
    """Promise 10: no rows are equal to no rows; one row is not."""
    org = org_id()
    pooled, dedicated = await placed(storage, org)
    empty = await storage.digest(pooled, records)
    assert empty.count == 0
    assert empty == await storage.digest(dedicated, records) == await storage.digest(OrgScope(org), events)
    await do(storage, pooled, "add", records, sample(records, org))
    assert (await storage.digest(pooled, records)).hash != empty.hash


CANONICAL = [
    b'["org_digest","notes","1",{"":null,"a":{"b":[1,1.5,true,"\xc3\xa4"]}},7,1770091506789,1770091506789,1]',
    b'["org_digest","notes","2",{},9007199254740993,-62135596800000,253402300799999,3]',
]


async def test_p10_the_digest_is_the_same_on_every_engine(storage: Storage) -> None:
    """Promise 10: the sum modulo 2^256 of the SHA-256 of each row's canonical JSON: what to compute by hand."""
    space = space_of("org_digest", POOLED)
    await storage.create_space(space)
    moment = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
    first = Record(
        org_id=space.org_id,
        collection="notes",
        id="1",
        data={"a": {"b": [1, 1.5, True, "ä"]}, "": None},
        bytes=7,
        created_at=moment,
        updated_at=moment,
    )
    second = replace(
        first,
        id="2",
        data={},
        bytes=2**53 + 1,
        created_at=datetime(1, 1, 1, tzinfo=UTC),
        updated_at=datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
        version=3,
    )
    await storage.run(space, add_each, records, [first, second])
    total = sum(int.from_bytes(hashlib.sha256(row).digest(), "big") for row in CANONICAL)
    assert await storage.digest(space, records) == Digest(2, f"{total % 2**256:064x}")


async def test_p10_the_directory_has_digests_too(storage: Storage) -> None:
    """Promise 10: of an organization's rows of the directory, whether asked as the organization or compared later."""
    org = org_id()
    rows = [sample(memberships, org, role=role) for role in Role]
    await storage.run(OrgScope(org), add_each, memberships, rows)
    before = await storage.digest(OrgScope(org), memberships)
    assert before.count == len(rows)
    everything = await storage.digest(SYSTEM, memberships)
    assert everything.count >= before.count
    await do(storage, OrgScope(org), "remove", memberships, *key_of(memberships, rows[0]))
    assert (await storage.digest(OrgScope(org), memberships)).hash != before.hash
    assert (await storage.digest(SYSTEM, memberships)).count == everything.count - 1
    await do(storage, OrgScope(org), "add", memberships, rows[0])
    assert await storage.digest(OrgScope(org), memberships) == before
    assert await storage.digest(SYSTEM, memberships) == everything
