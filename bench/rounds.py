"""Measuring in turns: what is compared takes turns within each round, so that a busy moment meets all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from bench.load import BadAnswer, Load
from bench.processes import Server


@dataclass(frozen=True, slots=True)
class Medians:
    """The medians over the rounds: requests per second, and the server's CPU time per request in microseconds."""

    per_second: float
    cpu_us: float


def timed(server: Server, load: Callable[[], Load]) -> tuple[float, float]:
    """Requests per second and server CPU microseconds per request of one load. Raises ``BadAnswer`` if none came."""
    before = server.cpu_seconds()
    done = load()
    used = server.cpu_seconds() - before
    if not done.answers:
        raise BadAnswer("The server answered nothing in time.")
    return done.answers / done.seconds, used / done.answers * 1e6


def in_turns(cases: Mapping[str, tuple[Server, Callable[[], Load]]], rounds: int) -> dict[str, Medians]:
    """Measure every case once a round, every other round in reverse order, after a round that does not count."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name in sorted(cases, key=list(cases).index, reverse=number % 2 == 1):
            measured = timed(*cases[name])
            if number:
                samples[name].append(measured)
    return {
        name: Medians(median(rate for rate, _ in found), median(cpu for _, cpu in found))
        for name, found in samples.items()
    }


def median_seconds(work: Callable[[], object], times: int) -> float:
    """The median time that ``work`` takes, after one time that does not count."""
    taken = []
    for _ in range(times + 1):
        began = perf_counter()
        work()
        taken.append(perf_counter() - began)
    return median(taken[1:])
