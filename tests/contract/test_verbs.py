"""Promise 6, and what each verb says of itself: what it answers, what it raises, and by which name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orgstead.errors import AlreadyExists, NotFound, StaleRow
from orgstead.model import OperationState, PlacementKind, Role
from orgstead.storage.port import Home, OrgScope, Storage, Table
from orgstead.storage.tables import TABLES, audit_entries, memberships, operations, organizations, slugs, users
from tests.contract.work import SYSTEM, add_each, do, home, look, places, rows_of
from tests.rows import MORNING, changed, column_types, identities, key_of, key_where, org_id, sample, token

every_table = pytest.mark.parametrize(("table", "kind"), places(TABLES))
UNIQUE = [(table, name) for table in TABLES for name in (table.unique or {})]
every_unique = pytest.mark.parametrize(("table", "name"), UNIQUE, ids=[name for _, name in UNIQUE])


async def scope_of(storage: Storage, table: Table[Any], org: str, kind: PlacementKind) -> Any:
    return await home(storage, table, org, kind) if table.scope else SYSTEM


@every_table
async def test_p06_what_is_not_there(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 6: ``find`` and ``take`` return None; ``get``, ``lock``, ``replace``, ``remove`` raise ``NotFound``."""
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    row = sample(table, org)
    for _, where in identities(table, row):
        assert await look(storage, scope, "find", table, **where) is None
        assert await do(storage, scope, "take", table, **where) is None
    for verb in ("get", "lock", "remove"):
        with pytest.raises(NotFound):
            await do(storage, scope, verb, table, *key_of(table, row))
    with pytest.raises(NotFound):
        await do(storage, scope, "replace", table, row)
    assert await look(storage, scope, "find", table, **key_where(table, row)) is None


