"""Promise 4: of another organization there is nothing. Generated from the declared tables, verb by verb.

Each test puts a row of ours and a row of theirs side by side and acts in our scope on their row. Both are looked at
afterwards in their own scopes: theirs untouched, ours still reachable.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from orgstead.errors import NotFound, OutOfScope
from orgstead.model import PlacementKind
from orgstead.storage.port import Home, OrgScope, Scope, Storage, SystemScope, Table, Transaction
from orgstead.storage.tables import TABLES, memberships, records
from tests.contract.work import KINDS, POOLED, SYSTEM, add_each, do, home, look, places, rows_of, space_of
from tests.rows import MORNING, SCOPED_TABLES, changed, columns_of, identities, key_of, key_where, org_id, sample

every_scoped_table = pytest.mark.parametrize(("table", "kind"), places(SCOPED_TABLES))


class Pair(NamedTuple):
    """A row of ours and a row of theirs, each with the scope it lives in."""

    us: Scope
    ours: Any
    them: Scope
    theirs: Any


async def pair(storage: Storage, table: Table[Any], kind: PlacementKind, **given: Any) -> Pair:
    us, them = org_id(), org_id()
    our_home, their_home = await home(storage, table, us, kind), await home(storage, table, them, kind)
    ours, theirs = sample(table, us, **given), sample(table, them, **given)
    await do(storage, our_home, "add", table, ours)
    await do(storage, their_home, "add", table, theirs)
    return Pair(our_home, ours, their_home, theirs)


async def assert_untouched(storage: Storage, table: Table[Any], of: Pair) -> None:
    assert await look(storage, of.them, "get", table, *key_of(table, of.theirs)) == of.theirs
    assert await look(storage, of.us, "get", table, *key_of(table, of.ours)) == of.ours


@every_scoped_table
async def test_p04_get_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: reads give nothing, and for ``get`` that is ``NotFound``."""
    of = await pair(storage, table, kind)
    for read in (do, look):
        with pytest.raises(NotFound):
            await read(storage, of.us, "get", table, *key_of(table, of.theirs))
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_find_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: reads give nothing, by key and by every unique constraint."""
    of = await pair(storage, table, kind)
    for _, where in identities(table, of.theirs):
        assert await look(storage, of.us, "find", table, **where) is None
        assert await do(storage, of.us, "find", table, **where) is None
    for _, where in identities(table, of.ours):
        assert await look(storage, of.us, "find", table, **where) == of.ours


@every_scoped_table
async def test_p04_find_many_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: reads give nothing: of keys of both organizations only ours are found."""
    of = await pair(storage, table, kind)
    keys = [key_of(table, of.theirs), key_of(table, of.ours)]
    assert await look(storage, of.us, "find_many", table, keys) == [of.ours]
    assert await do(storage, of.us, "find_many", table, keys[:1]) == []


@every_scoped_table
async def test_p04_find_many_by_unique_of_another_organization(
    storage: Storage, table: Table[Any], kind: PlacementKind
) -> None:
    """Promise 4: reads give nothing, whichever constraint the keys are of."""
    of = await pair(storage, table, kind)
    for name, columns in (table.unique or {}).items():
        values = [tuple(getattr(row, column) for column in columns) for row in (of.theirs, of.ours)]
        assert await look(storage, of.us, "find_many", table, values, unique=name) == [of.ours]


