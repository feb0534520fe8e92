"""Promise 5: values come back as they went in, type and all; what could not is refused with ``InvalidValue``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orgstead.errors import AlreadyExists, InvalidValue
from orgstead.model import PlacementKind, Role
from orgstead.storage.port import OrgScope, Storage, Table
from orgstead.storage.tables import (
    DIRECTORY,
    TABLES,
    audit_entries,
    events,
    memberships,
    operations,
    organizations,
    users,
)
from tests.contract.work import SYSTEM, do, home, look, places, rows_of
from tests.rows import MORNING, column_types, key_of, org_id, sample, token

TEXTS = {
    "empty": "",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 🤷🏽‍♀️",
    "dotted capital i": "İstanbul İ i ı I",
    "trailing spaces": "  both sides  \t\n ",
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "full width": "Ａｃｍｅ　（株）",
    "right to left": "مرحبا \u202e override",
    "quotes": "'\"`;--\\ %_ $1 ? :x {} \\u0041",
    "control": "".join(chr(number) for number in range(1, 32)) + "\x7f\x80\x85",
    "noncharacters": "\ufffe \uffff \ufffd \ufeff \U0010ffff",
    "long": "ä" * 20_000,
    "looks like a number": "0012.50e3",
    "looks like null": "null",
}

NUMBERS = [0, -1, 2**31, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]

FLOATS = [0.0, 0.1, -1.5, 1.0, 1e16, 1e300, 1.7976931348623157e308, 5e-324, 0.1 + 0.2]


def nested(depth: int) -> Any:
    """JSON that many levels deep."""
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


JSONS = {
    "empty": {},
    "scalars": {"null": None, "true": True, "false": False, "text": "x", "numbers": NUMBERS, "floats": FLOATS},
    "keys": {
        "a.b": 1,
        "$x": 2,
        "": 3,
        "__proto__": 4,
        "_id": 5,
        "org_id": "another",
        "İ": 6,
        " ": 7,
        "$where": "x",
        "0": 8,
    },
    "case": {"a": 1, "A": 2},
    "nested keys": {"a": {"b": 1}, "a.b": 2, "$set": {"$inc": {"": 1}}},
    "deep": {"deep": nested(31)},
    "empties": {"list": [], "dict": {}, "text": "", "lists": [[], [[]], {}]},
    "texts": {"all": list(TEXTS.values())},
}

TIMES = {
    "year 1": datetime(1, 1, 1, tzinfo=UTC),
    "year 9999": datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    "1970": datetime(1970, 1, 1, tzinfo=UTC),
    "a millisecond": datetime(2026, 11, 23, 10, 0, 0, 1000, tzinfo=UTC),
    "999 milliseconds": datetime(2038, 1, 19, 3, 14, 8, 999000, tzinfo=UTC),
}


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type, all the way down: 1, 1.0 and True are three things."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def same_row(table: Table[Any], left: Any, right: Any) -> bool:
    return all(same(getattr(left, column), getattr(right, column)) for column in table.columns)


async def round_trip(storage: Storage, table: Table[Any], row: Any, org: str) -> None:
    """In, and out again by each way that gives a row back."""
    scope = await home(storage, table, org) if table.scope else SYSTEM
    await do(storage, scope, "add", table, row)
    for read in (do, look):
        assert same_row(table, await read(storage, scope, "get", table, *key_of(table, row)), row)
    assert any(same_row(table, found, row) for found in await rows_of(storage, scope, table, **_marks(table, row)))
    stored = await do(storage, scope, "replace", table, row)
    expected = replace(row, version=row.version + 1) if table.versioned else row
    assert same_row(table, stored, expected)
    key = dict(zip(table.key, key_of(table, row), strict=True))
    assert same_row(table, await do(storage, scope, "take", table, **key), expected)


def _marks(table: Table[Any], row: Any) -> dict[str, Any]:
    return {column: getattr(row, column) for column in table.key}


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
@pytest.mark.parametrize(("table", "kind"), places(TABLES))
async def test_p05_a_row_of_every_table(storage: Storage, table: Table[Any], kind: PlacementKind, sparse: bool) -> None:
    """Promise 5, generated: each column of each declared table, with a value and with None."""
    org = org_id()
    scope = await home(storage, table, org, kind) if table.scope else SYSTEM
    row = sample(table, org, sparse=sparse)
    await do(storage, scope, "add", table, row)
    found = await look(storage, scope, "get", table, *key_of(table, row))
    assert type(found) is table.model
    assert same_row(table, found, row)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_p05_text(storage: Storage, text: str) -> None:
    """Promise 5: text by code point: nothing is trimmed, folded or composed."""
    org = org_id()
    await round_trip(storage, organizations, sample(organizations, org, name=text, plan=text, slug=text), org)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_p05_text_in_a_key(storage: Storage, text: str) -> None:
    """Promise 5: a key is text as any other, and is found by exactly itself."""
    org = org_id()
    await round_trip(storage, memberships, sample(memberships, org, user_id=text), org)


ALIKE = [
    ("a", "A"),
    ("x", "x "),
    ("x", " x"),
    ("i", "İ"),
    ("ss", "ß"),
    ("caf\u00e9", "cafe\u0301"),
    ("1", "01"),
    ("a", "ａ"),
    ("e", "é"),
    ("", " "),
    ("k", "\u212a"),
    ("x", "x\u200b"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=[ascii(pair) for pair in ALIKE])
async def test_p05_keys_that_look_alike_are_two(storage: Storage, one: str, other: str) -> None:
    """Promise 5: text is compared by code point, in keys, in unique constraints and in ``where``."""
    org, mark = org_id(), token()
    rows = [sample(memberships, org, user_id=text) for text in (one, other)]
    people = [sample(users, email=mark, email_key=mark + text) for text in (one, other)]
    for row, person in zip(rows, people, strict=True):
        await do(storage, OrgScope(org), "add", memberships, row)
        await do(storage, SYSTEM, "add", users, person)
    for row, person in zip(rows, people, strict=True):
        assert await look(storage, OrgScope(org), "get", memberships, org, row.user_id) == row
        assert await look(storage, SYSTEM, "find", users, email_key=person.email_key) == person
        assert await rows_of(storage, OrgScope(org), memberships, user_id=row.user_id) == [row]
        with pytest.raises(AlreadyExists):
            await do(storage, OrgScope(org), "add", memberships, row)


@pytest.mark.parametrize("number", NUMBERS)
async def test_p05_integers(storage: Storage, number: int) -> None:
    """Promise 5: 64-bit integers, those beyond a double's precision included, also as a key."""
    org = org_id()
    await round_trip(storage, audit_entries, sample(audit_entries, org, seq=number), org)
    await round_trip(storage, operations, sample(operations, org, attempts=number), org)


