"""Cursors: what went in comes out, and nothing else goes in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orgstead.cursors import Cursors, Value
from orgstead.errors import InvalidCursor

CURSORS = Cursors(b"k" * 32)
BINDING = ("GET /v1/organizations", "org_1", "status=active", "created_at")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

times = st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
values = st.lists(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | times
)


@given(values)
def test_a_position_comes_back_as_it_went_in(position: list[Value]) -> None:
    decoded = CURSORS.decode(CURSORS.encode(position, BINDING), BINDING)
    assert decoded == position
    assert [type(value) for value in decoded] == [type(value) for value in position]


def test_a_cursor_needs_no_escaping_in_a_url() -> None:
    cursor = CURSORS.encode(["ü", datetime(2026, 11, 23, tzinfo=UTC), None], BINDING)
    assert set(cursor) <= set(ALPHABET)


def test_a_cursor_of_another_list_is_refused() -> None:
    cursor = CURSORS.encode(["a", 1], BINDING)
    route, organization, condition, order = BINDING
    others = [
        ("GET /v1/me/organizations", organization, condition, order),
        (route, "org_2", condition, order),
        (route, organization, "status=closed", order),
        (route, organization, condition, "-created_at"),
        (route, organization, condition),
        (route, organization, condition, order, ""),
        (route + organization, condition, order),
        (route, organization, condition + order, ""),
        (),
    ]
    for other in others:
        with pytest.raises(InvalidCursor):
            CURSORS.decode(cursor, other)


def test_a_cursor_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidCursor):
        Cursors(b"K" * 32).decode(CURSORS.encode(["a"], BINDING), BINDING)


def test_an_altered_cursor_is_refused() -> None:
    cursor = CURSORS.encode(["abc", 12345, True], BINDING)
    for place, character in enumerate(cursor):
        for other in ALPHABET:
            if other != character:
                with pytest.raises(InvalidCursor):
                    CURSORS.decode(cursor[:place] + other + cursor[place + 1 :], BINDING)
    for wrong in (cursor[:-1], cursor + "A", cursor + "=", cursor + ".", " " + cursor, cursor + "\n", cursor * 2):
        with pytest.raises(InvalidCursor):
            CURSORS.decode(wrong, BINDING)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "W10", "W10.", "W10.é", "W10.\ud800", ".AAAA", "null", "é", "\ud800", "\0", "[]", "x" * 100_000],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        CURSORS.decode(text, BINDING)
