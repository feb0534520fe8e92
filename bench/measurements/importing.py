"""The import of a real list of organizations, through the command line, into an empty database."""

from __future__ import annotations

from bench.commands import orgstead, rate
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
    target = options.engine.targets["importing"]
    return [rate(f"import of {organizations:,} real names, organizations/s", organizations, runs, target)]
