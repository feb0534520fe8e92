"""Schemas: which are taken, and that none can be made to cost more than its size."""

from __future__ import annotations

from typing import Any

import pytest

from orgstead import json_schemas
from orgstead.record_errors import InvalidDefinition


def doubling(depth: int) -> dict[str, Any]:
    """A schema of a few hundred bytes that stands for 2**depth subschemas."""
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**definitions, f"d{depth}": {"type": "object"}}, "$ref": "#/$defs/d0"}


def deep(depth: int) -> dict[str, Any]:
    return {"not": deep(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ([], "/schema"),
        (True, "/schema"),
        ({"type": "nonsense"}, "/schema/type"),
        ({"minimum": "x"}, "/schema/minimum"),
        ({"properties": {"a": 1}}, "/schema/properties/a"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/schema/$schema"),
        ({"$schema": 5}, "/schema/$schema"),
        ({"$schema": None}, "/schema/$schema"),
        ({"$schema": ["https://json-schema.org/draft/2020-12/schema"]}, "/schema/$schema"),
        ({"$ref": "http://example.com/schema"}, "/schema/$ref"),
        ({"$ref": "file:///etc/passwd"}, "/schema/$ref"),
        ({"$ref": "other.json#/a"}, "/schema/$ref"),
        ({"$ref": "#name"}, "/schema/$ref"),
        ({"$ref": "#/$defs/nothing"}, "/schema/$ref"),
        ({"$ref": 1}, "/schema/$ref"),
        ({"$ref": "#"}, "/schema/$ref"),
        ({"properties": {"child": {"$ref": "#"}}}, "/schema/properties/child/$ref"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, "/schema/$defs/a/$ref/$ref"),
        ({"$defs": {"x%41": {}, "xA": {"not": {"$ref": "#/$defs/x%41"}}}}, "/schema/$defs/xA/not/$ref/not/$ref"),
        ({"allOf": [{}], "not": {"$ref": "#/allOf/+0"}}, "/schema/not/$ref"),
        ({"dependencies": {"a": {"required": ["b"]}}}, "/schema/dependencies"),
        ({"contentSchema": {"$ref": "#/contentSchema"}}, "/schema/contentSchema/$ref/$ref"),
        ({"$dynamicRef": "#meta"}, "/schema/$dynamicRef"),
        ({"properties": {"a": {"$id": "http://example.com/"}}}, "/schema/properties/a/$id"),
        ({"pattern": "(?=a)b"}, "/schema/pattern"),
        ({"pattern": r"(a)\1"}, "/schema/pattern"),
        ({"pattern": "("}, "/schema/pattern"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "/schema/pattern"),
        ({"properties": {f"p{n}": {} for n in range(2001)}}, "/schema/properties/p1999"),
        ({"title": "x" * 70_000}, "/schema"),
        ({"maximum": 2**70}, "/schema"),
    ],
    ids=str,
)
def test_schemas_that_are_refused(schema: Any, pointer: str) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        json_schemas.checked(schema)
    assert [problem.pointer for problem in raised.value.problems] == [pointer]


@pytest.mark.parametrize("schema", [doubling(12), deep(33)], ids=["doubling", "deep"])
def test_schemas_that_would_cost_too_much(schema: Any) -> None:
    with pytest.raises(InvalidDefinition):
        json_schemas.checked(schema)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, {"a": 1}, None),
        (doubling(5), {}, None),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/x"}, {}, None),
        ({"$defs": {"n": {"minimum": 3}}, "properties": {"a": {"$ref": "#/$defs/n"}}}, {"a": 3}, {"a": 2}),
        ({"properties": {"a b": {"minimum": 3}, "c": {"$ref": "#/properties/a%20b"}}}, {"c": 3}, {"c": 2}),
        ({"properties": {"a": {"format": "email"}}}, {"a": "x@example.com"}, {"a": "x"}),
        ({"properties": {"a": {"maximum": 2**53}}}, {"a": 2**53}, {"a": 2**53 + 1}),
        ({"properties": {"a": {"enum": [1, None]}}}, {"a": 1.0}, {"a": True}),
        ({"properties": {"$ref": {"type": "string"}}}, {"$ref": "x"}, {"$ref": 1}),
        ({"properties": {"a": {"const": {"$ref": "http://example.com"}}}}, {}, {"a": 1}),
    ],
)
def test_schemas_that_are_taken(schema: Any, good: Any, bad: Any) -> None:
    text = json_schemas.checked(schema)
    assert json_schemas.problems_of(text, good, "code") == []
    if bad is not None:
        assert json_schemas.problems_of(text, bad, "code")


