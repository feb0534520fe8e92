"""Which index answers a query, and which of its keys: the plan. Nothing here reads.

A plan never changes what a query answers, only what has to be looked at: what its ranges hold and does not meet the
whole condition is left out by the condition itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orgstead import index_keys
from orgstead.conditions import COMPARISONS, Comparison, Condition, conjuncts
from orgstead.field_paths import ID, MISSING, Ordered, Path, name_of, value_at
from orgstead.index_keys import CLAIM, Index, IndexField, KeyRange, component, inverted, order_key, tie
from orgstead.record_batches import is_id

MAX_MERGED: Final = 20
"""Ranges that are read side by side to keep an order."""

Mark = tuple[str, ...]
"""A place in an order: the component of each of its fields, then the id. The same whatever plan reads on from it."""


@dataclass(frozen=True, slots=True)
class Order:
    """Fields to sort by, then the id: descending where ``down``, which is as the last field that was named."""

    fields: tuple[Ordered, ...] = ()
    down: bool = False

    def mark(self, record_id: str, data: dict[str, Any]) -> Mark:
        """Where a record stands."""
        return (*(component(value_at(data, field.path)) for field in self.fields), record_id)

    def position(self, mark: Mark) -> str:
        """A text that sorts, by code point, as marks do in this order."""
        parts = (inverted(part) if field.down else part for field, part in zip(self.fields, mark[:-1], strict=True))
        return "".join(parts) + tie(mark[-1], down=self.down)


@dataclass(frozen=True, slots=True)
class Plan:
    """Ranges of keys of an index, or of ids where ``index`` is None, or the ``ids`` themselves.

    ``heads`` has, for each range, what all its keys begin with; ``places`` are the order's fields that follow there.
    ``served`` says that reading the ranges one after the other (side by side where ``merged``), from their ends where
    ``backwards``, gives the order asked for. ``exact`` says that they hold nothing else than what meets the condition,
    ``narrows`` how many fields they bound. ``exempt`` concerns a unique index: others may have the heads' values, too.
    """

    index: Index | None
    ranges: tuple[KeyRange, ...]
    heads: tuple[str, ...] = ("",)
    places: tuple[int, ...] = ()
    served: bool = False
    backwards: bool = False
    merged: bool = False
    exact: bool = False
    narrows: int = 0
    exempt: bool = False
    ids: tuple[str, ...] | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """Plans of a lower rank are tried first: by kind, then the more fields are bounded."""
        if self.ids is not None:
            return 0, 0
        if self.served and self.exact:
            return (1 if self.narrows else 2), -self.narrows
        if self.narrows:
            return (3 if self.served else 4), -self.narrows
        return (5 if self.served else 6), 0

    def starts(self, mark: Mark) -> list[str]:
        """For each range where a list goes on after ``mark``; of a plan that serves the order."""
        index = self.index
        if index is None:
            return [mark[-1]] * len(self.ranges)
        parts = [mark[place] for place in self.places]
        claims = index.unique and not self.exempt and all(part[0] not in "01" for part in parts)
        fields = index.fields[len(index.fields) - len(parts) :]
        rest = "".join(inverted(part) if field.down else part for field, part in zip(fields, parts, strict=True))
        ending = CLAIM if claims else tie(mark[-1], down=index.down)
        return [head + rest + ending for head in self.heads]


def plans_for(condition: Condition | None, order: Order, indexes: Iterable[Index]) -> list[Plan]:
    """The plans worth trying, the best of each kind, the most promising first. There is always one."""
    asked = list(conjuncts(condition))
    found = [_by_id(asked, order)]
    for index in indexes:
        if index.ready and (plan := _by_index(index, asked, order)):
            found.append(plan)
    best: dict[int, Plan] = {}
    for plan in sorted(found, key=lambda plan: plan.rank):
        best.setdefault(plan.rank[0], plan)
    return list(best.values())


def advice(condition: Condition | None, order: Order) -> list[str]:
    """The fields of an index that would serve: those that must equal a value, then the order's, or one that is bounded.

    Empty where no index would help.
    """
    asked = [c for c in conjuncts(condition) if isinstance(c, Comparison) and c.path != ID]
    fixed = {c.path: name_of(c.path) + "[]" * (c.op == "contains") for c in asked if c.op in ("eq", "contains")}
    names = list(fixed.values())
    if order.fields:
        names += [field.name for field in order.fields if field.path not in fixed]
    else:
        bounded = (c.path for c in asked if c.op in (*COMPARISONS, "in", "prefix", "exists") and c.path not in fixed)
        names += [name_of(path) for path in list(bounded)[:1]]
    return names[:4]


# --- by an index ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bound:
    """How far the conditions bound one field: ranges behind a head, the heads of values, and what is decided by it."""

    ranges: tuple[KeyRange, ...]
    decides: tuple[Condition, ...]
    points: tuple[Any, ...] | None = None


def _by_index(index: Index, asked: Sequence[Condition], order: Order) -> Plan | None:
    head, decided, pinned, exempt = "", [], set[Path](), False
    bound: _Bound | None = None
    for field in index.fields:
        on_field = [c for c in asked if isinstance(c, Comparison) and c.path == field.path]
        point = _point(field, on_field)
        if point is not None:
            value, condition = point
            head = index_keys.at(head, value, down=field.down)
            decided.append(condition)
            if not field.each:
                pinned.add(field.path)
                exempt = exempt or value is None or value is MISSING
            continue
        if any(later.each for later in index.fields[index.fields.index(field) :]):
            return None  # a record without such an element has no entry
        bound = _bounded(head, field, on_field)
        break
    count = len(decided)
    ranges = bound.ranges if bound else (index_keys.everything(head),)
    decided += bound.decides if bound else ()
    places = tuple(place for place, wanted in enumerate(order.fields) if wanted.path not in pinned)
    heads: tuple[str, ...] = (head,)
    backwards = _direction(index, index.fields[count:], [order.fields[place] for place in places], order.down)
    merged = False
    if backwards is None and bound and _is_mergeable(index, bound):
        rest = index.fields[count + 1 :]
        backwards = _direction(index, rest, [order.fields[place] for place in places], order.down)
        if merged := backwards is not None:
            down = index.fields[count].down
            heads = tuple(index_keys.at(head, value, down=down) for value in bound.points or ())
    return Plan(
        index,
        ranges,
        heads if merged else heads * len(ranges),
        places,
        served=backwards is not None,
        backwards=bool(backwards),
        merged=merged,
        exact=len(decided) == len(asked),
        narrows=count + (bound is not None),
        exempt=exempt,
    )


def _is_mergeable(index: Index, bound: _Bound) -> bool:
    """Can the ranges be read side by side? Not where others may have some of a unique index's values, but not all."""
    if bound.points is None or len(bound.points) > MAX_MERGED:
        return False
    return not (index.unique and None in bound.points)


