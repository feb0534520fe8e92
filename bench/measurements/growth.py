"""What one more organization costs: the same requests on a small database and on a very large one."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from random import Random

from bench.load import NextRequest, closed_loop, repeated, request
from bench.options import Options
from bench.places import Member, filled, members
from bench.processes import served
from bench.results import Result, Target
from bench.rounds import in_turns
from orgstead import kit

SMALL = 1000
LARGE = 1_000_000
LARGE_QUICK = 100_000
_READERS = 32
_CREATORS = 16


def run(options: Options) -> list[Result]:
    """Time of a read and of a creation (by an owner who is there, so that no password is hashed)."""
    large = LARGE_QUICK if options.quick else LARGE
    small_place, large_place = (filled(options, number) for number in (SMALL, large))
    random = Random(options.seed)
    few, many = (random.sample(members(place), 512) for place in (small_place, large_place))
    read = partial(repeated, connections=_READERS, seconds=options.seconds)
    create = partial(closed_loop, connections=_CREATORS, seconds=options.seconds, status=b"201")
    with served(small_place) as small_server, served(large_place) as large_server:
        found = in_turns(
            {
                "read few": (small_server, partial(read, small_server.port, _reads(few))),
                "read many": (large_server, partial(read, large_server.port, _reads(many))),
                "create few": (small_server, partial(create, small_server.port, _creations(few))),
                "create many": (large_server, partial(create, large_server.port, _creations(many))),
            },
            options.rounds,
        )
    return [
        Result(
            f"{what} at {large:,} pooled organizations ÷ at {SMALL:,}, time per request",
            found[f"{name} few"].per_second / found[f"{name} many"].per_second,
            "x",
            Target(1.3, 1.1),
            {f"few {name}/s": found[f"{name} few"].per_second, f"many {name}/s": found[f"{name} many"].per_second},
        )
        for name, what in (("read", "reading an organization"), ("create", "creating an organization"))
    ]


def _reads(owners: list[Member]) -> list[bytes]:
    return [request("GET", f"/v1/organizations/{owner.org_id}", token=owner.token) for owner in owners]


def _creations(owners: list[Member]) -> NextRequest:
    """Requests for organizations of ever new names."""
    tokens = cycle(owner.token for owner in owners)
    # The end of an id is random: names in no order, as real ones come.
    return lambda: request(
        "POST", "/v1/organizations", token=next(tokens), body={"name": f"{kit.new_id('b')[-12:]} and Sons"}
    )
