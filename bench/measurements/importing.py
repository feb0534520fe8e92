"""The import of a real list of organizations, through the command line, into an empty database."""

from __future__ import annotations

from statistics import median

from bench.commands import orgstead
from bench.options import Options
from bench.places import fresh
from bench.results import Result

_FILE = "organizations.csv"


def run(options: Options) -> list[Result]:
    """Organizations per second, start of the command included. Nothing where the list is not on this machine."""
    file = options.data / _FILE
    if not file.exists():
        return []
    with file.open(encoding="utf-8") as lines:
        organizations = sum(1 for _ in lines) - 1
    runs = []
    for _ in range(options.rounds):
        place = fresh(options, "importing")
        orgstead(place, "db", "upgrade")
        runs.append(orgstead(place, "org", "import", str(file.resolve())))
    seconds = median(run.seconds for run in runs)
    return [
        Result(
            f"import of {organizations:,} real names, organizations/s",
            organizations / seconds,
            "/s",
            options.engine.targets["importing"],
            {"seconds": seconds, "CPU seconds": median(run.cpu_seconds for run in runs)},
        )
    ]
