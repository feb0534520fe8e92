"""What reads feel of others' log-ins, which keep every core busy hashing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from statistics import median

import orjson

from bench.load import ask, closed_loop, request
from bench.measurements.hashing import logging_in, signing_up
from bench.open_loop import latencies, quantile
from bench.options import Options
from bench.places import fresh
from bench.processes import CORES, Server, served
from bench.results import Result, Target

_LOGINS = 8
_PER_SECOND = 200.0


def run(options: Options) -> list[Result]:
    """The slowest hundredth of reads at a fixed rate, with eight log-ins at once and without; server on all cores."""
    place = fresh(options, "tail")
    with served(place, cores=CORES[:2]) as server:
        for number in range(_LOGINS):
            ask(server.port, signing_up(number, "member"), b"201")
        reads = [_read(server, number) for number in range(_LOGINS)]  # each organization within its plan's rate
        idle, busy = [], []
        for _ in range(options.rounds):
            idle.append(_p99(server, reads, options))
            busy.append(_p99_beside_logins(server, reads, options))
    quiet, loud = median(idle) * 1000, median(busy) * 1000
    figures = {"idle ms": quiet, "with log-ins ms": loud}
    return [
        Result(f"p99 of reads with {_LOGINS} log-ins running ÷ without", loud / quiet, "x", Target(5, 3), figures),
        Result(f"p99 of reads with {_LOGINS} log-ins running", loud, "ms", Target(25, 10), figures),
    ]


def _read(server: Server, number: int) -> bytes:
    granted = orjson.loads(ask(server.port, logging_in(number, "member")))
    return request("GET", f"/v1/organizations/{granted['organization_id']}", token=granted["access_token"])


def _p99(server: Server, reads: Sequence[bytes], options: Options) -> float:
    return quantile(latencies(server.port, reads, per_second=_PER_SECOND, seconds=options.seconds), 0.99)


def _p99_beside_logins(server: Server, reads: Sequence[bytes], options: Options) -> float:
    logins = cycle([logging_in(number, "member") for number in range(_LOGINS)]).__next__
    load = partial(closed_loop, server.port, logins, connections=_LOGINS, seconds=options.seconds + 0.5)
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(load)
        found = _p99(server, reads, options)
        done.result()
    return found
