"""What reads of other organizations feel of one that sends ten times as much as it may."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random
from statistics import median
from time import sleep

from bench.load import request
from bench.open_loop import answers, latencies, quantile
from bench.options import Options
from bench.places import Member, members, settings_in
from bench.processes import served
from bench.record_places import fresh, path_of, rows
from bench.results import Result, Target

_OTHERS = 16
_RECORDS = 100
_PER_SECOND = 200.0
"""Of all others together: each stays far below its own limit."""

_SHORTEST = 5.0
"""Seconds of a turn at least: the hundredth part of fewer answers would be too few to say anything."""

_AHEAD = 2.0
"""Seconds for which the one has been sending when its neighbours are timed: what it had saved up is spent."""


def run(options: Options) -> list[Result]:
    """The slowest hundredth of the others' reads at a fixed rate: alone, beside one at its limit, at ten times it."""
    place = fresh(options, "fairness", organizations=_OTHERS + 1, records=_RECORDS)
    one, *others = members(place)
    limit = settings_in(place).plans["free"].requests_per_second
    assert limit
    random = Random(options.seed)
    reads, noise = (_reads(owners, random) for owners in (others, [one]))
    seconds = max(_SHORTEST, options.seconds)
    found: dict[float, list[float]] = {0: [], limit: [], 10 * limit: []}
    refused = 0.0
    # In a process of its own, of low priority: the others' client must wait for the server, not for this one.
    with (
        served(place) as server,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=os.nice, initargs=(10,)) as beside,
    ):
        for number in range(options.rounds + 1):
            for rate, samples in found.items():
                if rate:
                    sending = beside.submit(_refused, server.port, noise, rate, _AHEAD + seconds)
                    sleep(_AHEAD)
                taken = latencies(server.port, reads, per_second=_PER_SECOND, seconds=seconds)
                if rate:
                    refused = sending.result()
                if number:  # the first round does not count
                    samples.append(quantile(taken, 0.99) * 1000)
    quiet, polite, loud = (median(samples) for samples in found.values())
    figures = {
        "alone ms": quiet,
        "beside one at its limit ms": polite,
        "at ten times it ms": loud,
        "refused %": refused * 100,
    }
    return [
        Result("p99 of reads beside one at ten times its limit ÷ alone", loud / quiet, "x", Target(1.2), figures),
        Result("p99 of reads beside one at ten times its limit", loud, "ms", None, figures),
    ]


def _reads(owners: Sequence[Member], random: Random) -> list[bytes]:
    """Reads of records by the owners in turn."""
    ids = [row["assignment"] for row in rows(_RECORDS)]
    return [
        request("GET", f"{path_of(owner)}/records/{random.choice(ids)}", token=owner.token)
        for _ in range(256 // len(owners))
        for owner in owners
    ]


def _refused(port: int, requests: Sequence[bytes], per_second: float, seconds: float) -> float:
    """Send at this rate; the share that was refused for it."""
    sent = answers(port, requests, (b"200", b"429"), per_second=per_second, seconds=seconds)
    return sum(status == b"429" for status, _ in sent) / len(sent)
