"""Keys of indexes sort as the values they stand for, whatever the values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orgstead import index_keys
from orgstead.field_paths import MISSING
from orgstead.index_keys import HIGH, MAX_KEY, Index, IndexField, at, component, inverted, keys_of, order_key, tie
from orgstead.record_errors import InvalidRecord
from tests.use_cases.record_values import NUMBERS, TEXTS, scalars, texts

RANKED: list[Any] = [MISSING, None, False, True, *NUMBERS, *TEXTS, [], [1], {}, {"a": 1}]
ANYTHING = scalars | st.sampled_from(RANKED)
IDS = st.text(st.sampled_from("aA0.~_-z"), min_size=1, max_size=4)


def compared(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


@given(ANYTHING, ANYTHING)
def test_components_sort_as_their_values(one: Any, other: Any) -> None:
    wanted = compared(order_key(one), order_key(other))
    assert compared(component(one), component(other)) == wanted
    assert compared(inverted(component(one)), inverted(component(other))) == -wanted


def test_every_pair_of_awkward_values() -> None:
    for one in RANKED:
        for other in RANKED:
            wanted = compared(order_key(one), order_key(other))
            assert compared(component(one), component(other)) == wanted, (one, other)
            assert compared(inverted(component(one)), inverted(component(other))) == -wanted, (one, other)


@given(ANYTHING, ANYTHING)
def test_no_component_begins_another_and_all_that_follows_is_below_high(one: Any, other: Any) -> None:
    for parts in ((component(one), component(other)), (inverted(component(one)), inverted(component(other)))):
        if parts[0] != parts[1]:
            assert not parts[0].startswith(parts[1])
            assert (parts[0] + HIGH < parts[1]) is (parts[0] < parts[1])


@given(IDS, IDS)
def test_ties_sort_as_ids(one: str, other: str) -> None:
    assert compared(tie(one, down=False), tie(other, down=False)) == compared(one, other)
    assert compared(tie(one, down=True), tie(other, down=True)) == compared(other, one)
    assert tie(one, down=False) < HIGH
    assert tie(one, down=True) < HIGH


@given(texts, texts, st.booleans())
def test_the_range_of_a_prefix_holds_the_texts_that_begin_with_it(prefix: str, text: str, down: bool) -> None:
    keys = index_keys.beginning("head", prefix, down=down)
    for begun in (text, prefix, prefix + text):
        key = at("head", begun, down=down) + "id"
        assert (keys.low < key < keys.high) is begun.startswith(prefix)
    others: list[Any] = [None, MISSING, True, 1, []]
    for value in others:
        assert not keys.low < at("head", value, down=down) + "id" < keys.high


@given(ANYTHING, st.one_of(texts, st.integers(-5, 5), st.floats(-5, 5)), st.booleans(), st.booleans())
def test_a_range_holds_the_values_within_its_bounds(value: Any, bound: Any, included: bool, down: bool) -> None:
    rank = index_keys.rank_of(bound)
    key = at("head", value, down=down) + "id"
    same = index_keys.rank_of(value) == rank
    above = index_keys.between("head", down=down, rank=rank, above=(bound, included))
    assert (above.low < key < above.high) is (same and (value >= bound if included else value > bound))
    below = index_keys.between("head", down=down, rank=rank, below=(bound, included))
    assert (below.low < key < below.high) is (same and (value <= bound if included else value < bound))


@given(ANYTHING, st.booleans())
def test_what_is_present_is_all_but_missing(value: Any, down: bool) -> None:
    keys = index_keys.present("head", down=down)
    assert (keys.low < at("head", value, down=down) + "id" < keys.high) is (value is not MISSING)


# --- entries ----------------------------------------------------------------------------------------------------------


def index(*names: str, unique: bool = False) -> Index:
    return Index(1, tuple(IndexField.parse(name) for name in names), unique)


def test_a_record_has_an_entry_for_each_different_element() -> None:
    found = list(keys_of(index("tags[]", "-price"), "r", {"tags": ["a", "b", "a", 1, 1.0, []], "price": 2}))
    assert len(found) == len(set(found)) == 4
    others: list[dict[str, Any]] = [{}, {"tags": "a"}, {"tags": []}, {"tags": None}]
    for data in others:
        assert list(keys_of(index("tags[]"), "r", data)) == []


def test_a_claim_is_the_same_for_every_record_unless_a_value_is_null_or_missing() -> None:
    sku = index("sku", "-place", unique=True)
    full = {"sku": "x", "place": 1}
    assert list(keys_of(sku, "a", full)) == list(keys_of(sku, "b", {"place": 1.0, "sku": "x"}))
    for data in ({"sku": "x"}, {"sku": None, "place": 1}, {}):
        one, other = (list(keys_of(sku, record_id, data)) for record_id in "ab")
        assert one != other
        assert not index_keys.is_claim(one[0])
    assert index_keys.is_claim(next(keys_of(sku, "a", full)))


@pytest.mark.parametrize(
    ("fields", "data", "pointer"),
    [
        (("city",), {"city": "x" * 501}, "/data/city"),
        (("-city",), {"city": "ä" * 251}, "/data/city"),
        (("address.city",), {"address": {"city": "😀" * 126}}, "/data/address/city"),
        (("/a.b~1c",), {"a.b/c": "x" * 501}, "/data/a.b~1c"),
        (("tags[]",), {"tags": ["x" * 501]}, "/data/tags"),
        (("tags[]",), {"tags": list(range(101))}, "/data/tags"),
        (("a", "b", "c", "d"), dict.fromkeys("abcd", "x" * 400), "/data/a"),
    ],
)
def test_what_cannot_be_indexed_is_named(fields: tuple[str, ...], data: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidRecord) as raised:
        list(keys_of(index(*fields), "r", data))
    assert [problem.pointer for problem in raised.value.problems] == [pointer]


def test_unique_fields_hold_scalars() -> None:
    refused: list[Any] = [[], {}, [1]]
    for value in refused:
        with pytest.raises(InvalidRecord):
            list(keys_of(index("sku", unique=True), "r", {"sku": value}))


@given(st.dictionaries(st.sampled_from("abc"), texts | scalars), IDS)
def test_keys_stay_below_what_every_engine_takes(data: dict[str, Any], record_id: str) -> None:
    for key in keys_of(index("a", "-b", "c"), record_id * 32, data):
        assert len(key.encode()) <= MAX_KEY + 2 * 128 + 1
