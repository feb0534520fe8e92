"""How an engine joins the suite, is chosen, and is missed out loud where its server cannot be started."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests import engines
from tests.servers import EngineUnavailable

Databases = Callable[[str], AbstractAsyncContextManager[engines.Database]]


async def fail() -> engines.Database:
    raise EngineUnavailable("no server binary on PATH")


async def drop(database: engines.Database) -> None:
    raise AssertionError("none was made")


@pytest.fixture
def two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = engines.Engine(fail, drop)
    monkeypatch.setattr(engines, "ENGINES", {"first": broken, "second": broken})


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("", ["first", "second"]), ("second", ["second"]), ("second, first", ["first", "second"])],
)
@pytest.mark.usefixtures("two_engines")
def test_engines_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch, wanted: str, chosen: list[str]) -> None:
    """``ORGSTEAD_TEST_ENGINES`` names some; without it all are tested."""
    monkeypatch.setenv("ORGSTEAD_TEST_ENGINES", wanted)
    assert engines.selected() == chosen


@pytest.mark.usefixtures("two_engines")
def test_a_misspelt_engine_is_no_empty_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not registered stops the run: nothing would have been tested."""
    monkeypatch.setenv("ORGSTEAD_TEST_ENGINES", "first,thrid")
    with pytest.raises(pytest.UsageError, match="thrid"):
        engines.selected()


@pytest.mark.parametrize("database", [engines.new_database, engines.empty_database])
@pytest.mark.usefixtures("two_engines")
async def test_an_engine_that_cannot_start_is_skipped_with_the_reason(database: Databases) -> None:
    """The skip says which engine and why; where everything is required, every skip is a failure."""
    with pytest.raises(pytest.skip.Exception, match="first cannot be started: no server binary on PATH"):
        async with database("first"):
            pass


async def test_a_database_is_emptied_for_the_next_test_or_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed test leaves is dropped: nobody knows what state it is in."""
    done: list[str] = []

    async def create() -> engines.Database:
        done.append("create")
        return engines.Database("somewhere")

    async def empty(database: engines.Database) -> None:
        done.append("empty")

    async def drop(database: engines.Database) -> None:
        done.append("drop")

    monkeypatch.setattr(engines, "_left", {})
    monkeypatch.setattr(
        engines, "ENGINES", {"kept": engines.Engine(create, drop, empty), "not kept": engines.Engine(create, drop)}
    )
    for _ in range(2):
        async with engines.empty_database("not kept"):
            done.append("test")
    assert done == ["create", "test", "drop"] * 2
    done.clear()
    for _ in range(2):
        async with engines.empty_database("kept"):
            done.append("test")
    with pytest.raises(ZeroDivisionError):
        async with engines.empty_database("kept"):
            raise ZeroDivisionError
    await engines.drop_what_is_left()
    assert done == ["create", "test", "empty", "test", "empty", "drop"]
