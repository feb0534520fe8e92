"""``python -m bench [NAME ...]``: measure, print the table, keep the JSON."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench.engines import ENGINES, Engine
from bench.machine import facts, load_average
from bench.measurements import MEASUREMENTS
from bench.options import Options
from bench.processes import CORES, LOAD_CORE, ROOT
from bench.report import Run, page, save, show
from bench.results import Result

RESULTS = ROOT / "bench" / "results"


def main(arguments: Sequence[str]) -> int:
    """Run the measurements; 0, or with ``--strict`` 1 when a target was missed."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in MEASUREMENTS]:
        parser.error(f"there is no measurement {unknown[0]}; there are {', '.join(MEASUREMENTS)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    RESULTS.mkdir(exist_ok=True)
    before = load_average()
    results: list[Result] = []
    # Children are pinned where they are started; the load comes from here.
    os.sched_setaffinity(0, [LOAD_CORE])
    for name in asked.engine or ENGINES:
        results += _measured(ENGINES[name], asked)
    conditions = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load average": f"{before:.1f} before, {load_average():.1f} after",
        "cores": len(CORES),
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "seed": asked.seed,
    }
    run = Run(results, facts(), conditions)
    show(run, console)
    save(run, asked.json or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    if asked.page:
        asked.page.write_text(page(run), encoding="utf-8")
    return int(asked.strict and run.missed)


def _measured(engine: Engine, asked: argparse.Namespace) -> list[Result]:
    """The results of one engine: of what was asked for, as far as that says something about it."""
    kept = RESULTS / "kept"
    found: list[Result] = []
    with TemporaryDirectory(dir=RESULTS) as folder, engine.databases(kept) as databases:
        options = Options(
            engine=engine,
            databases=databases,
            folder=Path(folder),
            kept=kept / engine.name.lower(),
            data=Path(os.environ.get("ORGSTEAD_TEST_DATA") or ROOT.parent / "shared" / "data"),
            rounds=asked.rounds,
            seconds=asked.seconds,
            seed=asked.seed,
            quick=asked.quick,
        )
        for name in engine.measurements:
            if asked.names and name not in asked.names:
                continue
            print(f"measuring {name} on {engine.name} …", file=sys.stderr, flush=True)
            results = MEASUREMENTS[name](options)
            if not results:
                print(f"{name} was skipped: its data is not here (ORGSTEAD_TEST_DATA).", file=sys.stderr)
            found += [replace(result, what=f"{engine.name}: {result.what}") for result in results]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the speed of orgstead.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="on which engine; may be repeated (all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of everything that is compared (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn (2)")
    parser.add_argument("--seed", type=int, default=20_261_123, help="chooses the organizations that are read")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the organizations and records where many are meant"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results (bench/results/)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the results as a page, too")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
