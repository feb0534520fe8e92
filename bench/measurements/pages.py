"""What one more record costs a query: its first page from a small collection and from a very large one."""

from __future__ import annotations

from functools import partial
from random import Random

from bench.load import ask, repeated
from bench.options import Options
from bench.places import members
from bench.processes import served
from bench.record_places import filled, page_requests
from bench.results import Result, Target
from bench.rounds import in_turns

SMALL = 1000
LARGE = 1_000_000
LARGE_QUICK = 100_000
_CONNECTIONS = 16
_QUERIES = 256


def run(options: Options) -> list[Result]:
    """Time of the first page of queries that an index serves, which begin at many places of it."""
    large = LARGE_QUICK if options.quick else LARGE
    few, many = (filled(options, number) for number in (SMALL, large))
    small, big = (page_requests(members(place)[0], _QUERIES, Random(options.seed)) for place in (few, many))
    load = partial(repeated, connections=_CONNECTIONS, seconds=options.seconds)
    with served(few) as small_server, served(many) as big_server:
        ask(small_server.port, small[0])
        ask(big_server.port, big[0])
        found = in_turns(
            {
                "few": (small_server, partial(load, small_server.port, small)),
                "many": (big_server, partial(load, big_server.port, big)),
            },
            options.rounds,
        )
    return [
        Result(
            f"first page of an indexed query over {large:,} records ÷ over {SMALL:,}, time per request",
            found["few"].per_second / found["many"].per_second,
            "x",
            Target(1.3, 1.1),
            {
                "few/s": found["few"].per_second,
                "many/s": found["many"].per_second,
                "few µs": found["few"].cpu_us,
                "many µs": found["many"].cpu_us,
            },
        )
    ]
