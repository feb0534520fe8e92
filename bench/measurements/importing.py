"""The import of a real list of organizations, through the command line, into an empty database."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter

from bench.engines import variables_of
from bench.options import Options
from bench.places import fresh
from bench.processes import CORES, children_cpu_seconds, spawned
from bench.results import Result

_FILE = "organizations.csv"


def run(options: Options) -> list[Result]:
    """Organizations per second, start of the command included. Nothing where the list is not on this machine."""
    file = options.data / _FILE
    if not file.exists():
        return []
    with file.open(encoding="utf-8") as lines:
        organizations = sum(1 for _ in lines) - 1
    taken, used = [], []
    for _ in range(options.rounds):
        place = fresh(options, "importing")
        _orgstead(place, "db", "upgrade")
        began, before = perf_counter(), children_cpu_seconds()
        _orgstead(place, "org", "import", str(file.resolve()))
        taken.append(perf_counter() - began)
        used.append(children_cpu_seconds() - before)
    return [
        Result(
            f"import of {organizations:,} real names, organizations/s",
            organizations / median(taken),
            "/s",
            options.engine.targets["importing"],
            {"seconds": median(taken), "CPU seconds": median(used)},
        )
    ]


def _orgstead(place: Path, *arguments: str) -> None:
    with spawned(["-m", "orgstead", *arguments], cores=CORES, cwd=place, variables=variables_of(place)) as process:
        if process.wait():
            raise RuntimeError(f"orgstead {' '.join(arguments)} failed.")
