"""Strict JSON: the hostile corpus, and equivalence with a slow reference on documents nobody thought of."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orgstead.api.strict_json import MAX_MEMBERS, decode
from orgstead.errors import MalformedRequest
from orgstead.model import MAX_JSON_DEPTH
from tests.data.hostile_json import CASES, MERELY_ODD

MALFORMED = [case for case in CASES if case.statuses == {400}]


def reference(body: bytes) -> Any:
    """The rules again, one after the other, with the standard library's parser; ValueError for a refusal."""
    text = body.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("byte order mark")
    members = 0

    def integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
            raise ValueError("integer")
        return int(digits)

    def real(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError("overflow")
        return number

    def constant(name: str) -> None:
        raise ValueError(name)

    def members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("duplicate")
        return dict(pairs)

    def judge(value: Any, depth: int) -> None:
        nonlocal members
        if isinstance(value, str):
            value.encode("utf-8")
            if "\x00" in value:
                raise ValueError("NUL")
        if isinstance(value, dict | list):
            members += len(value)
            if depth == MAX_JSON_DEPTH or members > MAX_MEMBERS:
                raise ValueError("structure")
            for part in value:
                judge(part, depth + 1)
            for part in value.values() if isinstance(value, dict) else ():
                judge(part, depth + 1)

    try:
        value = json.loads(
            text, parse_int=integer, parse_float=real, parse_constant=constant, object_pairs_hook=members_once
        )
    except RecursionError:
        raise ValueError("depth") from None
    judge(value, 0)
    return value


def outcome(read: Any, body: bytes) -> tuple[bool, str]:
    try:
        return True, repr(read(body))
    except (ValueError, MalformedRequest):
        return False, ""


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_hostile_documents_are_malformed(case: Any) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(case.body)
    assert "name" not in caught.value.detail
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * depth + b"]" * depth, f"nested more than {MAX_JSON_DEPTH} levels")
        for depth in (MAX_JSON_DEPTH + 1, 1024, 1025, 5000)
    ]
    + [(b'{"a":' * 2000 + b"1" + b"}" * 2000, f"nested more than {MAX_JSON_DEPTH} levels")]
    + [(b'{"a": -%b}' % (b"9" * digits), "does not fit into 64 bits") for digits in (19, 308, 309, 5000)]
    + [(b"[1e400]", "does not fit into 64 bits"), (b"[1,]", "column 3"), (b"[\n NaN]", "line 2, column 2")],
)
def test_a_limit_is_not_called_a_fault_of_the_syntax(body: bytes, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said) as caught:
        decode(body)
    assert ("not valid JSON" in caught.value.detail) is ("column" in said)


@pytest.mark.parametrize("body", [b'{"a":\n "\xff"}', b'{"a": 1,\xc3}', b"{\xed\xa0\x80}"])
def test_bytes_that_are_no_text_are_said_to_be_that_and_where(body: bytes) -> None:
    place = next(at for at, byte in enumerate(body, 1) if byte > 127)
    with pytest.raises(MalformedRequest) as caught:
        decode(body)
    assert caught.value.detail == f"The body is not UTF-8 text (byte {place})."


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_the_reference_agrees_about_the_corpus(case: Any) -> None:
    assert outcome(reference, case.body) == (False, "")


@pytest.mark.parametrize(("name", "body"), MERELY_ODD, ids=[name for name, _ in MERELY_ODD])
def test_odd_documents_are_read(name: str, body: bytes) -> None:
    assert decode(body) == reference(body)


# Text from the alphabet of JSON's own syntax is what counting could mistake for structure.
tricky_text = st.text(alphabet='{}[],:"\\u0 19-.eE+é😀', max_size=30) | st.text(max_size=8).filter(
    lambda text: not any(0xD800 <= ord(character) < 0xE000 for character in text)
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**18, 10**19])
    | st.floats(allow_nan=False, allow_infinity=False)
    | tricky_text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(tricky_text, inner, max_size=5),
    max_leaves=30,
)


@given(values, st.booleans(), st.sampled_from([None, (",", ":")]))
def test_valid_documents_are_judged_as_by_the_reference(value: Any, ascii_only: bool, separators: Any) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    assert outcome(decode, body) == outcome(reference, body)


@given(st.lists(st.tuples(st.sampled_from(["a", "a:", '"', "\\", "{", "b"]), values), max_size=4), st.booleans())
def test_duplicate_keys_are_found_wherever_they_are(pairs: list[tuple[str, Any]], inside: bool) -> None:
    written = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"
    body = (f'[{{"x":{written}}},"::"]' if inside else written).encode()
    assert outcome(decode, body) == outcome(reference, body)


pieces = st.sampled_from(
    [*'{}[],:"\\ 0-.eE', '"a"', '"a":', "1", "true", "null", "\\u0000", "\\\\", "\\ud800", "\\udc00", "9" * 19, "1e999"]
)


@given(st.lists(pieces, max_size=14).map("".join))
@example('{"a":1.' + "9" * 25 + "}")
@example("[-9223372036854775808,1]")
@example("[1e" + "0" * 25 + "1]")
def test_broken_documents_are_judged_as_by_the_reference(text: str) -> None:
    body = text.encode()
    assert outcome(decode, body) == outcome(reference, body)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    outcome(decode, body)


@pytest.mark.parametrize("extra", [0, 1])
def test_members_of_objects_and_items_of_arrays_count_together(extra: int) -> None:
    body = json.dumps([list(range(5000)), {str(n): n for n in range(4998 + extra)}]).encode()
    assert outcome(decode, body)[0] is (extra == 0)