@pytest.mark.parametrize("number", FLOATS)
async def test_p05_floats(storage: Storage, number: float) -> None:
    """Promise 5: finite floats, to the last bit."""
    org = org_id()
    await round_trip(storage, operations, sample(operations, org, progress=number), org)


@pytest.mark.parametrize("moment", TIMES.values(), ids=TIMES)
async def test_p05_times(storage: Storage, moment: datetime) -> None:
    """Promise 5: times to the millisecond, in UTC."""
    org = org_id()
    row = sample(memberships, org, created_at=moment, updated_at=moment)
    await round_trip(storage, memberships, row, org)
    await do(storage, OrgScope(org), "add", memberships, row)
    found = await look(storage, OrgScope(org), "get", memberships, *key_of(memberships, row))
    assert found.created_at.utcoffset() == timedelta(0)
    assert await rows_of(storage, OrgScope(org), memberships, created_at=moment) == [row]


@pytest.mark.parametrize("document", JSONS.values(), ids=JSONS)
async def test_p05_json(storage: Storage, document: dict[str, Any]) -> None:
    """Promise 5: JSON with any legal key, 32 levels deep, whole numbers and floats told apart."""
    org = org_id()
    await round_trip(storage, events, sample(events, org, data=document), org)
    await round_trip(storage, operations, sample(operations, org, payload=document, result=document), org)


