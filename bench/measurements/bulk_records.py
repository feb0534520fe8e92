"""The import of many records into one organization, through the command line."""

from __future__ import annotations

import csv
from pathlib import Path

from bench import places
from bench.commands import orgstead, rate
from bench.options import Options
from bench.places import external_id
from bench.record_places import COLLECTION, rows
from bench.results import Result

_RECORDS = 100_000
_RECORDS_QUICK = 10_000


def run(options: Options) -> list[Result]:
    """Records per second, start of the command included, into a new collection of an otherwise empty database."""
    count = _RECORDS_QUICK if options.quick else _RECORDS
    file = options.folder / "records.csv"
    _write(file, count, options.seed)
    runs = []
    for _ in range(options.rounds):
        place = places.fresh(options, "bulk")
        places.fill(place, 1, plan="pro")
        what = ("--collection", COLLECTION, "--org", external_id(1), "--id-column", "assignment")
        runs.append(orgstead(place, "record", "import", str(file), *what))
    target = options.engine.targets["bulk_records"]
    return [rate(f"import of {count:,} records into one organization, records/s", count, runs, target)]


def _write(file: Path, count: int, seed: int) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, ("assignment", "registry", "address"))
        table.writeheader()
        table.writerows(rows(count, seed))
