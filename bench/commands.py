"""Commands of the product, run to their end, and what they took."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.engines import variables_of
from bench.processes import CORES, children_cpu_seconds, peak_mb, spawned
from bench.results import Result, Target

_LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Ran:
    """Time, start of the process included; its CPU time, without that of a database server; the most memory it had."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def rate(what: str, count: int, runs: Sequence[Ran], target: Target | None) -> Result:
    """How many of ``count`` things a command does in a second, by the median of its runs."""
    seconds = median(run.seconds for run in runs)
    figures = {"seconds": seconds, "CPU seconds": median(run.cpu_seconds for run in runs)}
    return Result(what, count / seconds, "/s", target, figures)


def orgstead(place: Path, *arguments: str) -> Ran:
    """Run ``orgstead`` with these arguments on the database of ``place``. Raises ``RuntimeError`` where it fails."""
    began, before = perf_counter(), children_cpu_seconds()
    peak = 0.0
    with spawned(["-m", "orgstead", *arguments], cores=CORES, cwd=place, variables=variables_of(place)) as process:
        ended = os.pidfd_open(process.pid)
        try:
            # The system forgets the peak with the process, so it is asked until then.
            while not select.select([ended], [], [], _LOOK)[0]:
                peak = max(peak, peak_mb(process.pid))
        finally:
            os.close(ended)
        seconds = perf_counter() - began
        if process.wait():
            raise RuntimeError(f"orgstead {' '.join(arguments)} failed.")
    return Ran(seconds, children_cpu_seconds() - before, peak)