async def _refused(storage: Storage, table: Table[Any], org: str, **values: Any) -> None:
    """Neither ``add`` nor ``replace`` takes the values, and what was there stays as it was."""
    scope = OrgScope(org)
    good = sample(table, org)
    await do(storage, scope, "add", table, good)
    with pytest.raises(InvalidValue):
        await do(storage, scope, "add", table, sample(table, org, **values))
    if not values.keys() & set(table.key):
        with pytest.raises(InvalidValue):
            await do(storage, scope, "replace", table, replace(good, **values))
    assert await rows_of(storage, scope, table) == [good]


BAD_TEXTS = {"NUL": "a\0b", "high surrogate": "\ud800", "low surrogate": "x\udfffx", "swapped": "\udc00\ud800"}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
async def test_p05_text_that_is_refused(storage: Storage, text: str) -> None:
    """Promise 5: text that is no valid Unicode, or has a NUL, in a column, a key, and anywhere in JSON."""
    await _refused(storage, events, org_id(), type=text)
    await _refused(storage, events, org_id(), id=text)
    for document in ({"x": text}, {text: "x"}, {"x": [{"y": {text: 1}}]}, {"x": ["y", [text]]}):
        await _refused(storage, events, org_id(), data=document)


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
async def test_p05_questions_that_are_refused(storage: Storage, text: str) -> None:
    """Promise 5: such text in a key or a condition is the same ``InvalidValue``, never an engine's error."""
    org = org_id()
    questions: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("get", (org, text), {}),
        ("find", (), {"org_id": org, "user_id": text}),
        ("page", ({"user_id": text},), {"limit": 1}),
        ("page", (), {"after": (org, text), "limit": 1}),
        ("aggregate", ({"user_id": text},), {}),
    ]
    for verb, args, kwargs in questions:
        with pytest.raises(InvalidValue):
            await look(storage, OrgScope(org), verb, memberships, *args, **kwargs)


class Stranger(StrEnum):
    """An enumeration that no column has."""

    X = "x"


@dataclass
class Thing:
    x: int = 1


BAD_JSONS = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "2^63": 2**63,
    "2^64 - 1": 2**64 - 1,
    "below int64": -(2**63) - 1,
    "huge": 10**400,
    "tuple": (1, 2),
    "bytes": b"x",
    "set": {1},
    "time": MORNING,
    "object": Thing(),
    "number as key": {1: "x"},
    "None as key": {None: "x"},
    "True as key": {True: "x"},
}


@pytest.mark.parametrize("bad", BAD_JSONS.values(), ids=BAD_JSONS)
async def test_p05_json_that_is_refused(storage: Storage, bad: Any) -> None:
    """Promise 5: what is no JSON value of ours, at any depth, is refused rather than turned into one."""
    await _refused(storage, events, org_id(), data={"x": bad})
    await _refused(storage, events, org_id(), data={"x": [{"y": [bad]}]})


async def test_p05_json_that_is_too_deep(storage: Storage) -> None:
    """Promise 5: 32 levels and no more, however the last one is made."""
    for document in ({"x": _around({}, 31)}, {"x": _around([], 31)}):
        await _refused(storage, events, org_id(), data=document)


def _around(value: Any, levels: int) -> Any:
    return _around([value], levels - 1) if levels else value


