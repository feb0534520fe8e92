"""The export of one very large organization into an archive: it must not need more memory than that of a small one."""

from __future__ import annotations

from bench.commands import orgstead, rate
from bench.measurements.pages import LARGE, LARGE_QUICK
from bench.options import Options
from bench.places import external_id
from bench.record_places import filled
from bench.results import Result, Target


def run(options: Options) -> list[Result]:
    """The most memory that ``orgstead org export`` has, and records per second, start of the command included.

    Once, not in rounds: the memory does not change from one time to the next, and it takes long.
    """
    records = LARGE_QUICK if options.quick else LARGE
    place = filled(options, records)
    orgstead(place, "db", "upgrade")
    ran = orgstead(place, "org", "export", external_id(1), str(options.folder / "export.zip"), "--force")
    return [
        Result(f"memory of an export of {records:,} records, at its peak", ran.peak_mb, "MB", Target(200)),
        rate(f"export of {records:,} records, records/s", records, [ran], None),
    ]