@every_scoped_table
async def test_p04_add_many_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: one row of another organization among ours raises ``OutOfScope``, and none is added."""
    us, them = org_id(), org_id()
    our_home, their_home = await home(storage, table, us, kind), await home(storage, table, them, kind)
    ours, theirs = sample(table, us), sample(table, them)
    for rows in ([ours, theirs], [theirs, ours]):
        with pytest.raises(OutOfScope):
            await do(storage, our_home, "add_many", table, rows)
    assert await look(storage, our_home, "find", table, **key_where(table, ours)) is None
    assert await look(storage, their_home, "find", table, **key_where(table, theirs)) is None


@every_scoped_table
async def test_p04_add_all_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: a row of another organization in one of several tables raises ``OutOfScope``, and none is added."""
    us, them = org_id(), org_id()
    our_home, their_home = await home(storage, table, us, kind), await home(storage, table, them, kind)
    beside = next(t for t in SCOPED_TABLES if t.home is table.home and t is not table)
    ours, theirs = sample(beside, us), sample(table, them)
    for rows in ([(beside, [ours]), (table, [theirs])], [(table, [sample(table, us), theirs]), (beside, [ours])]):
        with pytest.raises(OutOfScope):
            await do(storage, our_home, "add_all", rows)
    assert await look(storage, our_home, "find", beside, **key_where(beside, ours)) is None
    assert await look(storage, their_home, "find", table, **key_where(table, theirs)) is None


@every_scoped_table
async def test_p04_replace_many_of_another_organization(
    storage: Storage, table: Table[Any], kind: PlacementKind
) -> None:
    """Promise 4: one row of another organization among ours raises ``NotFound``, and none is replaced."""
    of = await pair(storage, table, kind)
    with pytest.raises(NotFound):
        await do(storage, of.us, "replace_many", table, [changed(table, row) for row in (of.ours, of.theirs)])
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_lock_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: reads give nothing, ``lock`` included."""
    of = await pair(storage, table, kind)
    with pytest.raises(NotFound):
        await do(storage, of.us, "lock", table, *key_of(table, of.theirs))
    assert await do(storage, of.us, "lock", table, *key_of(table, of.ours)) == of.ours
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_replace_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: ``replace`` raises ``NotFound``."""
    of = await pair(storage, table, kind)
    with pytest.raises(NotFound):
        await do(storage, of.us, "replace", table, changed(table, of.theirs))
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_remove_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: ``remove`` raises ``NotFound``."""
    of = await pair(storage, table, kind)
    with pytest.raises(NotFound):
        await do(storage, of.us, "remove", table, *key_of(table, of.theirs))
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_remove_many_of_another_organization(
    storage: Storage, table: Table[Any], kind: PlacementKind
) -> None:
    """Promise 4: one row of another organization among ours raises ``NotFound``, and none is removed."""
    of = await pair(storage, table, kind)
    for rows in ((of.ours, of.theirs), (of.theirs, of.ours)):
        with pytest.raises(NotFound):
            await do(storage, of.us, "remove_many", table, [key_of(table, row) for row in rows])
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_take_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: ``take`` finds nothing to take, by key and by every unique constraint."""
    of = await pair(storage, table, kind)
    for _, where in identities(table, of.theirs):
        assert await do(storage, of.us, "take", table, **where) is None
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_adjust_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: ``adjust`` matches nothing."""
    of = await pair(storage, table, kind)
    key = key_of(table, of.theirs)
    for column in set(columns_of(table, int)) - set(table.key):
        assert await do(storage, of.us, "adjust", table, *key, deltas={column: 1}) is False
    await assert_untouched(storage, table, of)


@every_scoped_table
async def test_p04_page_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: lists hold our rows only, whatever ``where`` asks for."""
    assert table.scope is not None
    of = await pair(storage, table, kind)
    ours, theirs = await rows_of(storage, of.us, table), await rows_of(storage, of.them, table)
    assert of.ours in ours
    assert of.theirs in theirs
    assert {getattr(row, table.scope) for row in ours} == {getattr(of.ours, table.scope)}
    assert await rows_of(storage, of.us, table, **{table.scope: getattr(of.theirs, table.scope)}) == []
    assert await rows_of(storage, of.us, table, **key_where(table, of.theirs)) == []


@every_scoped_table
async def test_p04_page_after_a_row_of_another_organization(
    storage: Storage, table: Table[Any], kind: PlacementKind
) -> None:
    """Promise 4: a mark that was made for another organization's list opens nothing of it."""
    assert table.scope is not None
    of = await pair(storage, table, kind)
    low = tuple("" if isinstance(part, str) else part for part in key_of(table, of.theirs))
    for after in (key_of(table, of.theirs), low):
        found = await look(storage, of.us, "page", table, after=after, limit=1000)
        assert {getattr(row, table.scope) for row in found} <= {getattr(of.ours, table.scope)}