@every_table
async def test_p06_what_is_there(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 6: every way to a row gives that row: by key, by unique constraint, under lock."""
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    row = sample(table, org)
    await do(storage, scope, "add", table, row)
    assert await do(storage, scope, "lock", table, *key_of(table, row)) == row
    for _, where in identities(table, row):
        assert await look(storage, scope, "find", table, **where) == row
    other = changed(table, row)
    stored = await do(storage, scope, "replace", table, other)
    assert stored == (replace(other, version=2) if table.versioned else other)
    assert await look(storage, scope, "get", table, *key_of(table, row)) == stored
    await do(storage, scope, "remove", table, *key_of(table, row))
    assert await look(storage, scope, "find", table, **key_where(table, row)) is None
    await do(storage, scope, "add", table, row)


@every_table
async def test_p06_a_second_row_of_one_key(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 6, generated: ``AlreadyExists`` carries the key's name, and the first row stays."""
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    row = sample(table, org)
    await do(storage, scope, "add", table, row)
    with pytest.raises(AlreadyExists) as raised:
        await do(storage, scope, "add", table, changed(table, row))
    assert raised.value.constraint == table.key_constraint == f"{table.name}.key"
    assert await look(storage, scope, "get", table, *key_of(table, row)) == row


@every_unique
async def test_p06_a_second_row_of_one_unique_value(storage: Storage, table: Table[Any], name: str) -> None:
    """Promise 6, generated: ``AlreadyExists`` carries our name of the constraint, from ``add`` and ``replace``."""
    assert table.unique is not None
    first, second = sample(table, org_id()), sample(table, org_id())
    taken = {column: getattr(first, column) for column in table.unique[name]}
    await do(storage, SYSTEM, "add", table, first)
    await do(storage, SYSTEM, "add", table, second)
    for verb, row in (("add", sample(table, org_id(), **taken)), ("replace", replace(second, **taken))):
        with pytest.raises(AlreadyExists) as raised:
            await do(storage, SYSTEM, verb, table, row)
        assert raised.value.constraint == name
    assert await look(storage, SYSTEM, "find", table, **taken) == first
    assert await look(storage, SYSTEM, "get", table, *key_of(table, second)) == second


@every_unique
async def test_p06_a_unique_value_that_was_given_up(storage: Storage, table: Table[Any], name: str) -> None:
    """Promise 6: a constraint holds for the rows that are there: what is removed or changed is free again."""
    assert table.unique is not None
    first = sample(table, org_id())
    taken = {column: getattr(first, column) for column in table.unique[name]}
    await do(storage, SYSTEM, "add", table, first)
    stored = await do(storage, SYSTEM, "replace", table, first)
    await do(storage, SYSTEM, "replace", table, changed(table, stored))
    second = sample(table, org_id(), **taken)
    await do(storage, SYSTEM, "add", table, second)
    await do(storage, SYSTEM, "remove", table, *key_of(table, second))
    await do(storage, SYSTEM, "add", table, sample(table, org_id(), **taken))


OPTIONAL = [
    (table, columns)
    for table in TABLES
    for columns in (table.unique or {}).values()
    if any(column_types(table)[column][1] for column in columns)
]


@pytest.mark.parametrize(("table", "columns"), OPTIONAL, ids=[table.name for table, _ in OPTIONAL])
async def test_p06_none_is_exempt_from_unique(storage: Storage, table: Table[Any], columns: tuple[str, ...]) -> None:
    """Promise 6: a None among the values of a unique constraint exempts the row, so that it finds no row either."""
    nothing: dict[str, Any] = {column: None for column in columns if column_types(table)[column][1]}
    rows = [sample(table, org_id(), **nothing) for _ in range(3)]
    for row in rows:
        await do(storage, SYSTEM, "add", table, row)
    assert await look(storage, SYSTEM, "get", table, *key_of(table, rows[2])) == rows[2]
    asked = {column: nothing.get(column, getattr(rows[0], column)) for column in columns}
    assert await look(storage, SYSTEM, "find", table, **asked) is None
    assert await do(storage, SYSTEM, "take", table, **asked) is None


@pytest.mark.parametrize("verb", ["find", "take"])
async def test_p06_only_a_key_or_a_unique_constraint_finds(storage: Storage, verb: str) -> None:
    """``find`` and ``take`` name all columns of the key or of one unique constraint: half a key is a mistake."""
    org = org_id()
    await do(storage, OrgScope(org), "add", memberships, sample(memberships, org))
    for where in ({"org_id": org}, {"role": Role.OWNER}, {}, {"org_id": org, "role": Role.OWNER}, {"nonsense": 1}):
        with pytest.raises(ValueError, match="memberships"):
            await do(storage, OrgScope(org), verb, memberships, **where)
    assert len(await rows_of(storage, OrgScope(org), memberships)) == 1


async def test_replace_is_a_compare_and_swap(storage: Storage) -> None:
    """``row.version`` must be the stored one, neither older nor newer; each replace gives the next."""
    claim = sample(slugs)
    await do(storage, SYSTEM, "add", slugs, claim)
    for version in (1, 2, 3):
        current = replace(claim, version=version)
        for wrong in (version - 1, version + 1, -version, 2**62):
            with pytest.raises(StaleRow):
                await do(storage, SYSTEM, "replace", slugs, replace(claim, version=wrong))
        assert await do(storage, SYSTEM, "replace", slugs, current) == replace(claim, version=version + 1)


async def test_replace_of_a_table_without_versions_just_writes(storage: Storage) -> None:
    """Tables without ``version`` have no compare-and-swap: the last one wins."""
    org = org_id()
    row = sample(audit_entries, org)
    await do(storage, OrgScope(org), "add", audit_entries, row)
    for _ in range(2):
        row = changed(audit_entries, row)
        assert await do(storage, OrgScope(org), "replace", audit_entries, row) == row
    assert await rows_of(storage, OrgScope(org), audit_entries) == [row]


@every_table
async def test_find_many_gives_those_that_are_there(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """``find_many``: the rows of these keys that exist, each once, whatever else was asked for."""
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    alone = table.key == (table.scope,)
    rows = [sample(table, org) for _ in range(1 if alone else 3)]
    for row in rows:
        await do(storage, scope, "add", table, row)
    keys = [key_of(table, row) for row in rows]
    absent = key_of(table, sample(table, org_id()))
    found = await look(storage, scope, "find_many", table, [*keys, absent, keys[0]])
    assert sorted(found, key=repr) == sorted(rows, key=repr)
    assert await look(storage, scope, "find_many", table, [absent]) == []
    assert await look(storage, scope, "find_many", table, []) == []


async def test_find_many_takes_a_thousand_keys(storage: Storage) -> None:
    """``find_many``: at most 1,000 keys in one round trip; more is a mistake."""
    org = org_id()
    rows = [sample(memberships, org) for _ in range(20)]
    await storage.run(OrgScope(org), add_each, memberships, rows)
    keys = [key_of(memberships, row) for row in rows] + [(org, token()) for _ in range(980)]
    assert len(await look(storage, OrgScope(org), "find_many", memberships, keys)) == 20
    with pytest.raises(ValueError, match=r"1,?000"):
        await look(storage, OrgScope(org), "find_many", memberships, [*keys, (org, "one too many")])


async def test_take_removes_what_it_returns(storage: Storage) -> None:
    """``take`` works by unique constraint as well as by key, once."""
    person = sample(users)
    await do(storage, SYSTEM, "add", users, person)
    assert await do(storage, SYSTEM, "take", users, email_key=person.email_key) == person
    assert await do(storage, SYSTEM, "take", users, email_key=person.email_key) is None
    assert await look(storage, SYSTEM, "find", users, id=person.id) is None


async def test_adjust_is_one_conditional_write(storage: Storage) -> None:
    """``adjust`` adds if the row exists, equals ``where``, and no result exceeds ``at_most``; else it does nothing."""
    org = org_id()
    row = sample(operations, org, attempts=5, state=OperationState.RUNNING, error=None)
    key = key_of(operations, row)
    await do(storage, OrgScope(org), "add", operations, row)

    async def adjust(delta: int, **conditions: Any) -> tuple[bool, int]:
        done = await do(storage, OrgScope(org), "adjust", operations, *key, deltas={"attempts": delta}, **conditions)
        return done, (await look(storage, OrgScope(org), "get", operations, *key)).attempts

    assert await adjust(2) == (True, 7)
    assert await adjust(-9) == (True, -2)
    assert await adjust(1, where={"state": OperationState.RUNNING, "error": None}) == (True, -1)
    assert await adjust(1, where={"state": OperationState.FAILED}) == (False, -1)
    assert await adjust(1, where={"error": "x"}) == (False, -1)
    assert await adjust(1, where={"attempts": -1}) == (True, 0)
    assert await adjust(4, at_most={"attempts": 3}) == (False, 0)
    assert await adjust(3, at_most={"attempts": 3}) == (True, 3)
    assert await adjust(1, at_most={"attempts": 3}) == (False, 3)
    assert await adjust(0, where={"state": OperationState.RUNNING}) == (True, 3)
    assert await do(storage, OrgScope(org), "adjust", operations, org, "none", deltas={"attempts": 1}) is False
    found = await look(storage, OrgScope(org), "get", operations, *key)
    assert replace(found, attempts=5, version=1) == row


async def test_claim_leases_what_is_due(storage: Storage) -> None:
    """``claim`` leases rows whose lease ended at or before ``due``, and gives them as stored."""
    org = org_id()
    ends = [MORNING + timedelta(minutes=minutes) for minutes in (-5, 0, 5)]
    early, sharp, later = (
        sample(operations, org, lease_until=end, lease_owner="old", state=OperationState.RUNNING) for end in ends
    )
    failed = sample(operations, org, lease_until=ends[0], state=OperationState.FAILED)
    for row in (early, sharp, later, failed):
        await do(storage, OrgScope(org), "add", operations, row)
    where = {"state": OperationState.RUNNING, "org_id": org}
    until = MORNING + timedelta(minutes=1)

    claimed = await do(storage, SYSTEM, "claim", operations, where, due=MORNING, until=until, owner="me", limit=9)
    leased = [replace(row, lease_until=until, lease_owner="me", version=row.version + 1) for row in (early, sharp)]
    assert sorted(claimed, key=repr) == sorted(leased, key=repr)
    for row in [*leased, later, failed]:
        assert await look(storage, SYSTEM, "get", operations, *key_of(operations, row)) == row
    again = {"due": MORNING, "until": until, "owner": "you", "limit": 9}
    assert await do(storage, SYSTEM, "claim", operations, where, **again) == []


async def test_claim_takes_no_more_than_its_limit(storage: Storage) -> None:
    """``claim`` leases up to ``limit`` rows; the others stay for others."""
    org = org_id()
    for _ in range(5):
        await do(storage, OrgScope(org), "add", operations, sample(operations, org, lease_until=MORNING))
    lease = {"due": MORNING, "until": MORNING + timedelta(minutes=1), "owner": "me"}
    counts = [len(await do(storage, OrgScope(org), "claim", operations, {}, **lease, limit=2)) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


async def test_aggregate_counts_and_sums(storage: Storage) -> None:
    """``aggregate`` gives ``count`` and sums for each group; without groups, one answer even of nothing."""
    plan = token("plan")
    facts = [("a", 1, None), ("a", 2, None), ("b", 2**40, "x")]
    for name, epoch, suspended_by in facts:
        row = sample(organizations, org_id(), plan=plan, name=name, epoch=epoch, suspended_by=suspended_by)
        await do(storage, SYSTEM, "add", organizations, row)

    async def aggregate(where: dict[str, Any], **kwargs: Any) -> list[Any]:
        found: list[Any] = await look(storage, SYSTEM, "aggregate", organizations, where, **kwargs)
        return sorted(found, key=lambda group: str(group.get("name")))

    assert await aggregate({"plan": plan}) == [{"count": 3}]
    assert await aggregate({"plan": plan}, sums=["epoch"]) == [{"count": 3, "epoch": 2**40 + 3}]
    assert await aggregate({"plan": plan}, group_by=["name"], sums=["epoch", "version"]) == [
        {"name": "a", "count": 2, "epoch": 3, "version": 2},
        {"name": "b", "count": 1, "epoch": 2**40, "version": 1},
    ]
    assert await aggregate({"plan": plan, "suspended_by": None}, group_by=["plan", "suspended_by"]) == [
        {"plan": plan, "suspended_by": None, "count": 2}
    ]
    assert await aggregate({"plan": token()}, sums=["epoch"]) == [{"count": 0, "epoch": 0}]
    assert await aggregate({"plan": token()}, group_by=["name"]) == []


async def test_unknown_columns_are_a_mistake(storage: Storage) -> None:
    """A column that is not declared is refused before any engine sees it."""
    evil = 'id" = "id" OR 1=1 --'
    mistakes: list[tuple[str, dict[str, Any]]] = [
        ("page", {"where": {evil: 1}, "limit": 1}),
        ("page", {"order": [evil], "limit": 1}),
        ("aggregate", {"where": {"nonsense": 1}}),
        ("aggregate", {"group_by": [evil]}),
        ("aggregate", {"sums": ["nonsense"]}),
    ]
    for verb, kwargs in mistakes:
        with pytest.raises(ValueError):  # noqa: PT011  # which words an engine finds is its own
            await look(storage, SYSTEM, verb, memberships, **kwargs)


@pytest.mark.parametrize("column", ["error", "created_at", 'attempts" = 1 --'])
@pytest.mark.parametrize("argument", ["deltas", "at_most"])
async def test_only_integers_are_adjusted(storage: Storage, argument: str, column: str) -> None:
    """Some engines would take text for a number. Asked twice, because what an engine made of it may be kept."""
    org = org_id()
    row = sample(operations, org)
    await do(storage, OrgScope(org), "add", operations, row)
    asked: dict[str, Any] = {"deltas": {"attempts": 1}, argument: {column: 1}}
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011  # which words an engine finds is its own
            await do(storage, OrgScope(org), "adjust", operations, *key_of(operations, row), **asked)
    assert await look(storage, OrgScope(org), "get", operations, *key_of(operations, row)) == row


# --- many rows at once ------------------------------------------------------------------------------------------------

MANY = [table for table in TABLES if table.key != (table.scope,)]
"""The tables of which an organization can have more than one row."""

WIDEST = [max((table for table in MANY if table.home is home), key=lambda table: len(table.columns)) for home in Home]
"""Of the directory and of spaces each: the one whose rows are the first to be more than fit into one command."""


@every_table
async def test_many_rows_are_added_found_and_replaced(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """``add_many``, ``find_many``, ``replace_many``: as the verbs for one row, for each of them, in their order."""
    many = 1200 if table in WIDEST else 30 if table in MANY else 1
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    rows = [sample(table, org, sparse=number % 2 == 0) for number in range(many)]
    await do(storage, scope, "add_many", table, rows)
    await do(storage, scope, "add_many", table, [])
    found = []
    for some in (rows[:1000], rows[1000:]):
        found += await look(storage, scope, "find_many", table, [key_of(table, row) for row in some])
    assert sorted(found, key=repr) == sorted(rows, key=repr)
    others = [changed(table, row) for row in reversed(rows)]
    stored = await do(storage, scope, "replace_many", table, others)
    assert stored == [replace(row, version=2) if table.versioned else row for row in others]
    assert await do(storage, scope, "replace_many", table, []) == []
    for row in stored[:: max(1, many // 3)]:
        assert await look(storage, scope, "get", table, *key_of(table, row)) == row


@every_table
async def test_many_rows_are_added_or_none(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """``add_many``: where one row is there already, ``AlreadyExists`` names the constraint and none is added."""
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    there, other = sample(table, org), sample(table, org)
    await do(storage, scope, "add", table, there)
    for rows in ([other, changed(table, there)], [changed(table, there), other]):
        with pytest.raises(AlreadyExists) as raised:
            await do(storage, scope, "add_many", table, rows)
        assert raised.value.constraint == table.key_constraint
    if key_of(table, other) != key_of(table, there):
        assert await look(storage, scope, "find", table, **key_where(table, other)) is None
    assert await look(storage, scope, "get", table, *key_of(table, there)) == there


@every_unique
async def test_many_rows_of_one_unique_value(storage: Storage, table: Table[Any], name: str) -> None:
    """``add_many``, ``replace_many``: the constraint holds among the rows themselves, and is named."""
    assert table.unique is not None
    first, second, third = (sample(table, org_id()) for _ in range(3))
    taken = {column: getattr(first, column) for column in table.unique[name]}
    with pytest.raises(AlreadyExists) as raised:
        await do(storage, SYSTEM, "add_many", table, [first, third, replace(second, **taken)])
    assert raised.value.constraint == name
    await do(storage, SYSTEM, "add_many", table, [first, second, third])
    with pytest.raises(AlreadyExists) as raised:
        await do(storage, SYSTEM, "replace_many", table, [third, replace(second, **taken)])
    assert raised.value.constraint == name
    assert await look(storage, SYSTEM, "get", table, *key_of(table, third)) == third
    values = [tuple(getattr(row, column) for column in table.unique[name]) for row in (third, first, third)]
    found = await look(storage, SYSTEM, "find_many", table, [*values, (token(),) * len(values[0])], unique=name)
    assert sorted(found, key=repr) == sorted([first, third], key=repr)


async def test_many_rows_are_replaced_or_none(storage: Storage) -> None:
    """``replace_many``: where one is stale or missing, the error is that of ``replace`` and none is replaced."""
    org = org_id()
    rows = [sample(operations, org) for _ in range(5)]
    await do(storage, OrgScope(org), "add_many", operations, rows)
    new = [replace(row, attempts=7) for row in rows]
    with pytest.raises(StaleRow):
        await do(storage, OrgScope(org), "replace_many", operations, [*new[:3], replace(new[3], version=9), new[4]])
    with pytest.raises(NotFound):
        await do(storage, OrgScope(org), "replace_many", operations, [*new, sample(operations, org)])
    assert sorted(await rows_of(storage, OrgScope(org), operations), key=repr) == sorted(rows, key=repr)


@every_table
async def test_many_rows_are_removed_or_none(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """``remove_many``: where one is not there, ``NotFound`` and none is removed; else all of them, and no other."""
    many = 1100 if table is audit_entries else 20 if table in MANY else 1
    org = org_id()
    scope = await scope_of(storage, table, org, kind)
    rows = [sample(table, org) for _ in range(many)]
    await do(storage, scope, "add_many", table, rows)
    keys = [key_of(table, row) for row in rows]
    missing = key_of(table, sample(table, org_id() if many == 1 else org))
    for wanted in ([*keys, missing], [missing, *keys]):
        with pytest.raises(NotFound):
            await do(storage, scope, "remove_many", table, wanted)
    assert len(await look(storage, scope, "find_many", table, keys[:1000])) == min(many, 1000)
    await do(storage, scope, "remove_many", table, [])
    await do(storage, scope, "remove_many", table, keys[1:])
    assert await look(storage, scope, "find_many", table, keys[:1000]) == rows[:1]
    await do(storage, scope, "remove_many", table, keys[:1])
    assert await look(storage, scope, "find", table, **key_where(table, rows[0])) is None


async def test_many_keys_of_no_constraint(storage: Storage) -> None:
    """``find_many``: a constraint that the table does not have is a mistake of the program."""
    with pytest.raises(ValueError, match="no unique constraint"):
        await look(storage, SYSTEM, "find_many", users, [("x",)], unique="users.name")
