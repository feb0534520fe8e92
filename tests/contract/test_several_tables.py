"""``add_all``: rows of several tables at once, as ``add`` would add each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orgstead.errors import AlreadyExists, InvalidValue, OutOfScope, TransactionEnded
from orgstead.model import PlacementKind
from orgstead.storage.port import Home, OrgScope, Scope, Storage, Table, Transaction
from orgstead.storage.tables import (
    DIRECTORY,
    SPACE,
    TABLES,
    audit_entries,
    cells,
    memberships,
    organizations,
    records,
    slugs,
    users,
)
from tests.contract.work import SYSTEM, do, home, look, places, rows_of
from tests.rows import changed, identities, key_of, key_where, org_id, sample

SCOPES = {
    "system": DIRECTORY,
    "organization": [table for table in DIRECTORY if table.scope],
    "pooled": SPACE,
    "dedicated": SPACE,
}
"""The tables of each kind of scope."""

Rows = list[tuple[Table[Any], Sequence[Any]]]


async def scope_of(storage: Storage, what: str, org: str) -> Scope:
    if what == "system":
        return SYSTEM
    return OrgScope(org) if what == "organization" else await home(storage, records, org, PlacementKind(what))


async def there(storage: Storage, scope: Scope, table: Table[Any], rows: Sequence[Any]) -> list[Any]:
    """Those of the rows that are there, in the order of their keys."""
    found = []
    for begin in range(0, len(rows), 1000):
        keys = [key_of(table, row) for row in rows[begin : begin + 1000]]
        found += await look(storage, scope, "find_many", table, keys)
    return sorted(found, key=lambda row: key_of(table, row))


@pytest.mark.parametrize("what", SCOPES)
async def test_rows_of_several_tables_are_added(storage: Storage, what: str) -> None:
    """One row, several, none, and more than fit into one command, in whatever order the tables are named."""
    for backwards in (False, True):
        org = org_id()
        scope = await scope_of(storage, what, org)
        rows: Rows = []
        for number, table in enumerate(SCOPES[what]):
            many = 1200 if table in (audit_entries, records) else (1, 3, 0)[number % 3]
            if table.key == (table.scope,):
                many = min(many, 1)  # an organization has no second one
            rows.append((table, [sample(table, org, sparse=place % 2 == 0) for place in range(many)]))
        await do(storage, scope, "add_all", rows[::-1] if backwards else rows)
        for table, some in rows:
            assert await there(storage, scope, table, some) == sorted(some, key=lambda row: key_of(table, row))


async def test_nothing_of_several_tables_is_added(storage: Storage) -> None:
    """Nothing to add is no error, but a table that the scope does not open is one."""
    scope = OrgScope(org_id())
    await do(storage, scope, "add_all", [])
    await do(storage, scope, "add_all", [(memberships, []), (organizations, [])])
    for foreign in (cells, records):
        with pytest.raises(OutOfScope):
            await do(storage, scope, "add_all", [(foreign, [])])


@pytest.mark.parametrize(("table", "kind"), places(TABLES))
async def test_rows_of_several_tables_are_added_or_none(
    storage: Storage, table: Table[Any], kind: PlacementKind
) -> None:
    """Promise 6: where one row is there already, ``AlreadyExists`` names its table's key and none is added."""
    org = org_id()
    scope = await home(storage, table, org, kind) if table.scope else SYSTEM
    row = sample(table, org)
    await do(storage, scope, "add", table, row)
    others = [t for t in TABLES if t.home is table.home and t is not table and (t.scope or scope is SYSTEM)]
    beside: Rows = [(other, [sample(other, org)]) for other in others]
    taken: Rows = [(table, [changed(table, row)])]
    for rows in ([*beside, *taken], [*taken, *beside], [*beside[:1], *taken, *beside[1:]]):
        with pytest.raises(AlreadyExists) as raised:
            await do(storage, scope, "add_all", rows)
        assert raised.value.constraint == table.key_constraint
        for other, some in beside:
            assert await there(storage, scope, other, some) == []
    assert await look(storage, scope, "get", table, *key_of(table, row)) == row


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in TABLES for name in (table.unique or {})])
async def test_rows_of_several_tables_and_a_unique_value(storage: Storage, table: Table[Any], name: str) -> None:
    """Promise 6: the constraint holds among the rows themselves, and is named, whichever tables come along."""
    first, second = sample(table, org_id()), sample(table, org_id())
    taken = {column: getattr(first, column) for column in (table.unique or {})[name]}
    beside: Rows = [(slugs, [sample(slugs)]), (cells, [sample(cells), sample(cells)])]
    both: Rows = [(table, [first, replace(second, **taken)])]
    for rows in ([*beside, *both], [*both, *beside]):
        with pytest.raises(AlreadyExists) as raised:
            await do(storage, SYSTEM, "add_all", rows)
        assert raised.value.constraint == name
        for other, some in [*beside, *both]:
            assert await there(storage, SYSTEM, other, some) == []


async def test_rows_of_several_tables_with_a_value_that_is_refused(storage: Storage) -> None:
    """Promise 5: ``InvalidValue``, and none is added."""
    claim, user = sample(slugs), sample(users, email="nul \0")
    with pytest.raises(InvalidValue):
        await do(storage, SYSTEM, "add_all", [(slugs, [claim]), (users, [user])])
    for table, row in ((slugs, claim), (users, user)):
        for _, where in identities(table, row):
            assert "\0" in str(where) or await look(storage, SYSTEM, "find", table, **where) is None


async def test_rows_of_several_tables_in_a_unit_that_fails(storage: Storage) -> None:
    """Promise 3: the error ends the unit, also where it was caught."""
    org = org_id()
    member, first = sample(memberships, org), sample(audit_entries, org)
    await do(storage, OrgScope(org), "add", audit_entries, first)

    async def work(tx: Transaction) -> None:
        await tx.add(memberships, member)
        with pytest.raises(AlreadyExists):
            await tx.add_all([(organizations, [sample(organizations, org)]), (audit_entries, [first])])
        with pytest.raises(TransactionEnded):
            await tx.page(memberships, limit=1)

    with pytest.raises(TransactionEnded):
        await storage.run(OrgScope(org), work)
    assert await look(storage, OrgScope(org), "find", memberships, **key_where(memberships, member)) is None
    assert await rows_of(storage, OrgScope(org), organizations) == []
    assert await rows_of(storage, OrgScope(org), audit_entries) == [first]


async def test_rows_of_several_tables_are_seen_by_the_next_verb(storage: Storage) -> None:
    """A unit is one thing, whose later verbs see what its earlier ones did."""
    org = org_id()
    rows: Rows = [(table, [sample(table, org)]) for table in TABLES if table.home is Home.DIRECTORY]

    async def work(tx: Transaction) -> None:
        await tx.add_all(rows)
        for table, (row,) in rows:
            assert await tx.get(table, *key_of(table, row)) == row

    await storage.run(SYSTEM, work)