@every_scoped_table
async def test_p04_aggregate_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: counts and sums are of our rows only."""
    assert table.scope is not None
    of = await pair(storage, table, kind)
    visible = len(await rows_of(storage, of.us, table))
    assert await look(storage, of.us, "aggregate", table) == [{"count": visible}]
    groups = await look(storage, of.us, "aggregate", table, group_by=[table.scope])
    assert groups == [{table.scope: getattr(of.ours, table.scope), "count": visible}]
    where = {table.scope: getattr(of.theirs, table.scope)}
    assert await look(storage, of.us, "aggregate", table, where) == [{"count": 0}]


@every_scoped_table
async def test_p04_add_for_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: ``add`` raises ``OutOfScope``, also where the row exists: that would be a way to ask."""
    of = await pair(storage, table, kind)
    stranger = sample(table, org_id())
    for row in (stranger, sample(table, getattr(of.theirs, str(table.scope))), of.theirs):
        with pytest.raises(OutOfScope):
            await do(storage, of.us, "add", table, row)
    await assert_untouched(storage, table, of)
    if table.home is Home.DIRECTORY:
        assert await look(storage, SYSTEM, "find", table, **key_where(table, stranger)) is None


@every_scoped_table
async def test_p04_digest_of_another_organization(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 4: a digest covers our rows only: theirs may change without ours doing so."""
    of = await pair(storage, table, kind)
    before = await storage.digest(of.us, table)
    await do(storage, of.them, "remove", table, *key_of(table, of.theirs))
    assert await storage.digest(of.us, table) == before
    await do(storage, of.us, "remove", table, *key_of(table, of.ours))
    assert (await storage.digest(of.us, table)).count == before.count - 1


@pytest.mark.parametrize("table", [t for t in SCOPED_TABLES if t.lease], ids=lambda table: table.name)
async def test_p04_claim_of_another_organization(storage: Storage, table: Table[Any]) -> None:
    """Promise 4: ``claim`` leases our rows only."""
    assert table.lease is not None
    until, owner = table.lease
    of = await pair(storage, table, POOLED, **{until: MORNING, owner: None})
    lease = {"due": MORNING, "until": MORNING + timedelta(minutes=1), "owner": "worker", "limit": 10}
    where = {str(table.scope): getattr(of.theirs, str(table.scope))}
    assert await do(storage, of.us, "claim", table, where, **lease) == []
    claimed = await do(storage, of.us, "claim", table, {}, **lease)
    assert [key_of(table, row) for row in claimed] == [key_of(table, of.ours)]
    assert await look(storage, of.them, "get", table, *key_of(table, of.theirs)) == of.theirs


def _verbs(table: Table[Any], row: Any) -> dict[str, Any]:
    key, where = key_of(table, row), key_where(table, row)
    number = next(iter(columns_of(table, int)), table.key[0])
    return {
        "add": lambda tx: tx.add(table, row),
        "add_all": lambda tx: tx.add_all([(table, [row])]),
        "get": lambda tx: tx.get(table, *key),
        "find": lambda tx: tx.find(table, **where),
        "find_many": lambda tx: tx.find_many(table, [key]),
        "replace": lambda tx: tx.replace(table, row),
        "remove": lambda tx: tx.remove(table, *key),
        "remove_many": lambda tx: tx.remove_many(table, [key]),
        "lock": lambda tx: tx.lock(table, *key),
        "take": lambda tx: tx.take(table, **where),
        "adjust": lambda tx: tx.adjust(table, *key, deltas={number: 1}),
        "page": lambda tx: tx.page(table, limit=1),
        "aggregate": lambda tx: tx.aggregate(table),
    }


def _foreign(scope: Scope) -> list[Table[Any]]:
    """The tables that a scope of this kind does not open."""
    if isinstance(scope, OrgScope):
        return [table for table in TABLES if table.scope is None or table.home is Home.SPACE]
    if isinstance(scope, SystemScope):
        return [table for table in TABLES if table.home is Home.SPACE]
    return [table for table in TABLES if table.home is Home.DIRECTORY]


VERBS = ["add", "add_all", "get", "find", "find_many", "replace", "remove", "remove_many", "lock", "take", "adjust"]
VERBS += ["page", "aggregate"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("what", ["organization", "system", "pooled", "dedicated"])
async def test_p04_tables_that_a_scope_does_not_open(storage: Storage, what: str, verb: str) -> None:
    """Promise 4: tables without a scope column are refused; a space opens its tables and no others."""
    org = org_id()
    scope: Scope
    if what == "organization":
        scope = OrgScope(org)
    elif what == "system":
        scope = SYSTEM
    else:
        scope = await home(storage, records, org, PlacementKind(what))
    for table in _foreign(scope):
        row = sample(table, org)
        if table.home is Home.DIRECTORY:
            await do(storage, SYSTEM, "add", table, row)
        with pytest.raises(OutOfScope):
            await storage.run(scope, _verbs(table, row)[verb])
        with pytest.raises(OutOfScope):
            await storage.digest(scope, table)
        if table.home is Home.DIRECTORY:
            assert await look(storage, SYSTEM, "get", table, *key_of(table, row)) == row


async def test_p04_the_system_sees_every_organization(storage: Storage) -> None:
    """The other side of promise 4: a ``SystemScope`` reads and writes rows of all."""
    rows = [sample(memberships, org_id()) for _ in range(3)]
    await storage.run(SYSTEM, add_each, memberships, rows)
    for row in rows:
        assert await look(storage, SYSTEM, "get", memberships, *key_of(memberships, row)) == row
        assert await rows_of(storage, OrgScope(row.org_id), memberships) == [row]


async def test_p04_the_scope_of_one_unit_does_not_reach_the_next(storage: Storage) -> None:
    """Promise 4: interleaved units of many organizations each see their own rows."""
    orgs = [org_id() for _ in range(12)]
    for org in orgs:
        await do(storage, OrgScope(org), "add", memberships, sample(memberships, org))

    async def own(tx: Transaction) -> set[str]:
        return {row.org_id for row in await tx.page(memberships, limit=1000)}

    async def visit(org: str, number: int) -> None:
        unit = (storage.run, storage.read, storage.scan)[number % 3]
        assert await unit(OrgScope(org), own) == {org}

    await asyncio.gather(*(visit(org, number) for number in range(25) for org in orgs))


@pytest.mark.parametrize("kind", KINDS)
async def test_p04_two_spaces_never_share_a_row(storage: Storage, kind: PlacementKind) -> None:
    """Promise 4: the same key in two spaces is two rows."""
    spaces = [await home(storage, records, org_id(), kind) for _ in range(3)]
    rows = [sample(records, space.org_id, collection="notes", id="1") for space in spaces]  # type: ignore[union-attr]
    for space, row in zip(spaces, rows, strict=True):
        await do(storage, space, "add", records, row)
    for space, row in zip(spaces, rows, strict=True):
        assert await rows_of(storage, space, records) == [row]


async def test_p04_the_two_spaces_of_one_organization_are_apart(storage: Storage) -> None:
    """During a move an organization has two spaces: what is written to one is not in the other."""
    org = org_id()
    pooled, dedicated = space_of(org, KINDS[0], 1), space_of(org, KINDS[1], 2)
    await storage.create_space(pooled)
    await storage.create_space(dedicated)
    row = sample(records, org)
    await do(storage, pooled, "add", records, row)
    assert await rows_of(storage, dedicated, records) == []
    await do(storage, dedicated, "add", records, row)
    await do(storage, pooled, "remove", records, *key_of(records, row))
    assert await rows_of(storage, dedicated, records) == [row]
