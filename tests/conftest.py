"""Fixtures for every test, and an account of what a run did not prove: what was skipped and what was only sampled."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import DATA, EVERYTHING, REQUIRE_ALL, SEED, sampled

hypothesis.settings.register_profile("sample", deadline=None, print_blob=True, max_examples=60)
hypothesis.settings.register_profile("everything", deadline=None, print_blob=True, max_examples=2000)
hypothesis.settings.load_profile("everything" if EVERYTHING else "sample")

DATA_MISSING = f"the real data is not in {DATA}: set ORGSTEAD_TEST_DATA to the folder with organizations.csv"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that async tests and fixtures of every scope run in."""
    return "asyncio"


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


def _required(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where everything is required. An expected failure is not a skip."""
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but ORGSTEAD_TEST_REQUIRE=all: {_reason(report)}"


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
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if skipped or sampled:
        terminalreporter.section("not proven by this run")
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")
    for suite, (run, there) in sorted(sampled.items()):
        terminalreporter.write_line(f"sampled {run} of {there}: {suite}")
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"repeat the random choices of this run with ORGSTEAD_TEST_SEED={SEED}")
