"""Conditions: what each operator means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from orgstead import conditions
from orgstead.record_errors import InvalidQuery
from tests.use_cases.record_values import documents, leaves, wheres

DATA = {
    "n": 1,
    "f": 1.5,
    "big": 2**53 + 1,
    "s": "abc",
    "null": None,
    "t": True,
    "list": [1, "a", None, [2]],
    "o": {"x": {"y": 7}, "a.b": 1},
    "": "empty",
    "$set": 1,
    "__proto__": 2,
    "org_id": "org_other",
}


def holds(field: str, op: str, operand: Any) -> bool:
    return conditions.parse({"field": field, op: operand}).holds("rec_1", DATA)


@pytest.mark.parametrize(
    ("field", "op", "operand"),
    [
        ("n", "eq", 1),
        ("n", "eq", 1.0),
        ("n", "ne", True),
        ("t", "eq", True),
        ("t", "ne", 1),
        ("null", "eq", None),
        ("null", "exists", True),
        ("gone", "exists", False),
        ("gone", "ne", None),
        ("gone", "ne", 1),
        ("big", "eq", 2**53 + 1),
        ("big", "ne", 2**53),
        ("big", "gt", float(2**53)),
        ("n", "in", ["x", 1]),
        ("null", "in", [None]),
        ("n", "gt", 0.5),
        ("n", "gte", 1),
        ("f", "lt", 2),
        ("f", "lte", 1.5),
        ("s", "gt", "abb"),
        ("s", "lt", "abcd"),
        ("s", "prefix", "ab"),
        ("s", "prefix", ""),
        ("list", "contains", 1.0),
        ("list", "contains", None),
        ("list", "exists", True),
        ("list", "ne", 1),
        ("o.x.y", "eq", 7),
        ("/o/a.b", "eq", 1),
        ("/", "eq", "empty"),
        ("$set", "eq", 1),
        ("__proto__", "eq", 2),
        ("org_id", "eq", "org_other"),
        ("id", "eq", "rec_1"),
        ("/id", "exists", False),
    ],
)
def test_it_holds(field: str, op: str, operand: Any) -> None:
    assert holds(field, op, operand)
    assert not conditions.parse({"not": {"field": field, op: operand}}).holds("rec_1", DATA)


@pytest.mark.parametrize(
    ("field", "op", "operand"),
    [
        ("n", "eq", True),
        ("n", "eq", "1"),
        ("null", "eq", False),
        ("gone", "eq", None),
        ("gone", "in", [None]),
        ("gone", "gt", 0),
        ("gone", "prefix", ""),
        ("gone", "contains", None),
        ("null", "lte", 0),
        ("n", "in", []),
        ("s", "gt", 5),
        ("n", "lt", "z"),
        ("t", "gt", 0),
        ("n", "prefix", "1"),
        ("s", "contains", "a"),
        ("list", "contains", 2),
        ("list", "eq", 1),
        ("list.0", "eq", 1),
        ("o.x", "eq", 7),
        ("o.a.b", "eq", 1),
        ("big", "eq", 2**53),
        ("big", "eq", float(2**53)),
    ],
)
def test_it_does_not_hold(field: str, op: str, operand: Any) -> None:
    assert not holds(field, op, operand)


@given(leaves, documents())
def test_a_condition_or_its_opposite_holds(leaf: Any, data: dict[str, Any]) -> None:
    condition, opposite = conditions.parse(leaf), conditions.parse({"not": leaf})
    assert condition.holds("r1", data) is not opposite.holds("r1", data)
    if "eq" in leaf:
        other = conditions.parse({"field": leaf["field"], "ne": leaf["eq"]})
        assert other.holds("r1", data) is opposite.holds("r1", data)


@given(wheres, documents())
def test_every_condition_of_the_grammar_can_be_asked(where: Any, data: dict[str, Any]) -> None:
    if where is not None:
        assert conditions.parse(where).holds("r1", data) in (True, False)


def nested(depth: int) -> Any:
    return {"field": "a", "eq": 1} if depth == 1 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("where", "pointer"),
    [
        ([], "/where"),
        ("a", "/where"),
        ({}, "/where"),
        ({"field": "a"}, "/where"),
        ({"field": "a", "eq": 1, "gt": 0}, "/where"),
        ({"field": "a", "$where": "1"}, "/where"),
        ({"field": "a", "$regex": "(a+)+$"}, "/where"),
        ({"$or": [{}, {"org_id": "B"}]}, "/where"),
        ({"org_id": "B"}, "/where"),
        ({"and": []}, "/where/and"),
        ({"and": {}}, "/where/and"),
        ({"and": [{"field": "a", "eq": 1}, {"$expr": 1}]}, "/where/and/1"),
        ({"not": [{"field": "a", "eq": 1}]}, "/where/not"),
        ({"not": {"$function": {}}}, "/where/not"),
        ({"field": "a", "eq": {"$ne": None}}, "/where/eq"),
        ({"field": "a", "eq": ["a"]}, "/where/eq"),
        ({"field": "a", "in": "abc"}, "/where/in"),
        ({"field": "a", "in": [1, {"$gt": ""}]}, "/where/in/1"),
        ({"field": "a", "in": [1] * 101}, "/where/in"),
        ({"field": "a", "eq": "\0"}, "/where/eq"),
        ({"field": "a", "prefix": "\ud800"}, "/where/prefix"),
        ({"field": "a", "in": [2**63]}, "/where/in/0"),
        ({"field": "a", "lt": float("inf")}, "/where/lt"),
        ({"field": "a\ud800", "eq": 1}, "/where/field"),
        ({"field": "a", "gt": None}, "/where/gt"),
        ({"field": "a", "gt": True}, "/where/gt"),
        ({"field": "a", "prefix": 1}, "/where/prefix"),
        ({"field": "a", "exists": 1}, "/where/exists"),
        ({"field": "", "eq": 1}, "/where/field"),
        ({"field": "a..b", "eq": 1}, "/where/field"),
        ({"field": "/a~2", "eq": 1}, "/where/field"),
        ({"field": "a\0", "eq": 1}, "/where/field"),
        ({"field": 1, "eq": 1}, "/where/field"),
        ({"field": "a" * 251, "eq": 1}, "/where/field"),
        ({"field": ".".join("a" * 17), "eq": 1}, "/where/field"),
        (nested(6), "/where/not/not/not/not/not"),
        ({"or": [{"field": "a", "eq": 1}] * 50}, "/where/or/49"),
    ],
)
def test_what_is_no_condition_is_refused(where: Any, pointer: str) -> None:
    with pytest.raises(InvalidQuery) as raised:
        conditions.parse(where)
    assert [problem.pointer for problem in raised.value.problems] == [pointer]


def test_the_bounds_themselves_are_allowed() -> None:
    conditions.parse(nested(5))
    conditions.parse({"or": [{"field": "a", "eq": 1}] * 49})
    conditions.parse({"field": "a", "in": [1] * 100})