def test_a_pattern_takes_time_in_proportion_to_the_text() -> None:
    """With a backtracking engine this would not end."""
    text = json_schemas.checked({"properties": {"a": {"pattern": "^(a+)+$"}}})
    assert json_schemas.problems_of(text, {"a": "a" * 100_000 + "!"}, "code")


def test_no_more_violations_are_named_than_can_be_read() -> None:
    text = json_schemas.checked({"additionalProperties": {"type": "string"}})
    assert len(json_schemas.problems_of(text, {f"a{n}": 1 for n in range(500)}, "code")) == json_schemas.MAX_PROBLEMS


HOSTILE: dict[str, tuple[Any, Any]] = {
    "a long enum for each of many": (
        {"properties": {"a": {"items": {"enum": list(range(1_000_000, 1_003_000))}}}},
        {"a": [5] * 30_000},
    ),
    "many branches for each of many": (
        {"properties": {"a": {"items": {"anyOf": [{"type": "null"}] * 1900}}}},
        {"a": [1] * 9000},
    ),
    "many branches over a large record": (
        {"anyOf": [{"maxProperties": 0}] * 1900},
        {f"k{n}": "x" * 90 for n in range(9000)},
    ),
    "many references to one of them": (
        {
            "$defs": {"e": {"enum": ["x" * 60] * 500}},
            "properties": {"a": {"items": {"allOf": [{"$ref": "#/$defs/e"}] * 900}}},
        },
        {"a": [1] * 9000},
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_naming_the_violations_costs_no_more_than_a_bound(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator would make gigabytes of them at once: it is not asked for them."""
    schema, data = HOSTILE[case]
    text = json_schemas.checked(schema)
    validator = json_schemas._validator(text)

    class OnlyAsked:
        def is_valid(self, data: Any) -> bool:
            return validator.is_valid(data)

    monkeypatch.setattr(json_schemas, "_validator", lambda _: OnlyAsked())
    (problem,) = json_schemas.problems_of(text, data, "code")
    assert problem.pointer == "/data"


def test_the_same_violation_is_named_once() -> None:
    text = json_schemas.checked({"allOf": [{"required": ["a"]}] * 30, "required": ["b"]})
    found = [problem.pointer for problem in json_schemas.problems_of(text, {}, "code")]
    assert sorted(found) == ["/data/a", "/data/b"]


def test_records_of_ordinary_size_have_their_violations_named() -> None:
    """Ten kilobytes, and a schema with choices, alternatives and references."""
    schema = {
        "$defs": {"address": {"properties": {"zip": {"pattern": "^[0-9]{5}$"}}, "required": ["town"]}},
        "properties": {
            "kind": {"enum": [f"kind {n}" for n in range(8)]},
            "home": {"$ref": "#/$defs/address"},
            "contact": {"anyOf": [{"required": ["email"]}, {"required": ["phone"]}]},
            "note": {"type": "string"},
        },
    }
    data = {"kind": "none", "home": {"zip": "x"}, "contact": {}, "note": "x" * 8000}
    found = {problem.pointer for problem in json_schemas.problems_of(json_schemas.checked(schema), data, "code")}
    assert found == {"/data/kind", "/data/home/zip", "/data/home/town", "/data/contact"}
