"""A run as a table for people, as JSON for programs, and as a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measurements import MEASUREMENTS, subject
from bench.results import Result

_HEADS = ("measured", "value", "target", "goal", "", "medians")
_COLORS = {"goal": "green", "met": "green", "missed": "red"}


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one run, what it was measured on (``facts``) and how (``conditions``)."""

    results: Sequence[Result]
    facts: Mapping[str, str]
    conditions: Mapping[str, Any]

    @property
    def missed(self) -> bool:
        return any(result.verdict == "missed" for result in self.results)

    def as_json(self) -> dict[str, Any]:
        return {
            "facts": dict(self.facts),
            "conditions": dict(self.conditions),
            "results": [result.as_json() for result in self.results],
        }


def show(run: Run, console: Console) -> None:
    """Print the table, and what it was measured on."""
    table = Table(*_HEADS)
    for result in run.results:
        cells = _cells(result)
        table.add_row(*cells, style=_COLORS[result.verdict] if result.verdict == "missed" else "")
    console.print(table)
    console.print("; ".join(f"{name} {fact}" for name, fact in run.facts.items()), style="dim", highlight=False)
    console.print("; ".join(f"{name} {value}" for name, value in run.conditions.items()), style="dim", highlight=False)


def save(run: Run, file: Path) -> None:
    """Write the JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(run.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def page(run: Run) -> str:
    """The page of the documentation."""
    lines = [_HEADS, ["---"] * len(_HEADS), *map(_cells, run.results)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    facts = "".join(f"* {name}: {value}\n" for name, value in {**run.facts, **run.conditions}.items())
    return (
        "# Speed\n\n"
        "One run of `make bench`. Only the ratios mean anything on another machine: what is compared took turns\n"
        "within this run, and the medians count. Server on one core, load on the other; durable settings, logs on.\n\n"
        f"{table}\n{facts}\n{legend()}"
    )


def legend() -> str:
    """The part of the page that says what each measurement is about."""
    lines = "".join(f"* `{name}`: {subject(name)}\n" for name in MEASUREMENTS)
    return f"## What is measured\n\n`make bench ARGS=NAME` measures one of these alone.\n\n{lines}"


def _cells(result: Result) -> tuple[str, ...]:
    target = result.target
    figures = ", ".join(f"{name} {_number(value)}" for name, value in result.figures.items())
    return (
        result.what,
        f"{_number(result.value)} {result.unit}",
        str(target or ""),
        f"{target.goal:,g}" if target and target.goal is not None else "",
        result.verdict,
        figures,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