BAD_VALUES: dict[str, dict[str, Any]] = {
    "integer beyond int64": {"attempts": 2**63},
    "integer below int64": {"attempts": -(2**63) - 1},
    "text as integer": {"attempts": "7"},
    "float as integer": {"attempts": 1.5},
    "NaN": {"progress": float("nan")},
    "infinity": {"progress": float("inf")},
    "text as float": {"progress": "0.5"},
    "naive time": {"created_at": datetime(2026, 11, 23, 10)},
    "microseconds": {"created_at": MORNING + timedelta(microseconds=1)},
    "time of another zone": {"created_at": MORNING.astimezone(timezone(timedelta(hours=5, minutes=45)))},
    "text as time": {"created_at": "2026-11-23T10:00:00.000Z"},
    "number as time": {"created_at": 1763892000},
    "number as text": {"kind": 7},
    "bytes as text": {"kind": b"x"},
    "another enumeration": {"state": Stranger.X},
    "text of no member": {"state": "no such state"},
    "list as dict": {"payload": [1]},
}


@pytest.mark.parametrize("values", BAD_VALUES.values(), ids=BAD_VALUES)
async def test_p05_values_that_are_refused(storage: Storage, values: dict[str, Any]) -> None:
    """Promise 5: what would be rounded, converted or cut is refused."""
    await _refused(storage, operations, org_id(), **values)


REQUIRED = [
    pytest.param(table, column, id=f"{table.name}.{column}")
    for table in DIRECTORY
    for column, (_, optional) in column_types(table).items()
    if not optional
]


@pytest.mark.parametrize(("table", "column"), REQUIRED)
async def test_p05_none_where_none_may_not_be(storage: Storage, table: Table[Any], column: str) -> None:
    """Promise 5, generated: None is refused by every column that is not declared with it."""
    with pytest.raises(InvalidValue):
        await do(storage, SYSTEM, "add", table, replace(sample(table, org_id()), **{column: None}))


async def test_p05_sums_beyond_64_bits_are_refused(storage: Storage) -> None:
    """Promise 5: ``adjust`` neither wraps around nor loses precision; it changes nothing then."""
    org = org_id()
    row = sample(operations, org, attempts=2**63 - 2)
    key = key_of(operations, row)
    await do(storage, OrgScope(org), "add", operations, row)
    assert await do(storage, OrgScope(org), "adjust", operations, *key, deltas={"attempts": 1}) is True
    for delta in (1, 2**62, 2**63):
        with pytest.raises(InvalidValue):
            await do(storage, OrgScope(org), "adjust", operations, *key, deltas={"attempts": delta})
    found = await look(storage, OrgScope(org), "get", operations, *key)
    assert same(found.attempts, 2**63 - 1)


async def test_p05_enumerations_come_back_as_members(storage: Storage) -> None:
    """Promise 5: an enumeration's member, not its text, from rows and from groups."""
    org = org_id()
    await do(storage, OrgScope(org), "add", memberships, sample(memberships, org, role=Role.OWNER))
    [row] = await rows_of(storage, OrgScope(org), memberships, role=Role.OWNER)
    assert row.role is Role.OWNER
    [group] = await look(storage, OrgScope(org), "aggregate", memberships, group_by=["role"])
    assert group["role"] is Role.OWNER


legal_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
legal_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | legal_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(legal_text, inner, max_size=4),
    max_leaves=12,
)


@given(text=legal_text, document=st.dictionaries(legal_text, legal_json, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_p05_any_text_and_any_json(storage: Storage, text: str, document: dict[str, Any]) -> None:
    """Promise 5, for whatever hypothesis can think of."""
    org = org_id()
    row = sample(operations, org, kind=text, id=text, payload=document)
    await do(storage, OrgScope(org), "add", operations, row)
    found = await look(storage, OrgScope(org), "get", operations, org, text)
    assert same_row(operations, found, row)


async def sorted_by_code_point(storage: Storage, texts: list[str]) -> None:
    org = org_id()
    for text in texts:
        await do(storage, OrgScope(org), "add", memberships, sample(memberships, org, user_id=text))
    assert [row.user_id for row in await rows_of(storage, OrgScope(org), memberships)] == sorted(texts)


@given(texts=st.lists(legal_text, unique=True, min_size=2, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_p05_any_text_sorts_by_code_point(storage: Storage, texts: list[str]) -> None:
    """Promise 5: the order of text is the order of its code points, on every engine, under every locale."""
    await sorted_by_code_point(storage, texts)
