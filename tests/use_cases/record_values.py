"""Hypothesis strategies for records and queries: few fields and values, so that they meet, with awkward ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    0,
    1,
    -1,
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    0.1,
    -2.5,
    1e300,
    5e-324,
    2.0**63,
)
TEXTS = (
    "",
    "a",
    "b",
    "ab",
    "a\x01",
    "a\x02",
    "a\x03",
    "\x7f",
    "ä",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "😀",
    "\U0010ffff",
    "A",
    "~",
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)

numbers = st.sampled_from(NUMBERS) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.sampled_from(TEXTS) | TEXT
scalars = st.none() | st.booleans() | numbers | texts
few_scalars = st.sampled_from((None, True, False, *NUMBERS[:5], 1.0, 0.1, *TEXTS[:8], "😀"))
"""So few that equal ones are common."""

values = few_scalars | scalars | st.lists(few_scalars, max_size=4) | st.dictionaries(texts, few_scalars, max_size=2)

FIELDS = ("city", "price", "tags", "address.zip", "/a.b", "/id")
KEYS = ("city", "price", "tags", "a.b", "id")


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """The data of a record: some of the fields, each with any value."""
    data = {key: draw(values) for key in KEYS if draw(st.booleans())}
    if draw(st.booleans()):
        data["address"] = draw(st.dictionaries(st.sampled_from(("zip", "street")), few_scalars) | few_scalars)
    if "tags" in data and draw(st.booleans()):
        data["tags"] = draw(st.lists(few_scalars, max_size=5))
    return data


def _leaf(field: str, op: str, operand: Any) -> dict[str, Any]:
    return {"field": field, op: operand}


fields = st.sampled_from((*FIELDS, "id"))
ids = st.sampled_from(("r", "r0", "r1", "r3", "r10", "", "zz", "é"))
leaves = st.one_of(
    st.builds(_leaf, fields, st.sampled_from(("eq", "ne", "contains")), few_scalars | scalars),
    st.builds(_leaf, fields, st.just("in"), st.lists(few_scalars, max_size=4)),
    st.builds(_leaf, fields, st.sampled_from(("gt", "gte", "lt", "lte")), numbers | texts),
    st.builds(_leaf, fields, st.just("prefix"), texts),
    st.builds(_leaf, fields, st.just("exists"), st.booleans()),
    st.builds(_leaf, st.just("id"), st.sampled_from(("eq", "gt", "gte", "lt", "lte", "prefix")), ids),
    st.builds(_leaf, st.just("id"), st.just("in"), st.lists(ids, max_size=3)),
)
conditions = st.recursive(
    leaves,
    lambda inner: (
        st.builds(
            lambda word, parts: {word: parts}, st.sampled_from(("and", "or")), st.lists(inner, min_size=1, max_size=3)
        )
        | st.builds(lambda part: {"not": part}, inner)
    ),
    max_leaves=5,
)
wheres = st.none() | leaves | st.lists(leaves, min_size=1, max_size=3).map(lambda parts: {"and": parts}) | conditions


@st.composite
def orders(draw: st.DrawFn) -> list[str]:
    """Up to three different fields, perhaps with the id behind them."""
    names = draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=2))
    names += ["id"] * draw(st.booleans())
    return ["-" * draw(st.booleans()) + name for name in names]


@st.composite
def index_fields(draw: st.DrawFn) -> list[str]:
    """The fields of an index, the elements of tags perhaps among them."""
    names = draw(st.lists(st.sampled_from(FIELDS), unique=True, min_size=1, max_size=3))
    each = draw(st.booleans())
    return ["-" * draw(st.booleans()) + name + "[]" * (each and name == "tags") for name in names]