def _direction(index: Index, fields: Sequence[IndexField], order: Sequence[Ordered], down: bool) -> bool | None:
    """Is the order that of the index's last ``fields`` (False), the reverse (True), or another (None)?"""
    if [field.path for field in fields] != [wanted.path for wanted in order]:
        return None
    turned = {field.down != wanted.down for field, wanted in zip(fields, order, strict=True)} | {index.down != down}
    return turned.pop() if len(turned) == 1 else None


def _point(field: IndexField, conditions: Sequence[Comparison]) -> tuple[Any, Condition] | None:
    """The one value that a field must have, and the condition that says so."""
    for condition in conditions:
        if condition.op == ("contains" if field.each else "eq"):
            return condition.value, condition
        if not field.each and condition.op == "exists" and not condition.value:
            return MISSING, condition
    return None


def _bounded(head: str, field: IndexField, conditions: Sequence[Comparison]) -> _Bound | None:
    """The ranges of a field's values, behind ``head``."""
    down = field.down
    for condition in conditions:
        if condition.op == "in":
            values = {index_keys.at(head, value, down=down): value for value in condition.value}
            ranges = tuple(index_keys.everything(begin) for begin in sorted(values))
            return _Bound(ranges, (condition,), tuple(values[begin] for begin in sorted(values)))
        if condition.op == "prefix":
            return _Bound((index_keys.beginning(head, condition.value, down=down),), (condition,))
    bounds = [condition for condition in conditions if condition.op in COMPARISONS]
    if bounds:
        rank = order_key(bounds[0].value)[0]
        above = next((c for c in bounds if c.op in ("gt", "gte") and order_key(c.value)[0] == rank), None)
        below = next((c for c in bounds if c.op in ("lt", "lte") and order_key(c.value)[0] == rank), None)
        keys = index_keys.between(
            head,
            down=down,
            rank=str(rank),
            above=None if above is None else (above.value, above.op == "gte"),
            below=None if below is None else (below.value, below.op == "lte"),
        )
        return _Bound((keys,), tuple(c for c in (above, below) if c))
    for condition in conditions:
        if condition.op == "exists" and condition.value:
            return _Bound((index_keys.present(head, down=down),), (condition,))
    return None


