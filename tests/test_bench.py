"""The bench as far as it can be tried without timing anything: what it measures, says, and makes up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import record_places, report
from bench.engines import ENGINES
from bench.measurements import MEASUREMENTS
from bench.report import Run
from bench.results import Result, Target
from tests.support import PROJECT

LOWER, UPPER = Target(0.5, 0.6, at_least=True), Target(1.3, 1.1)


def test_each_measurement_is_made_on_an_engine_and_has_its_line_in_the_documentation() -> None:
    assert {name for engine in ENGINES.values() for name in engine.measurements} == set(MEASUREMENTS)
    assert (PROJECT / "docs" / "benchmarks.md").read_text(encoding="utf-8").endswith(report.legend())


def test_targets_are_of_what_an_engine_measures() -> None:
    for engine in ENGINES.values():
        assert {name.partition(" ")[0] for name in engine.targets} <= set(engine.measurements)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (LOWER, 0.6, "goal"),
        (LOWER, 0.5, "met"),
        (LOWER, 0.49, "missed"),
        (UPPER, 1.1, "goal"),
        (UPPER, 1.3, "met"),
        (UPPER, 1.31, "missed"),
        (replace(UPPER, goal=None), 1.0, "met"),
        (replace(UPPER, goal=None), 1.31, "missed"),
        (None, 1.0, ""),
    ],
)
def test_a_figure_is_held_to_its_target(target: Target | None, value: float, verdict: str) -> None:
    result = Result("something", value, "x", target)
    assert (result.verdict, result.as_json()["verdict"]) == (verdict, verdict)
    assert Run([result], {}, {}).missed is (verdict == "missed")


def test_a_page_shows_targets_only_where_there_are_any() -> None:
    results = [Result("a", 2, "x", LOWER, {"b/s": 3}), Result("c", 2, "x", Target(3)), Result("d", 2, "x", None)]
    lines = report.page(Run(results, {}, {})).splitlines()
    assert [line for line in lines if "2.00 x" in line] == [
        "| a | 2.00 x | ≥ 0.5 | 0.6 | goal | b/s 3.00 |",
        "| c | 2.00 x | ≤ 3 |  | met |  |",
        "| d | 2.00 x |  |  |  |  |",
    ]


def test_made_up_records_are_the_same_each_time_and_each_of_another_assignment() -> None:
    rows = list(record_places.rows(1000, 1))
    assert rows == list(record_places.rows(1000, 1))
    assert rows != list(record_places.rows(1000, 2))
    assert len({row["assignment"] for row in rows}) == 1000
