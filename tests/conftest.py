"""Fixtures for every test, and an account of what a run did not prove: what was skipped and what was only sampled."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from tests.support import (
    DATA,
    EVERYTHING,
    HAS_MONGOD,
    HTTP_ON_SERVERS,
    REQUIRE_ALL,
    REQUIRE_MONGOD,
    SEED,
    sample,
    sampled,
)

hypothesis.settings.register_profile("sample", deadline=None, print_blob=True, max_examples=60)
hypothesis.settings.register_profile("everything", deadline=None, print_blob=True, max_examples=2000)
hypothesis.settings.load_profile("everything" if EVERYTHING else "sample")

NEEDS_MONGOD = "a real mongod is needed: put it on PATH, or set ORGSTEAD_TEST_MONGODB_URI"
DATA_MISSING = f"the real data is not in {DATA}: set ORGSTEAD_TEST_DATA to the folder with organizations.csv"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that async tests and fixtures of every scope run in."""
    return "asyncio"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """For tests that configure logging in this process: afterwards it is as before, so that no later test's lines go
    to a stream that is closed by then."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number of the test's own, from the run's seed: the same whichever other tests run."""
    return random.Random(f"{SEED} {request.node.nodeid}").randrange(2**32)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real lists (``organizations.csv``, ``assignments.csv``); skips without them."""
    if not (DATA / "organizations.csv").is_file():
        pytest.skip(DATA_MISSING)
    return DATA


def pytest_report_header() -> list[str]:
    """The seed, and what this run will not prove."""
    lines = [f"seed: {SEED} (repeat this run with ORGSTEAD_TEST_SEED={SEED})"]
    lines.append(f"long suites: {'whole' if EVERYTHING else 'a sample of each (make test-all runs them whole)'}")
    if not (DATA / "organizations.csv").is_file():
        lines.append(f"{'missing' if REQUIRE_ALL else 'skipped'}: {DATA_MISSING}")
    return lines


ON_THE_STAND_IN = {
    "test_a_broken_promise_is_noticed": 20,
    "test_orders": 12,
    "test_p07_every_order_is_total": 8,
    "test_many_rows_are_added_found_and_replaced": 9,
    "test_many_rows_are_added_or_none": 9,
    "test_many_rows_are_removed_or_none": 9,
    "test_rows_of_several_tables_are_added": 2,
    "test_a_change_comes_to_what_its_dry_run_says": 1,
}
"""Cases of tests with very many that run on MongoDB where a stand-in takes its place, which is half of a run's time.
All run on the other engines."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take a sample of the HTTP tests on engines with round trips, and of some tests with very many cases on the
    stand-in; skip what needs a real MongoDB where there is none.

    All is named at the end of the run.
    """
    by_engine: dict[str, list[pytest.Item]] = {}
    for item in items:
        called = getattr(item, "callspec", None)
        engine = called.params.get("engine") if called else None
        if engine is not None and "tests/api/" in item.nodeid:
            by_engine.setdefault(str(engine), []).append(item)
    left_out: set[pytest.Item] = set()
    for engine, cases in list(by_engine.items())[1:]:
        left_out |= {*cases} - {*sample(f"HTTP tests on {engine}", cases, HTTP_ON_SERVERS[engine])}
    for test, at_most in ON_THE_STAND_IN.items() if not HAS_MONGOD else ():
        cases = [item for item in items if getattr(item, "originalname", "") == test and "[mongodb" in item.nodeid]
        left_out |= {*cases} - {*sample(f"{test} on mongodb", cases, at_most)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if not HAS_MONGOD and item.get_closest_marker("real_mongodb"):
            item.add_marker(pytest.mark.skip(reason=NEEDS_MONGOD))


SHARE_OF_THE_LIMIT = 0.8
"""How much of its time limit a coroutine has before it is cancelled."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Cancel a test that hangs in time for it to fail by itself, let go of what it holds, and say where it stood.

    What does not even end then is ended with its process, by the limit itself: all coroutines of a run share one
    event loop, and after a signal's exception in the middle of one its fixtures would wait for the others for ever.
    """
    limit = _limit_of(pyfuncitem)
    if limit and inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _cancelled_after(SHARE_OF_THE_LIMIT * limit, pyfuncitem.obj)
    return (yield)


def _limit_of(item: pytest.Item) -> float:
    """The seconds that pytest-timeout gives the test, 0 for any number."""
    if marked := item.get_closest_marker("timeout"):
        return float(marked.args[0])
    try:
        return float(item.config.getini("timeout") or 0)
    except ValueError:  # the plugin is not there
        return 0


def _cancelled_after(seconds: float, test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(**arguments: object) -> None:
        async with asyncio.timeout(seconds):
            await test(**arguments)

    return bounded


def _required(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where everything is required. An expected failure is not a skip."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    required, variable = REQUIRE_ALL, "ORGSTEAD_TEST_REQUIRE=all"
    if _reason(report) == NEEDS_MONGOD:
        required, variable = REQUIRE_MONGOD, "ORGSTEAD_TEST_REAL_MONGODB=1"
    if required:
        report.outcome = "failed"
        report.longrepr = f"skipped, but {variable}: {_reason(report)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no single test be skipped where everything is required."""
    report = yield
    _required(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let no whole module be skipped where everything is required."""
    report = yield
    _required(report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no database behind. Where a run uses several processes, each tells the first what it only sampled."""
    if (engines := sys.modules.get("tests.engines")) is not None:  # a run that used none has none to leave
        asyncio.run(engines.drop_what_is_left())
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["sampled"] = sampled


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what such a process sampled; one that died has told nothing."""
    sampled.update(
        {suite: tuple(counts) for suite, counts in getattr(node, "workeroutput", {}).get("sampled", {}).items()}
    )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was not proven, and the seed again where something failed."""
    reports = terminalreporter.stats.get("skipped", [])
    unreal = sorted(report.nodeid for report in reports if _reason(report) == NEEDS_MONGOD)
    skipped = Counter(_reason(report) for report in reports if _reason(report) != NEEDS_MONGOD)
    if skipped or sampled or unreal:
        terminalreporter.section("not proven by this run")
    if unreal:
        terminalreporter.write_line(f"{len(unreal)} tests need a real mongod: {', '.join(unreal)}")
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")
    for suite, (run, there) in sorted(sampled.items()):
        terminalreporter.write_line(f"sampled {run} of {there}: {suite}")
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"repeat the random choices of this run with ORGSTEAD_TEST_SEED={SEED}")
