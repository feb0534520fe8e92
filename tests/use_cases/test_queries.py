"""Queries answer the same in the same order whatever is indexed, page by page."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import orjson
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orgstead import conditions, field_paths, queries, records
from orgstead.app import App
from orgstead.errors import InvalidCursor, NotFound
from orgstead.field_paths import ID
from orgstead.index_keys import order_key
from orgstead.model import Record
from orgstead.queries import Rules
from orgstead.record_errors import InvalidQuery, QueryUnindexed
from tests import apps
from tests.engines import empty_database, selected
from tests.support import EVERYTHING as EVERY_EXAMPLE
from tests.use_cases.record_values import documents, index_fields, orders, wheres
from tests.use_cases.shelves import EVERYTHING, Shelf

pytestmark = pytest.mark.anyio

numbers = count()


def expected(found: list[Record], where: Any, order: list[str]) -> list[str]:
    """The ids that a plain reading of the rules gives."""
    if where is not None:
        condition = conditions.parse(where)
        found = [record for record in found if condition.holds(record.id, record.data)]
    down = bool(order) and order[-1].startswith("-")

    def compare(one: Record, other: Record) -> int:
        for name in order:
            path = field_paths.parse(name.lstrip("-"))
            if path == ID:
                break
            left, right = (order_key(field_paths.value_at(record.data, path)) for record in (one, other))
            if left != right:
                return (-1 if left < right else 1) * (-1 if name.startswith("-") else 1)
        return (-1 if one.id < other.id else 1) * (-1 if down else 1)

    return [record.id for record in sorted(found, key=functools.cmp_to_key(compare))]


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """Documents, how they change, which indexes there are and since when, and what is asked then."""
    first = draw(st.lists(documents(), min_size=1, max_size=12))
    places = st.lists(st.integers(0, len(first) - 1), unique=True, max_size=4)
    return {
        "indexes": draw(st.lists(index_fields(), max_size=3)),
        "documents": first,
        "defined_first": draw(st.booleans()),
        "changed": {place: draw(st.none() | documents()) for place in draw(places)},
        "asked": draw(st.lists(st.tuples(wheres, orders(), st.integers(1, 5)), min_size=1, max_size=4)),
    }


@pytest.mark.timeout(1800)  # each example is dozens of transactions
@pytest.mark.parametrize("engine", selected())
def test_indexes_change_nothing_but_the_time_it_takes(engine: str) -> None:
    """Documents, indexes, changes and queries of any kind, against the plain reading of the rules."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(shelf_over(engine)) as shelf:

        @settings(max_examples=400 if EVERY_EXAMPLE else 20, suppress_health_check=[HealthCheck.too_slow])
        @given(scenarios())
        def play(scenario: dict[str, Any]) -> None:
            portal.call(played, shelf, scenario)

        play()
        portal.call(apps.assert_clean, shelf.app)


@asynccontextmanager
async def shelf_over(engine: str) -> AsyncIterator[Shelf]:
    async with empty_database(engine) as database, apps.opened(database) as app:
        yield await Shelf.made(app, plan="enterprise")


async def played(shelf: Shelf, scenario: dict[str, Any]) -> None:
    name = f"c{next(numbers)}"
    if scenario["defined_first"]:
        await shelf.define(name, indexes=scenario["indexes"])
    await shelf.fill(name, scenario["documents"])
    if not scenario["defined_first"]:
        await shelf.define(name, indexes=scenario["indexes"])
    for place, data in scenario["changed"].items():
        await (shelf.delete(name, f"r{place}") if data is None else shelf.replace(name, f"r{place}", data))
    kept = await shelf.walk(name, queries.parse())
    assert [record.id for record in kept] == expected(kept, None, [])
    for where, order, limit in scenario["asked"]:
        found = await shelf.walk(name, queries.parse(where, order), limit=limit)
        assert [record.id for record in found] == expected(kept, where, order)
        assert all(record in kept for record in found)


# --- which order, which page ------------------------------------------------------------------------------------------

CITIES = [
    {"city": "b", "price": 2},
    {"city": "a", "price": 3},
    {"city": "b", "price": 1},
    {"city": "a", "price": 1},
    {"price": 1},
    {"city": None, "price": 1},
    {"city": "a", "price": "1"},
]