# --- by id ------------------------------------------------------------------------------------------------------------

_BELOW, _ABOVE = "", "\x7f"
"""Sort before and after every id."""


def _by_id(asked: Sequence[Condition], order: Order) -> Plan:
    """The records themselves, which are kept by id, as far as conditions on the id bound them."""
    low, high, narrows = _BELOW, _ABOVE, 0
    for condition in asked:
        if not isinstance(condition, Comparison) or condition.path != ID:
            continue
        values = condition.value if condition.op == "in" else (condition.value,)
        if condition.op in ("eq", "in"):
            ids = tuple(dict.fromkeys(value for value in values if type(value) is str and is_id(value)))
            return Plan(None, (), ids=ids)
        if type(condition.value) is not str:
            continue
        narrows = 1
        low, high = _id_bounds(condition.op, condition.value, low, high)
    return Plan(
        None,
        (KeyRange(low, high),),
        served=not order.fields,
        backwards=order.down,
        exact=not asked,
        narrows=narrows,
    )


def _id_bounds(op: str, value: str, low: str, high: str) -> tuple[str, str]:
    """The bounds with one more condition; never too narrow, for the condition is asked of each record again."""
    if op == "gt":
        low = max(low, value)
    elif op in ("gte", "prefix"):
        low = max(low, _just_below(value))
    if op == "lt":
        high = min(high, value)
    elif op == "lte":
        high = min(high, value + "\x01")
    elif op == "prefix":
        high = min(high, value + _ABOVE)
    return low, high


def _just_below(text: str) -> str:
    """A text below ``text`` and above every id that is: ids are of characters between ``\\x01`` and ``\\x7f``."""
    if not text or not "\x02" <= text[-1] <= "\x7f":
        return text[:-1]
    return f"{text[:-1]}{chr(ord(text[-1]) - 1)}{_ABOVE}"


def ranges_after(plan: Plan, mark: Mark | None) -> Iterator[tuple[KeyRange, str]]:
    """The ranges of the plan that are left behind ``mark``, in the order in which they are read, with their heads."""
    starts = plan.starts(mark) if mark else [None] * len(plan.ranges)
    found = list(zip(plan.ranges, plan.heads * (1 if plan.index else len(plan.ranges)), starts, strict=True))
    for keys, head, start in reversed(found) if plan.backwards else found:
        low, high = keys.low, keys.high
        if start is not None:
            low, high = (low, min(high, start)) if plan.backwards else (max(low, start), high)
        if low < high:
            yield KeyRange(low, high), head
