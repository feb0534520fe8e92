"""Importing records: every line has an outcome, and an import that was interrupted is simply run again."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from orgstead import record_import
from orgstead.app import App
from orgstead.record_errors import InvalidDefinition
from orgstead.record_import import Line, Outcome, Result
from tests.use_cases.shelves import Shelf

pytestmark = pytest.mark.anyio


async def imported(shelf: Shelf, lines: Iterable[Line], collection: str = "items") -> list[Outcome]:
    outcomes: list[Outcome] = []
    async for batch in record_import.import_records(shelf.app, shelf.placement, collection, lines, shelf.terms):
        outcomes += batch
    return outcomes


def line(number: int, data: Any, id: str | None = None, unreadable: str | None = None) -> Line:
    return Line(number, data, id, 10, unreadable)


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_lines_become_records_once(app: App, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_import, "BATCH", 4)
    shelf = await Shelf.made(app, plan=plan)
    await shelf.define("items", indexes=[["n"]])
    lines = [line(number, {"n": number}, f"r{number}") for number in range(1, 11)]
    first = await imported(shelf, iter(lines[:6]))
    assert first == [Outcome(number, Result.CREATED, f"r{number}") for number in range(1, 7)]
    again = await imported(shelf, lines)
    assert [outcome.result for outcome in again] == [Result.EXISTS] * 6 + [Result.CREATED] * 4
    assert len(await shelf.ask("items", {"field": "n", "gt": 0})) == 10
    assert [event.seq for event in await shelf.events()] == list(range(1, 12))


async def test_each_line_is_judged_alone(app: App) -> None:
    shelf = await Shelf.made(app)
    await shelf.define("items", schema={"properties": {"n": {"type": "integer"}}}, unique=[["sku"]])
    await shelf.create("items", {"sku": "taken"}, id="there")
    lines = [
        line(1, {"n": 1, "sku": "a"}, "r1"),
        line(2, {"n": "x"}),
        line(3, {"sku": "taken"}),
        line(4, {"sku": "a"}),
        line(5, None, None, "The line is not JSON."),
        line(6, {}, "bad id"),
        line(7, {}, "r1"),
        line(8, {}, "there"),
        line(9, [1]),
        line(10, {"t": "x" * 100}),
        line(11, {"n": 2}),
    ]
    shelf.max_bytes = 50
    outcomes = await imported(shelf, lines)
    assert [(o.line, o.result.value, o.pointer) for o in outcomes] == [
        (1, "created", None),
        (2, "refused", "/data/n"),
        (3, "refused", "/data/sku"),
        (4, "refused", "/data/sku"),
        (5, "refused", None),
        (6, "refused", "/id"),
        (7, "exists", None),
        (8, "exists", None),
        (9, "refused", "/data"),
        (10, "refused", None),
        (11, "created", None),
    ]
    assert all(outcome.reason for outcome in outcomes if outcome.result is Result.REFUSED)
    assert (await shelf.usage()).records == 3


@pytest.mark.parametrize("size", [100, 1])
async def test_a_line_that_is_refused_stands_in_nobodys_way(
    app: App, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Not with its id, not with its unique values, and not in the quota: as if each line came alone."""
    monkeypatch.setattr(record_import, "BATCH", size)
    shelf = await Shelf.made(app)
    await shelf.define("items", unique=[["a"], ["b"]])
    await shelf.create("items", {"b": 1}, id="there")
    shelf.limit(records=6)
    lines = [
        line(1, {"a": 300, "b": 1}, "P"),
        line(2, {"a": 301}, "P"),
        line(3, {"a": 302}, "P"),
        line(4, {"a": 100, "b": 1}, "A"),
        line(5, {"a": 100}, "B"),
        line(6, {"a": 100}, "C"),
        line(7, {"a": 7}),
        line(8, {"b": 1}),
        line(9, {"a": 9}),
        line(10, {"a": 10}),
        line(11, {"a": 11}),
    ]
    outcomes = await imported(shelf, lines)
    assert [(o.line, o.result.value) for o in outcomes] == [
        (1, "refused"),
        (2, "created"),
        (3, "exists"),
        (4, "refused"),
        (5, "created"),
        (6, "refused"),
        (7, "created"),
        (8, "refused"),
        (9, "created"),
        (10, "created"),
        (11, "refused"),
    ]
    assert (await shelf.usage()).records == 6
    assert "6 records" in str(outcomes[-1].reason)
    again = await imported(shelf, lines)
    assert [o.result.value for o in again if o.line in (4, 6, 8)] == ["refused"] * 3
    assert (await shelf.usage()).records == 6


async def test_as_many_lines_as_a_batch_has_may_stand_in_each_others_way(app: App) -> None:
    """Each of them is refused for itself only once the one before it was: the last one is written."""
    shelf = await Shelf.made(app)
    await shelf.define("items", unique=[["a"]])
    await shelf.create("items", {"a": 1}, id="there")
    count = 150
    lines = [*(line(number, {"a": 1}, "same") for number in range(1, count)), line(count, {}, "same")]
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 120)  # a frame for each of them would be too many
    try:
        outcomes = await imported(shelf, lines)
    finally:
        sys.setrecursionlimit(before)
    assert [o.result for o in outcomes] == [Result.REFUSED] * (count - 1) + [Result.CREATED]


async def test_a_value_that_cannot_be_stored_is_its_own_lines_fault(app: App) -> None:
    shelf = await Shelf.made(app)
    outcomes = await imported(
        shelf, [line(1, {"a": 1}), line(2, {"a": "\0"}), line(3, {"a": float("nan")}), line(4, {})]
    )
    assert [o.result.value for o in outcomes] == ["created", "refused", "refused", "created"]


async def test_the_quota_is_filled_and_not_exceeded(app: App) -> None:
    shelf = await Shelf.made(app)
    shelf.limit(records=5)
    outcomes = await imported(shelf, [line(number, {}) for number in range(1, 9)])
    assert [o.result.value for o in outcomes] == ["created"] * 5 + ["refused"] * 3
    assert "5 records" in str(outcomes[-1].reason)
    shelf.limit(collections=1)
    assert {o.result for o in await imported(shelf, [line(1, {})], "others")} == {Result.REFUSED}
    assert (await shelf.usage()).collections == 1


async def test_a_batch_has_so_many_bytes(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_import, "BATCH_BYTES", 25)
    shelf = await Shelf.made(app)
    batches = []
    lines = [line(number, {}) for number in range(7)]
    async for batch in record_import.import_records(app, shelf.placement, "items", lines, shelf.terms):
        batches.append(len(batch))
    assert batches == [3, 3, 1]


async def test_a_name_that_is_none(app: App) -> None:
    shelf = await Shelf.made(app)
    with pytest.raises(InvalidDefinition):
        await imported(shelf, [line(1, {})], "No")
