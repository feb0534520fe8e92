"""Promise 7: lists are read by keyset only, in a total order, without gaps or repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from orgstead.model import OperationState, PlacementKind
from orgstead.storage.port import OrgScope, Scope, Storage, Table, total_order
from orgstead.storage.tables import TABLES, index_entries, memberships, operations, organizations, records
from tests import support
from tests.contract.work import KINDS, SYSTEM, add_each, do, home, look, places
from tests.rows import MORNING, key_of, org_id, sample, token


def by(table: Table[Any], order: Sequence[str], rows: Sequence[Any]) -> list[Any]:
    """The rows as the promise orders them: by the total order, None first, text by code point."""
    expected = list(rows)
    for column in reversed(total_order(table, order)):
        name = column.lstrip("-")

        def rank(row: Any, name: str = name) -> tuple[Any, ...]:
            value = getattr(row, name)
            return (0,) if value is None else (1, value)

        expected.sort(key=rank, reverse=column.startswith("-"))
    return expected


def mark(table: Table[Any], order: Sequence[str], row: Any) -> list[Any]:
    """The values to go on after: one for each column of the total order."""
    return [getattr(row, column.lstrip("-")) for column in total_order(table, order)]


async def walk(
    storage: Storage,
    scope: Scope,
    table: Table[Any],
    where: dict[str, Any],
    order: Sequence[str],
    limit: int,
    between: Callable[[], Any] | None = None,
) -> list[Any]:
    """All pages, one after the other; ``between`` is awaited after each."""
    found: list[Any] = []
    while True:
        after = mark(table, order, found[-1]) if found else None
        page = await look(storage, scope, "page", table, where, order=order, after=after, limit=limit)
        assert len(page) <= limit
        if not page:
            return found
        found += page
        assert len(found) < 300, "this list does not end"
        if between:
            await between()


ORDERS: list[tuple[str, ...]] = [
    (),
    ("-id",),
    ("created_at",),
    ("-created_at",),
    ("error",),
    ("-error",),
    ("error", "-lease_owner"),
    ("-error", "lease_owner", "-created_at"),
    ("state", "-progress"),
    ("-attempts", "state", "id"),
    ("progress", "-attempts", "error"),
    ("kind",),
    ("-kind", "-error"),
]

WORDS = ["", " ", "a", "A", "b", "aa", "ä", "Z", "z", "İ", "\ufffd", "\uffff", "😀", "\U0010ffff", "10", "9", "a\u0301"]


def crowd(org: str) -> list[Any]:
    """Rows with ties in every column, None where it may be, and texts on which collations disagree."""
    return [
        sample(
            operations,
            org,
            kind=WORDS[number % len(WORDS)],
            state=list(OperationState)[number % 3],
            progress=(number % 4) / 4,
            attempts=number % 3 - 1,
            error=(None, "x", "X")[number % 3],
            lease_owner=(None, "é", "😀", "\uffff")[number % 4],
            created_at=MORNING + timedelta(milliseconds=number % 5),
        )
        for number in range(len(WORDS) * 2)
    ]


@pytest.mark.parametrize("order", ORDERS, ids=[",".join(order) or "key" for order in ORDERS])
async def test_p07_every_order_is_total(storage: Storage, order: tuple[str, ...]) -> None:
    """Promise 7: ascending, descending and mixed, with ties and None: each row once, in the same order."""
    org = org_id()
    rows = crowd(org)
    await storage.run(OrgScope(org), add_each, operations, rows)
    expected = by(operations, order, rows)
    for scope, where in ((OrgScope(org), {}), (SYSTEM, {"org_id": org})):
        for limit in (1, 7, len(rows), len(rows) + 1):
            assert await walk(storage, scope, operations, where, order, limit) == expected


@pytest.mark.parametrize(("table", "kind"), places(t for t in TABLES if t.scope is not None and len(t.key) > 1))
async def test_p07_every_table_pages_by_its_key(storage: Storage, table: Table[Any], kind: PlacementKind) -> None:
    """Promise 7, generated: the key alone orders every table, both ways, in every kind of space."""
    org = org_id()
    scope = await home(storage, table, org, kind)
    await storage.run(scope, add_each, table, [sample(table, org) for _ in range(7)])
    rows = await look(storage, scope, "page", table, limit=100)
    assert len(rows) >= 7
    assert rows == by(table, (), rows)
    backwards = ("-" + table.key[0],)
    assert await walk(storage, scope, table, {}, backwards, 3) == by(table, backwards, rows) == rows[::-1]


@pytest.mark.parametrize("order", [("org_id", "id"), ("-org_id", "id"), ("created_at",), ("-created_at",)])
async def test_p07_nothing_is_skipped_or_repeated_while_others_write(storage: Storage, order: tuple[str, ...]) -> None:
    """Promise 7: what was there all along is seen exactly once, whatever comes and goes meanwhile."""
    org = org_id()
    kept = [sample(operations, org, created_at=MORNING + timedelta(seconds=number % 3)) for number in range(12)]
    await storage.run(OrgScope(org), add_each, operations, kept)
    passing: list[Any] = []
    waves = iter(range(6))

    async def come_and_go() -> None:
        if next(waves, None) is None:
            return
        for row in passing:
            await do(storage, OrgScope(org), "remove", operations, *key_of(operations, row))
        passing[:] = [sample(operations, org, id=prefix + token(), created_at=MORNING) for prefix in ("a", "id_8", "z")]
        await storage.run(OrgScope(org), add_each, operations, passing)

    found = await walk(storage, OrgScope(org), operations, {}, order, 2, come_and_go)
    ids = [row.id for row in found]
    assert len(ids) == len(set(ids))
    assert {row.id for row in kept} <= set(ids)
    assert found == by(operations, order, found)


async def test_p07_a_mark_need_not_be_there(storage: Storage) -> None:
    """Promise 7: a mark is values, not a row: the row it was made of may be gone."""
    org = org_id()
    rows = sorted((sample(memberships, org) for _ in range(5)), key=lambda row: row.user_id)
    await storage.run(OrgScope(org), add_each, memberships, rows)
    await do(storage, OrgScope(org), "remove", memberships, org, rows[2].user_id)
    page = await look(storage, OrgScope(org), "page", memberships, after=[org, rows[2].user_id], limit=9)
    assert page == rows[3:]
    assert await look(storage, OrgScope(org), "page", memberships, after=[org, "\U0010ffff"], limit=9) == []


@pytest.mark.parametrize("order", [("purge_at",), ("-purge_at",), ("purge_at", "-name"), ("-purge_at", "suspended_by")])
async def test_p07_none_comes_first(storage: Storage, order: tuple[str, ...]) -> None:
    """Promise 7: None sorts first and last when descending, and a mark may hold it."""
    plan = token("plan")
    rows = [
        sample(
            organizations,
            org_id(),
            plan=plan,
            name="ab"[number % 2],
            purge_at=None if number % 3 else MORNING + timedelta(milliseconds=number),
            suspended_by=(None, "owner")[number % 2],
        )
        for number in range(9)
    ]
    await storage.run(SYSTEM, add_each, organizations, rows)
    found = await walk(storage, SYSTEM, organizations, {"plan": plan}, order, 2)
    assert found == by(organizations, order, rows)
    assert (found[0].purge_at is None) == (not order[0].startswith("-"))


@pytest.mark.parametrize(
    "where",
    [
        {"error": None},
        {"error": "x", "state": OperationState.RUNNING},
        {"progress": 0.25},
        {"attempts": -1, "error": None},
        {"created_at": MORNING},
        {"kind": "a"},
        {"kind": "A", "lease_owner": None},
    ],
    ids=str,
)
async def test_p07_where_is_equality(storage: Storage, where: dict[str, Any]) -> None:
    """Promise 7: rows equal to ``where`` and no others: None equals None, text equals itself only."""
    org = org_id()
    rows = crowd(org)
    await storage.run(OrgScope(org), add_each, operations, rows)
    expected = [row for row in rows if all(getattr(row, column) == value for column, value in where.items())]
    found = await walk(storage, OrgScope(org), operations, where, ("-created_at",), 2)
    assert found == by(operations, ("-created_at",), expected)


@pytest.mark.parametrize("kind", KINDS)
async def test_p07_documents_page_in_every_kind_of_space(storage: Storage, kind: PlacementKind) -> None:
    """Promise 7: a list means the same before and after a move: order and marks do not know the placement."""
    org = org_id()
    space = await home(storage, records, org, kind)
    rows = [sample(records, org, collection="ab"[number % 2], id=word) for number, word in enumerate(WORDS)]
    await storage.run(space, add_each, records, rows)
    for order in ((), ("-collection", "id"), ("-bytes",), ("created_at",)):
        assert await walk(storage, space, records, {}, order, 4) == by(records, order, rows)
    some = [row for row in rows if row.collection == "b"]
    assert await walk(storage, space, records, {"collection": "b"}, (), 2) == by(records, (), some)


@pytest.mark.parametrize("after", [[], ["x"], ["x", "y", "z"]], ids=len)
async def test_p07_a_mark_of_another_order_is_a_mistake(storage: Storage, after: list[str]) -> None:
    """Promise 7: ``after`` holds one value for each column of the total order."""
    with pytest.raises(ValueError, match="after"):
        await look(storage, OrgScope(org_id()), "page", memberships, after=after, limit=1)


@pytest.mark.parametrize("order", [order for order in ORDERS if order], ids=",".join)
async def test_p07_a_list_ends_where_it_is_told(storage: Storage, order: tuple[str, ...]) -> None:
    """Promise 7: ``until`` ends a list before its value, in either direction, wherever it began, with None first."""
    org = org_id()
    rows = crowd(org)
    await storage.run(OrgScope(org), add_each, operations, rows)
    expected = by(operations, order, rows)
    first, down = order[0].lstrip("-"), order[0].startswith("-")
    for until in support.sample("ends of a list", sorted({getattr(row, first) for row in rows} - {None}), 5):
        inside = [row for row in expected if (value := getattr(row, first)) is None or (value < until) is not down]
        inside = [row for row in inside if getattr(row, first) != until and not (down and getattr(row, first) is None)]
        for scope, where in ((OrgScope(org), {}), (SYSTEM, {"org_id": org})):
            for begin in (0, 1, len(rows) // 2):
                after = mark(operations, order, expected[begin - 1]) if begin else None
                found = await look(
                    storage, scope, "page", operations, where, order=order, after=after, until=until, limit=100
                )
                assert found == inside[begin:]
            limited = await look(storage, scope, "page", operations, where, order=order, until=until, limit=2)
            assert limited == inside[:2]


@pytest.mark.parametrize("kind", KINDS)
async def test_p07_a_list_of_keys_is_bounded_on_both_sides(storage: Storage, kind: PlacementKind) -> None:
    """Promise 7: between two texts that need not be there, by code point, behind fixed columns, in both directions."""
    org = org_id()
    space = await home(storage, index_entries, org, kind)
    given: dict[str, Any] = {"collection": "notes", "number": 1}
    rows = [sample(index_entries, org, **given, key=word) for word in WORDS]
    others = [sample(index_entries, org, **{**given, "number": 2}, key=word) for word in WORDS]
    await storage.run(space, add_each, index_entries, rows + others)
    bounds = (("", "b"), ("A", "\uffff"), ("a", "ab"), ("9", "9\x7f"), ("z", "\U0010ffff"), ("b", "b"), ("z", "a"))
    for low, high in bounds:
        expected = [row for row in by(index_entries, ("key",), rows) if low < row.key < high]
        for order, begin, end in (("key", low, high), ("-key", high, low)):
            after = [begin, org, "notes", 1]
            found = await look(
                storage, space, "page", index_entries, given, order=[order], after=after, until=end, limit=100
            )
            assert found == expected[:: -1 if order == "-key" else 1]


@pytest.mark.parametrize("order", [(), ("-id",), ("created_at",), ("-updated_at", "version")], ids=",".join)
@pytest.mark.parametrize("kind", KINDS)
async def test_p07_a_list_of_large_rows_ends_by_their_weight(
    storage: Storage, kind: PlacementKind, order: tuple[str, ...]
) -> None:
    """Promise 7: a page ends with the row that makes it heavy enough, and the next one goes on behind it."""
    org = org_id()
    space = await home(storage, records, org, kind)
    rows = [
        sample(records, org, collection="notes", created_at=MORNING + timedelta(seconds=number % 3), bytes=weight)
        for number, weight in enumerate([3, 90, 4, 1, 1, 200, 0, 50, 49, 1, 7, 0])
    ]
    await storage.run(space, add_each, records, rows)
    expected = by(records, order, rows)
    for limit, max_weight in ((100, 100), (3, 100), (100, 1), (100, 1000)):
        found: list[Any] = []
        while len(found) < len(rows):
            page = await look(
                storage,
                space,
                "page",
                records,
                {"collection": "notes"},
                order=order,
                after=mark(records, order, found[-1]) if found else None,
                limit=limit,
                max_weight=max_weight,
            )
            assert page, "it never ends before the list"
            assert sum(row.bytes for row in page[:-1]) < max_weight
            found += page
            heavy = sum(row.bytes for row in page) >= max_weight
            assert heavy or len(page) == limit or len(found) == len(rows)
        assert found == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_p07_rows_by_their_keys_are_bounded_by_weight(storage: Storage, kind: PlacementKind) -> None:
    """Promise 7: rows are left out only where those that were read are heavy enough."""
    org = org_id()
    space = await home(storage, records, org, kind)
    rows = [sample(records, org, bytes=10) for _ in range(9)]
    await storage.run(space, add_each, records, rows)
    keys = [key_of(records, row) for row in rows]
    for max_weight, count in ((1, 1), (10, 1), (11, 2), (45, 5), (90, 9), (91, 9)):
        found = await look(storage, space, "find_many", records, [*keys, (org, "no", "no")], max_weight=max_weight)
        assert len(found) == count
        assert all(row in rows for row in found)


async def test_p07_rows_without_weight_cannot_be_bounded_by_it(storage: Storage) -> None:
    """Promise 7: that is a mistake."""
    scope = OrgScope(org_id())
    with pytest.raises(ValueError, match="weight"):
        await look(storage, scope, "page", memberships, limit=1, max_weight=1)
    with pytest.raises(ValueError, match="weight"):
        await look(storage, scope, "find_many", memberships, [("a", "b")], max_weight=1)


@pytest.mark.parametrize(("where", "order"), [({}, ()), ({}, ("org_id",)), ({"kind": "x"}, ("-kind", "id"))])
async def test_p07_a_column_of_one_value_is_not_bounded(
    storage: Storage, where: dict[str, Any], order: tuple[str, ...]
) -> None:
    """Promise 7: where the scope or ``where`` fixes the first column of the order, ``until`` is a mistake."""
    with pytest.raises(ValueError, match="end"):
        await look(storage, OrgScope(org_id()), "page", operations, where, order=order, until="x", limit=1)


def test_p07_the_total_order_ends_with_the_key() -> None:
    """Promise 7: missing key columns are appended in the direction of the last named one."""
    assert total_order(memberships, ()) == ("org_id", "user_id")
    assert total_order(memberships, ("-created_at",)) == ("-created_at", "-org_id", "-user_id")
    assert total_order(memberships, ("-created_at", "role")) == ("-created_at", "role", "org_id", "user_id")
    assert total_order(memberships, ("-user_id",)) == ("-user_id", "-org_id")
