"""Rows as documents: keys that sort as their values, JSON that comes back exactly, conditions that lose nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orgstead.storage.mongodb.documents import all_of, layout_of
from orgstead.storage.mongodb.json_values import escaped, unescaped
from orgstead.storage.tables import SPACE, TABLES, audit_entries, memberships, records, slots
from tests.rows import org_id, sample

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
number = st.integers(-(2**63), 2**63 - 1)
tricky_key = st.text(st.sampled_from("a.$%2E45"), max_size=5)
json = st.recursive(
    st.none() | st.booleans() | number | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text | tricky_key, inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(st.tuples(text, number, number), unique=True, max_size=8))
def test_keys_sort_as_their_values(keys: list[tuple[str, int, int]]) -> None:
    layout = layout_of(slots)
    by_id = sorted(keys, key=lambda key: layout.id(key).encode())
    assert by_id == sorted(keys, key=lambda key: (key[0].encode(), *key[1:]))
    assert len({layout.id(key) for key in keys}) == len(keys)


@given(text, text, text)
def test_a_range_holds_an_organization_and_no_other(org: str, other: str, id: str) -> None:
    for shared in (False, True):
        layout = layout_of(records, shared=shared)
        bounds = layout.range([org])
        inside = bounds["$gte"].encode() <= layout.id([other, "c", id]).encode() < bounds["$lt"].encode()
        assert inside == (org == other)


def test_tables_that_share_a_collection_are_apart() -> None:
    ranges = sorted((bounds["$gte"], bounds["$lt"]) for bounds in (layout_of(t, shared=True).range([]) for t in SPACE))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(ranges))


@given(json)
def test_json_comes_back_exactly(value: Any) -> None:
    assert repr(unescaped(escaped({"x": value}))) == repr({"x": value})


@given(st.dictionaries(text | tricky_key, st.just(1)))
def test_no_stored_key_means_anything_to_the_server(value: dict[str, int]) -> None:
    stored = escaped(value)
    assert len(stored) == len(value)
    assert all(key and "." not in key and not key.startswith("$") for key in stored)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_document_carries_its_organization(table: Any) -> None:
    org = org_id()
    layout = layout_of(table)
    document = layout.document(sample(table, org))
    if table.scope is not None:
        assert org in (document["_id"], document.get(table.scope))
        assert str(document["_id"]).startswith(org)
    assert layout.row(document | {"_lock": 7}) is not None


def test_conditions_are_joined_without_losing_one() -> None:
    assert all_of([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}
    assert all_of([{"a": 1}, {"a": {"$lte": 5}}]) == {"a": {"$eq": 1, "$lte": 5}}
    assert all_of([{"a": {"$gte": 1}}, {"a": {"$lte": 5}}]) == {"a": {"$gte": 1, "$lte": 5}}
    assert all_of([{"a": 1}, {"a": 2}]) == {"$and": [{"a": 1}, {"a": 2}]}
    assert all_of([{"$or": [{"a": 1}]}, {"$or": [{"b": 1}]}]) == {"$and": [{"$or": [{"a": 1}]}, {"$or": [{"b": 1}]}]}
    assert all_of([]) == {}


def test_unique_constraints_are_known_by_paths_and_by_name() -> None:
    for table in TABLES:
        layout = layout_of(table)
        for name, columns in (table.unique or {}).items():
            assert layout.constraint([layout.paths[column] for column in columns], "") == name
            assert layout.constraint([], f"E11000 duplicate key error collection: x index: {name} dup key: ") == name
        assert layout.constraint(["_id"], "") == table.key_constraint
    assert layout_of(memberships).id(["o", "u"]) == "o\0u"
    assert layout_of(audit_entries).id(["o", -(2**63)]) == "o\x000000000000000000"