@pytest.mark.parametrize("indexes", [[], [["city", "-price"]], [["city"], ["-price", "city"]], [["-city", "price"]]])
@pytest.mark.parametrize(
    ("where", "order", "wanted"),
    [
        (None, None, "0123456"),
        (None, ["-id"], "6543210"),
        (None, ["city"], "4513602"),
        (None, ["-city"], "2063154"),
        (None, ["city", "-price"], "4561302"),
        ({"field": "city", "eq": "a"}, ["-price"], "613"),
        ({"field": "city", "eq": "a"}, ["price"], "316"),
        ({"field": "city", "in": ["b", "a", None]}, ["price"], "235016"),
        ({"field": "city", "gte": "b"}, ["price"], "20"),
        ({"field": "id", "in": ["r5", "r1", "rx"]}, ["-price"], "15"),
        ({"field": "id", "gt": "r4"}, None, "56"),
        (
            {"field": "id", "prefix": "r"},
            [
                "-id",
            ],
            "6543210",
        ),
    ],
)
async def test_orders(app: App, indexes: Any, where: Any, order: Any, wanted: str) -> None:
    """Ties follow the id, in the direction of the last field; types sort before values."""
    shelf = await Shelf.made(app)
    await shelf.define("cities", indexes=indexes)
    await shelf.fill("cities", CITIES)
    kept = await shelf.walk("cities", queries.parse())
    assert [f"r{n}" for n in wanted] == expected(kept, where, order or [])
    for limit in (1, 2, 50):
        found = await shelf.walk("cities", queries.parse(where, order), limit=limit)
        assert [record.id for record in found] == [f"r{n}" for n in wanted]


@pytest.mark.parametrize("indexes", [[], [["price"]]])
async def test_a_page_goes_on_after_its_mark_whatever_changes(app: App, indexes: Any) -> None:
    """What was there at the start comes once, also when the marked record goes, or an index comes or goes between."""
    shelf = await Shelf.made(app)
    await shelf.define("items", indexes=indexes)
    await shelf.fill("items", [{"price": n // 2} for n in range(10)])
    query = queries.parse(None, ["-price"])
    first = await shelf.page("items", query, limit=3)
    assert [record.id for record in first.records] == ["r9", "r8", "r7"]
    await shelf.delete("items", "r7")
    await shelf.create("items", {"price": 3}, id="r70")
    await shelf.create("items", {"price": 99}, id="new")
    await shelf.define("items", indexes=[["price"]] if not indexes else [["other"]])
    second = await shelf.page("items", query, after=first.mark, limit=3)
    assert [record.id for record in second.records] == ["r6", "r5", "r4"]


async def test_unique_fields_serve_queries_too(app: App) -> None:
    """In both directions, also where the marked record gave up its value."""
    shelf = await Shelf.made(app)
    await shelf.define("items", unique=[["sku"]])
    await shelf.fill("items", [{"sku": n} for n in range(5)] + [{"sku": None}, {}, {"sku": None}])
    for order, wanted in ((["sku"], "65701234"), (["-sku"], "43210756")):
        for limit in (1, 3):
            found = await shelf.walk("items", queries.parse(None, order), limit=limit)
            assert "".join(record.id[1] for record in found) == wanted
    page = await shelf.page("items", queries.parse(None, ["-sku"]), limit=2)
    await shelf.delete("items", "r3")
    await shelf.create("items", {"sku": 3}, id="z")
    page = await shelf.page("items", queries.parse(None, ["-sku"]), after=page.mark, limit=2)
    assert [record.id for record in page.records] == ["r2", "r1"]
    assert await shelf.ask("items", {"field": "sku", "eq": 2.0}) == ["r2"]


# --- how much is looked at --------------------------------------------------------------------------------------------

FEW = Rules(max_examined=100, max_aggregated=100)
PATIENT = Rules(max_examined=100, max_aggregated=100, refuses=False)


@pytest.mark.parametrize(
    ("where", "order", "advised"),
    [
        ({"field": "city", "eq": "x"}, None, '["city"]'),
        ({"field": "city", "eq": "x"}, ["-price"], '["city","-price"]'),
        ({"field": "tags", "contains": "x"}, ["price"], '["tags[]","price"]'),
        ({"field": "address.zip", "gt": "x"}, None, '["address.zip"]'),
        (None, ["price", "city"], '["price","city"]'),
    ],
)
async def test_a_query_that_no_index_serves_is_refused_with_the_index_that_would(
    app: App, where: Any, order: Any, advised: str
) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n} for n in range(130)])
    query = queries.parse(where, order)
    with pytest.raises(QueryUnindexed) as raised:
        await shelf.page("items", query, rules=FEW)
    assert advised in raised.value.detail
    await shelf.define("items", indexes=[orjson.loads(advised)])
    await shelf.page("items", query, rules=FEW)


