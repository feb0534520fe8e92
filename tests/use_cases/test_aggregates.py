"""Aggregates are exact, and do not depend on the order in which records are read."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orgstead import aggregates
from orgstead.aggregates import _Average, _Extreme, _Sum
from orgstead.app import App
from orgstead.errors import NotFound
from orgstead.queries import Rules
from orgstead.record_errors import InvalidQuery, QueryTooLarge, QueryUnindexed
from tests.use_cases.record_values import numbers, scalars
from tests.use_cases.shelves import EVERYTHING, Shelf

pytestmark = pytest.mark.anyio

MEASURES = {
    "n": {"count": True},
    "total": {"sum": "price"},
    "mean": {"avg": "price"},
    "least": {"min": "price"},
    "most": {"max": "price"},
}
SALES: list[dict[str, Any]] = [
    {"city": "b", "price": 2},
    {"city": "a", "price": 2**53 + 1},
    {"city": "a", "price": -1},
    {"city": "b", "price": 0.5},
    {"city": "b", "price": "text"},
    {"city": None},
    {"price": True},
    {"city": 1.0, "price": [1]},
    {"city": 1, "price": None},
]


async def asked(shelf: Shelf, rules: Rules = EVERYTHING, **request: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await shelf.read(aggregates.run, "sales", aggregates.parse(**request), rules)
    return found


@pytest.mark.parametrize("indexes", [[], [["city"]], [["city", "-price"]]])
async def test_groups(app: App, indexes: Any) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("sales", indexes=indexes)
    await shelf.fill("sales", SALES)
    assert await asked(shelf, group_by=["city"], measures=MEASURES) == [
        {"n": 1, "total": None, "mean": None, "least": True, "most": True},
        {"city": None, "n": 1, "total": None, "mean": None, "least": None, "most": None},
        {"city": 1, "n": 2, "total": None, "mean": None, "least": None, "most": None},
        {"city": "a", "n": 2, "total": 2**53, "mean": 2.0**52, "least": -1, "most": 2**53 + 1},
        {"city": "b", "n": 3, "total": 2.5, "mean": 1.25, "least": 0.5, "most": "text"},
    ]
    where = {"field": "city", "in": ["a", "b"]}
    assert await asked(shelf, where=where, measures={"n": {"count": True}, "total": {"sum": "price"}}) == [
        {"n": 5, "total": float(2**53 + 2)}
    ]
    assert await asked(shelf, where={"field": "city", "eq": "x"}, measures=MEASURES) == [
        {"n": 0, "total": None, "mean": None, "least": None, "most": None}
    ]
    assert await asked(shelf, where={"field": "city", "eq": "x"}, group_by=["city"], measures=MEASURES) == []
    assert await asked(shelf, measures={"n": {"count": True}, "m": {"count": True}}) == [{"n": 9, "m": 9}]


@given(st.lists(numbers | scalars), st.randoms(use_true_random=False))
def test_a_sum_is_rounded_once_and_in_no_order(values: list[Any], shuffled: random.Random) -> None:
    exact = sum((Fraction(value) for value in values if type(value) in (int, float)), Fraction())
    results = []
    for _ in range(2):
        figures: list[Any] = [_Sum(), _Average(), _Extreme(False), _Extreme(True)]
        try:
            for value in values:
                for figure in figures:
                    figure.take(value)
            results.append(repr([figure.result() for figure in figures]))
        except InvalidQuery:
            results.append("beyond")
            continue
        total = figures[0].result()
        if total is None:
            assert not [value for value in values if type(value) in (int, float)]
        elif isinstance(total, int):
            assert total == exact
        else:
            assert total == float(exact)
        shuffled.shuffle(values)
    assert results[0] == results[1]


HUGE = (1e308, 1e308, -1e308, -1e308, 1)


@pytest.mark.parametrize("values", sorted(set(itertools.permutations(HUGE))), ids=str)
def test_numbers_that_are_too_large_only_on_the_way_have_a_sum(values: tuple[Any, ...]) -> None:
    total, mean = _Sum(), _Average()
    for value in values:
        total.take(value)
        mean.take(value)
    assert (total.result(), mean.result()) == (1.0, 0.2)


def test_what_is_beyond_the_greatest_number_has_an_average_and_no_sum() -> None:
    total, mean = _Sum(), _Average()
    for _ in range(3):
        total.take(1.5e308)
        mean.take(1.5e308)
    assert mean.result() == 1.5e308
    with pytest.raises(InvalidQuery):
        total.result()


@pytest.mark.parametrize("indexes", [[], [["city"]]])
async def test_an_index_changes_no_sum(app: App, indexes: Any) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("sales", indexes=indexes)
    await shelf.fill("sales", [{"city": city, "price": price} for city, price in zip("acbde", HUGE, strict=True)])
    where = {"field": "city", "prefix": ""}
    assert await asked(shelf, where=where, measures={"total": {"sum": "price"}}) == [{"total": 1.0}]


def test_a_sum_beyond_64_bits_is_the_nearest_float() -> None:
    figure = _Sum()
    for _ in range(3):
        figure.take(2**63 - 1)
    assert figure.result() == float(3 * (2**63 - 1))
    assert isinstance(figure.result(), float)


async def test_how_much_an_aggregate_is_made_of_is_bounded(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("sales", indexes=[["city"]])
    await shelf.fill("sales", [{"city": "a" if n < 150 else "b", "n": n} for n in range(160)])
    few = Rules(max_examined=100, max_aggregated=100)
    assert await asked(shelf, few, measures={"n": {"count": True}}) == [{"n": 160}]
    assert await asked(shelf, few, where={"field": "city", "eq": "b"}, measures={"n": {"sum": "n"}}) == [{"n": 1545}]
    with pytest.raises(QueryTooLarge):
        await asked(shelf, few, where={"field": "city", "eq": "a"}, measures={"n": {"sum": "n"}})
    with pytest.raises(QueryTooLarge):
        await asked(shelf, few, group_by=["city"], measures={"n": {"count": True}})
    with pytest.raises(QueryUnindexed, match="n"):
        await asked(shelf, few, where={"field": "n", "eq": 1}, measures={"n": {"count": True}})


async def test_groups_are_bounded(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "MAX_GROUPS", 3)
    shelf = await Shelf.made(app)
    await shelf.fill("sales", [{"n": n, "long": "x" * 501} for n in range(4)])
    for name in ("n", "long"):
        with pytest.raises(QueryTooLarge):
            await asked(shelf, group_by=[name], measures={"c": {"count": True}})
    with pytest.raises(NotFound):
        await shelf.read(aggregates.run, "nothing", aggregates.parse(measures={"c": {"count": True}}), EVERYTHING)


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({"measures": None}, "/measures"),
        ({"measures": {}}, "/measures"),
        ({"measures": {"a": {"count": 1}}}, "/measures/a/count"),
        ({"measures": {"a": {"sum": 1}}}, "/measures/a/sum"),
        ({"measures": {"a": {"count": True}, "b": {"$accumulator": "x"}}}, "/measures/b"),
        ({"measures": {"a/b~c": {"$accumulator": "x"}}}, "/measures/a~1b~0c"),
        ({"measures": {"a": {"sum": "x", "avg": "x"}}}, "/measures/a"),
        ({"measures": {"city": {"count": True}}, "group_by": ["city"]}, "/measures/city"),
        ({"measures": {"city": {"count": True}}, "group_by": ["city", "price", "city"]}, "/group_by/2"),
        ({"measures": {"a": {"count": True}}, "group_by": ["city", "/city"]}, "/group_by/1"),
        ({"measures": {"a": {"count": True}}, "group_by": "city"}, "/group_by"),
        ({"measures": {"a": {"count": True}}, "group_by": ["a..b"]}, "/group_by/0"),
        ({"measures": {"a": {"count": True}}, "where": {"$where": "1"}}, "/where"),
        ({"measures": {f"m{n}": {"count": True} for n in range(21)}}, "/measures"),
    ],
)
def test_what_is_no_aggregate(request_: Any, pointer: str) -> None:
    with pytest.raises(InvalidQuery) as raised:
        aggregates.parse(**request_)
    assert [problem.pointer for problem in raised.value.problems] == [pointer]
