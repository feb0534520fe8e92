"""Conditions on records: their grammar, and whether a record meets one.

    {"field": "address.city", "eq": "Berlin"}      {"and": [...]}   {"or": [...]}   {"not": {...}}

Each condition is true or false, never unknown. Values are compared by JSON type, then value: ``eq`` and ``in`` hold for
the same type only (1 and 1.0 are one number; true is not 1), ``gt gte lt lte`` compare numbers with numbers and text
with text, by code point. Missing is not null: where there is nothing, every operator is false, except ``ne``, which is
always "not ``eq``", and ``exists``: false. ``prefix`` looks at text, ``contains`` at the elements of an array.

``Condition.holds`` is the only evaluator: indexes narrow down what it is asked about, but never decide otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from orgstead import field_paths
from orgstead.errors import Problem
from orgstead.field_paths import ID, MISSING, Path
from orgstead.index_keys import Scalar, order_key
from orgstead.record_errors import InvalidQuery

MAX_DEPTH: Final = 5
MAX_CONDITIONS: Final = 50
MAX_VALUES: Final = 100
"""Values of one ``in``."""

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: bool(value > bound),
    "gte": lambda value, bound: bool(value >= bound),
    "lt": lambda value, bound: bool(value < bound),
    "lte": lambda value, bound: bool(value <= bound),
}


class Condition(Protocol):
    """What a record meets or does not."""

    def holds(self, record_id: str, data: Mapping[str, Any]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operator on one field. ``value`` is a tuple for ``in`` and a bool for ``exists``."""

    path: Path
    op: str
    value: Any

    def holds(self, record_id: str, data: Mapping[str, Any]) -> bool:
        found = record_id if self.path == ID else field_paths.value_at(data, self.path)
        return _TESTS[self.op](found, self.value)


@dataclass(frozen=True, slots=True)
class All:
    """Every one of the parts."""

    parts: tuple[Condition, ...]

    def holds(self, record_id: str, data: Mapping[str, Any]) -> bool:
        return all(part.holds(record_id, data) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the parts."""

    parts: tuple[Condition, ...]

    def holds(self, record_id: str, data: Mapping[str, Any]) -> bool:
        return any(part.holds(record_id, data) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """Not the part."""

    part: Condition

    def holds(self, record_id: str, data: Mapping[str, Any]) -> bool:
        return not self.part.holds(record_id, data)


def _equal(found: Any, value: Scalar) -> bool:
    return type(found) not in (list, dict) and order_key(found) == order_key(value)


def _compare(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(found: Any, value: Any) -> bool:
        return order_key(found)[0] == order_key(value)[0] and compare(found, value)

    return test


_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda found, value: not _equal(found, value),
    "in": lambda found, values: any(_equal(found, value) for value in values),
    "prefix": lambda found, value: type(found) is str and found.startswith(value),
    "contains": lambda found, value: type(found) is list and any(_equal(element, value) for element in found),
    "exists": lambda found, value: (found is not MISSING) is value,
    **{op: _compare(compare) for op, compare in COMPARISONS.items()},
}
OPERATORS: Final = tuple(_TESTS)


def conjuncts(condition: Condition | None) -> Iterator[Condition]:
    """The conditions that must all hold for ``condition`` to hold; none for None."""
    if isinstance(condition, All):
        for part in condition.parts:
            yield from conjuncts(part)
    elif condition is not None:
        yield condition


# --- reading --------------------------------------------------------------------------------------------------------


def parse(value: Any, at: str = "/where") -> Condition:
    """The condition that a JSON value spells. Raises ``InvalidQuery`` naming the place below the pointer ``at``."""
    return _Reader().read(value, at, 1)


class _Reader:
    def __init__(self) -> None:
        self._left = MAX_CONDITIONS

    def read(self, value: Any, at: str, depth: int) -> Condition:
        if not isinstance(value, dict):
            raise wrong(at, "A condition is an object.")
        self._left -= 1
        if self._left < 0:
            raise wrong(at, f"A query has at most {MAX_CONDITIONS} conditions in all.")
        if depth > MAX_DEPTH:
            raise wrong(at, f"Conditions are nested at most {MAX_DEPTH} deep.")
        if "field" in value:
            return _test(value, at)
        if len(value) != 1 or not value.keys() <= {"and", "or", "not"}:
            raise wrong(at, "A condition has a field and one operator, or is one of and, or, not.")
        ((word, inner),) = value.items()
        at = f"{at}/{word}"
        if word == "not":
            return Not(self.read(inner, at, depth + 1))
        if not isinstance(inner, list) or not inner:
            raise wrong(at, "This takes a list of at least one condition.")
        parts = tuple(self.read(part, f"{at}/{place}", depth + 1) for place, part in enumerate(inner))
        return All(parts) if word == "and" else AnyOf(parts)


def _test(value: Mapping[str, Any], at: str) -> Comparison:
    named = value.keys() - {"field"}
    if len(named) != 1 or not named <= _TESTS.keys():
        raise wrong(at, f"A condition has a field and one operator: {', '.join(OPERATORS)}.")
    (op,) = named
    path = path_of(value["field"], f"{at}/field")
    operand = value[op]
    if op == "in":
        if not isinstance(operand, list) or len(operand) > MAX_VALUES:
            raise wrong(f"{at}/in", f"This takes a list of at most {MAX_VALUES} values.")
        for place, element in enumerate(operand):
            _require_scalar(element, f"{at}/in/{place}")
        return Comparison(path, op, tuple(operand))
    if op == "exists":
        _require(type(operand) is bool, f"{at}/exists", "This takes true or false.")
        return Comparison(path, op, operand)
    _require_scalar(operand, f"{at}/{op}")
    if op == "prefix":
        _require(type(operand) is str, f"{at}/prefix", "This takes text.")
    elif op in COMPARISONS:
        _require(type(operand) in (str, int, float), f"{at}/{op}", "This takes a number or text.")
    return Comparison(path, op, operand)


def _require_scalar(value: Any, at: str) -> None:
    """Refuse what no value of a record can equal or be compared with, because it could not be stored."""
    kind = type(value)
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise wrong(at, "Text must be valid Unicode, without lone surrogates.") from None
        _require("\0" not in value, at, "Text must not contain the character NUL.")
    elif kind is int:
        _require(-(2**63) <= value < 2**63, at, "An integer must fit into 64 bits.")
    elif kind is float:
        _require(math.isfinite(value), at, "A number must be finite.")
    else:
        _require(value is None or kind is bool, at, "A value to compare with is text, a number, true, false or null.")


def _require(condition: bool, at: str, detail: str) -> None:
    if not condition:
        raise wrong(at, detail)


def path_of(name: Any, at: str) -> Path:
    """The path of a field's name. Raises ``InvalidQuery`` with the pointer ``at``."""
    if not isinstance(name, str):
        raise wrong(at, "A field's name is text.")
    try:
        return field_paths.parse(name)
    except InvalidQuery as error:
        raise wrong(at, error.detail) from None


def names_of(value: Any, at: str, *, most: int) -> Sequence[str]:
    """A list of up to ``most`` names. Raises ``InvalidQuery`` with a pointer below ``at``."""
    if not isinstance(value, list) or len(value) > most:
        raise wrong(at, f"This takes a list of at most {most} names of fields.")
    for place, name in enumerate(value):
        _require(isinstance(name, str), f"{at}/{place}", "A field's name is text.")
    return value


def wrong(at: str, detail: str) -> InvalidQuery:
    """The error about one place of a query."""
    return InvalidQuery(detail, problems=[Problem(at, InvalidQuery.code, detail)])