async def test_a_small_collection_is_looked_through(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n} for n in range(100)])
    query = queries.parse({"field": "n", "gte": 95}, ["-n"])
    page = await shelf.page("items", query, rules=FEW)
    assert [record.data["n"] for record in page.records] == [99, 98, 97, 96, 95]


async def test_what_is_limited_goes_on_where_it_stopped(app: App) -> None:
    """``records.unindexed = limit``: pages may be short or empty, and nothing is left out."""
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": n} for n in range(730)])
    query = queries.parse({"field": "n", "in": [250, 251, 700]})
    page = await shelf.page("items", query, rules=PATIENT)
    assert (page.records, page.mark is None) == ([], False)
    found = await shelf.walk("items", query, rules=PATIENT)
    assert sorted(record.data["n"] for record in found) == [250, 251, 700]
    with pytest.raises(QueryUnindexed):  # what must be sorted cannot be answered in part
        await shelf.page("items", queries.parse(None, ["n"]), rules=PATIENT)


async def test_a_page_ends_at_so_many_bytes(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE_BYTES", 1000)
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"text": "x" * 400, "n": n} for n in range(5)])
    for query in (queries.parse(), queries.parse(None, ["-n"])):
        assert len((await shelf.page("items", query)).records) == 2
        assert len(await shelf.walk("items", query)) == 5


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "select", "pointer"),
    [
        ("city", None, "/order"),
        ([1], None, "/order/0"),
        (["a", "b", "c", "d", "e"], None, "/order"),
        (["a", "-a"], None, "/order/1"),
        (["id", "a"], None, "/order/0"),
        (["--a", ""], None, "/order/1"),
        (None, ["a", "b..c"], "/select/1"),
        (None, {"a": 1}, "/select"),
        (None, ["a"] * 51, "/select"),
    ],
)
def test_orders_and_selections_that_are_none(order: Any, select: Any, pointer: str) -> None:
    with pytest.raises(InvalidQuery) as raised:
        queries.parse(None, order, select)
    assert [problem.pointer for problem in raised.value.problems] == [pointer]


async def test_a_collection_that_is_not_there(app: App) -> None:
    shelf = await Shelf.made(app)
    with pytest.raises(NotFound):
        await shelf.page("nothing")
    with pytest.raises(NotFound):
        await shelf.read(records.count, "nothing")


async def test_a_mark_of_another_order(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.fill("items", [{"n": 1}])
    with pytest.raises(InvalidCursor):
        await shelf.page("items", queries.parse(None, ["n"]), after=("r1",))


async def test_another_organization_finds_nothing(app: App) -> None:
    ours, theirs = await Shelf.made(app, "Ours"), await Shelf.made(app, "Theirs")
    for shelf in (ours, theirs):
        await shelf.define("items", indexes=[["city"]])
        await shelf.fill("items", [{"city": "x"}], shelf.placement.org_id)
    for where in (None, {"field": "city", "eq": "x"}, {"field": "id", "eq": f"{theirs.placement.org_id}0"}):
        found = await ours.ask("items", where)
        assert set(found) <= {f"{ours.placement.org_id}0"}


async def test_members_are_selected_inside_the_objects_around_them(app: App) -> None:
    shelf = await Shelf.made(app)
    data = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f.g": 4, "h": 5, "id": 6}
    await shelf.fill("items", [data])
    (record,) = (await shelf.page("items", rules=EVERYTHING)).records
    for names, wanted in (
        (["a.b.c", "h"], {"a": {"b": {"c": 1}}, "h": 5}),
        (["a.b.c", "a.b", "/f.g"], {"a": {"b": {"c": 1, "d": 2}}, "f.g": 4}),
        (["a.e", "a.b.d", "a.x", "h.x"], {"a": {"e": 3, "b": {"d": 2}}}),
        (["/id"], {"id": 6}),
        ([], {}),
    ):
        assert queries.shown(record, queries.parse(select=names).select)["data"] == wanted
    assert record.data == data
    assert queries.shown(record)["data"] == data
