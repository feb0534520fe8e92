"""The measurements, by name, in the order of the documentation. Each is a module with ``run``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bench.measurements import (
    bulk_records,
    commits,
    exporting,
    fairness,
    growth,
    hashing,
    importing,
    pages,
    processes,
    reading,
    records,
    round_trips,
    starting,
    tail,
)
from bench.options import Options
from bench.results import Result

Measurement = Callable[[Options], list[Result]]

MEASUREMENTS: Mapping[str, Measurement] = MappingProxyType(
    {
        "reading": reading.run,
        "hashing": hashing.run,
        "tail": tail.run,
        "commits": commits.run,
        "growth": growth.run,
        "starting": starting.run,
        "importing": importing.run,
        "processes": processes.run,
        "records": records.run,
        "bulk_records": bulk_records.run,
        "pages": pages.run,
        "exporting": exporting.run,
        "fairness": fairness.run,
        "round_trips": round_trips.run,
    }
)


def subject(name: str) -> str:
    """What the measurement of that name is about: the docstring of its module."""
    return inspect.getdoc(inspect.getmodule(MEASUREMENTS[name])) or ""
