"""How an engine joins the suite, is chosen, and is missed out loud where its server cannot be started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests import engines
from tests.servers import EngineUnavailable


@asynccontextmanager
async def broken() -> AsyncIterator[engines.Database]:
    raise EngineUnavailable("no server binary on PATH")
    yield engines.Database("")


@pytest.fixture
def two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.usefixtures("two_engines")
async def test_an_engine_that_cannot_start_is_skipped_with_the_reason() -> None:
    """The skip says which engine and why; where everything is required, every skip is a failure."""
    with pytest.raises(pytest.skip.Exception, match="first cannot be started: no server binary on PATH"):
        async with engines.new_database("first"):
            pass
