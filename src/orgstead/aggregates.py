"""Aggregates: counts, sums, averages, smallest and greatest values of a collection's records, by group.

    {"where": {…}, "group_by": ["city"], "measures": {"n": {"count": true}, "total": {"sum": "price"}}}

What they answer does not depend on the order in which records are read. Sums and averages are of the numbers among the
values: sums of integers are exact, those with floats rounded once, at the end. A sum of integers that is beyond 64
bits is given as the nearest float. ``min`` and ``max`` are of everything but null and missing, in the order of types
and values; arrays and objects, which have no order among each other, are left out. Without any value a measure is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import orjson

from orgstead import record_collections, record_definitions
from orgstead.conditions import Condition, names_of, path_of, wrong
from orgstead.conditions import parse as parse_condition
from orgstead.field_paths import ID, MISSING, Path, pointer, value_at
from orgstead.index_keys import component, order_key
from orgstead.model import Json, Record
from orgstead.queries import Query, Rules, unindexed
from orgstead.query_plans import Order, plans_for
from orgstead.query_sources import FIRST, Source
from orgstead.record_errors import InvalidQuery, QueryTooLarge
from orgstead.storage import tables
from orgstead.storage.port import Space, Transaction

MAX_GROUP_BY: Final = 4
MAX_MEASURES: Final = 20
MAX_GROUPS: Final = 1000
MAX_GROUP_VALUE: Final = 500
"""Bytes of a value that records are grouped by."""

_MEASURES = ("count", "sum", "avg", "min", "max")
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of each group: ``kind`` of the values at ``path``, which a count has not."""

    kind: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is asked for, by the names it is answered under."""

    where: Condition | None
    group_by: Mapping[str, Path]
    measures: Mapping[str, Measure]


def parse(where: Any = None, group_by: Any = None, measures: Any = None) -> Aggregate:
    """The aggregate that JSON values spell. Raises ``InvalidQuery`` naming the place."""
    condition = None if where is None else parse_condition(where)
    names = [] if group_by is None else names_of(group_by, "/group_by", most=MAX_GROUP_BY)
    groups: dict[str, Path] = {}
    for place, name in enumerate(names):
        path = path_of(name, f"/group_by/{place}")
        if path in groups.values():
            raise wrong(f"/group_by/{place}", "Records are grouped by a field once.")
        groups[name] = path
    if not isinstance(measures, dict) or not 1 <= len(measures) <= MAX_MEASURES:
        raise wrong("/measures", f"This takes an object of 1 to {MAX_MEASURES} measures.")
    read: dict[str, Measure] = {}
    for name, value in measures.items():
        at = pointer(("measures", name))
        if name in groups:
            raise wrong(at, "A measure needs a name of its own, other than those of the groups.")
        read[name] = _measure(value, at)
    return Aggregate(condition, groups, read)


def _measure(value: Any, at: str) -> Measure:
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= set(_MEASURES):
        raise wrong(at, f"A measure is one of {', '.join(_MEASURES)}.")
    ((kind, operand),) = value.items()
    if kind == "count":
        if operand is not True:
            raise wrong(f"{at}/count", "A count takes true.")
        return Measure(kind)
    return Measure(kind, path_of(operand, f"{at}/{kind}"))


async def run(
    tx: Transaction, space: Space, collection: str, aggregate: Aggregate, rules: Rules
) -> list[dict[str, Json]]:
    """One object for each group, in the order of the groups' values: the group's and the measures'.

    What is missing in the records of a group is missing there, too. Without groups there is always one object. Raises
    ``NotFound`` where there is no such collection, ``QueryUnindexed`` and ``QueryTooLarge`` where it would be made of
    too many records, ``QueryTooLarge`` for too many groups.
    """
    found = await record_collections.get(tx, space, collection)
    if _is_plain_count(aggregate):
        (counted,) = await tx.aggregate(tables.records, {"collection": collection})
        return [dict.fromkeys(aggregate.measures, int(counted["count"]))]
    plans = plans_for(aggregate.where, Order(), record_definitions.indexes_of(found))
    plan = min(plans, key=lambda plan: (plan.ids is None, not plan.exact or not plan.narrows, -plan.narrows))
    groups: dict[tuple[str, ...], _Group] = {}
    if not aggregate.group_by:
        groups[()] = _Group(aggregate, None)
    examined = 0
    source = Source(tx, found, plan, None, FIRST)
    while batch := await source.read():
        examined += len(batch)
        if examined > rules.max_aggregated:
            if plan.exact:
                raise QueryTooLarge(f"An aggregate is made of at most {rules.max_aggregated} records; narrow it.")
            raise unindexed(Query(aggregate.where), rules.max_aggregated)
        for record in batch:
            if plan.exact or aggregate.where is None or aggregate.where.holds(record.id, record.data):
                _group_of(groups, aggregate, record).take(record)
    return [groups[key].shown() for key in sorted(groups)]


def _is_plain_count(aggregate: Aggregate) -> bool:
    counts = all(measure.kind == "count" for measure in aggregate.measures.values())
    return counts and aggregate.where is None and not aggregate.group_by


def _value(record: Record, path: Path) -> Any:
    """What the path leads to; never the negative zero, which equals the other one."""
    value = record.id if path == ID else value_at(record.data, path)
    return value + 0.0 if type(value) is float else value


def _group_of(groups: dict[tuple[str, ...], _Group], aggregate: Aggregate, record: Record) -> _Group:
    values = {name: _value(record, path) for name, path in aggregate.group_by.items()}
    key = tuple(_group_key(value) for value in values.values())
    group = groups.get(key)
    if group is None:
        if len(groups) == MAX_GROUPS:
            raise QueryTooLarge(f"An aggregate has at most {MAX_GROUPS} groups; narrow it, or group by something else.")
        group = groups[key] = _Group(aggregate, values)
    elif any(type(value) is int for value in values.values()):
        group.prefer_integers(values)
    return group


def _group_key(value: Any) -> str:
    key = component(value)
    if type(value) in (list, dict):
        key += orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    if len(key) > MAX_GROUP_VALUE:
        raise QueryTooLarge(f"Records can be grouped by values of at most {MAX_GROUP_VALUE} bytes.")
    return key


class _Group:
    """The figures of a group while its records are read."""

    def __init__(self, aggregate: Aggregate, values: dict[str, Any] | None) -> None:
        self._values = values or {}
        self._figures = {name: _FIGURES[measure.kind]() for name, measure in aggregate.measures.items()}
        self._paths = [measure.path for measure in aggregate.measures.values()]

    def take(self, record: Record) -> None:
        for figure, path in zip(self._figures.values(), self._paths, strict=True):
            figure.take(None if path is None else _value(record, path))

    def prefer_integers(self, values: dict[str, Any]) -> None:
        """1 and 1.0 are one group; it is shown as 1 if any record has it so, whichever was read first."""
        for name, value in values.items():
            if type(value) is int:
                self._values[name] = value

    def shown(self) -> dict[str, Json]:
        group = {name: value for name, value in self._values.items() if value is not MISSING}
        return {**group, **{name: figure.result() for name, figure in self._figures.items()}}


@dataclass(slots=True)
class _Count:
    number: int = 0

    def take(self, value: Any) -> None:
        self.number += 1

    def result(self) -> Json:
        return self.number


@dataclass(slots=True)
class _Sum:
    """Integers are added up exactly; floats are kept, and added up exactly, too, before the result is rounded."""

    total: int = 0
    number: int = 0
    floats: list[float] = field(default_factory=list)

    def take(self, value: Any) -> None:
        if type(value) is int:
            self.total += value
        elif type(value) is float:
            self.floats.append(value)
        else:
            return
        self.number += 1

    def exact_parts(self) -> list[float]:
        """Floats whose exact sum is that of all numbers."""
        parts, rest = list(self.floats), self.total
        while rest:
            parts.append(float(rest))
            rest -= int(parts[-1])
        return parts

    def summed(self) -> int | float | Fraction:
        """The sum: an integer if all were, a fraction where it is beyond the greatest float."""
        if not self.floats:
            return self.total
        parts = self.exact_parts()
        try:
            return math.fsum(parts)
        except OverflowError:  # perhaps only on the way, which another order of the same numbers would not take
            exact = sum(map(Fraction, parts), Fraction())
        try:
            return float(exact)
        except OverflowError:
            return exact

    def result(self) -> Json:
        """The sum. Raises ``InvalidQuery`` beyond the greatest float."""
        if not self.number:
            return None
        found = self.summed()
        if isinstance(found, Fraction):
            raise InvalidQuery("The sum is beyond the greatest number that there is.")
        return found if isinstance(found, float) or _INT_MIN <= found <= _INT_MAX else float(found)


class _Average(_Sum):
    __slots__ = ()

    def result(self) -> Json:
        return float(self.summed() / self.number) if self.number else None


@dataclass(slots=True)
class _Extreme:
    """The smallest value, or the greatest where ``greatest``; of equal numbers the integer."""

    greatest: bool
    best: Any = None

    def take(self, value: Any) -> None:
        if value is None or value is MISSING or type(value) in (list, dict):
            return
        if self.best is None:
            self.best = value
            return
        key, best = order_key(value), order_key(self.best)
        if key == best:
            self.best = value if type(value) is int else self.best
        elif (key > best) is self.greatest:
            self.best = value

    def result(self) -> Json:
        return self.best


_FIGURES: Mapping[str, Any] = {
    "count": _Count,
    "sum": _Sum,
    "avg": _Average,
    "min": lambda: _Extreme(False),
    "max": lambda: _Extreme(True),
}


def shown(groups: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The answer as JSON."""
    return {"object": "aggregate", "data": list(groups)}
