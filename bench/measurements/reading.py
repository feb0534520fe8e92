"""An authenticated read against the least that a route costs, and against itself without the layers around it."""

from __future__ import annotations

from functools import partial
from random import Random

from bench.load import ask, repeated, request
from bench.options import Options
from bench.places import filled, members
from bench.processes import served
from bench.results import Result, Target
from bench.rounds import in_turns

_CONNECTIONS = 32


def run(options: Options) -> list[Result]:
    """``GET /v1/organizations/{id}`` by the owners of many organizations."""
    place = filled(options, 1000)
    owners = Random(options.seed).sample(members(place), 256)
    reads = [request("GET", f"/v1/organizations/{owner.org_id}", token=owner.token) for owner in owners]
    with served(place) as server:
        for port in (server.port, server.plain_port):
            ask(port, reads[0])
        load = partial(repeated, connections=_CONNECTIONS, seconds=options.seconds)
        found = in_turns(
            {
                "get": (server, partial(load, server.port, reads)),
                "bare": (server, partial(load, server.plain_port, [request("GET", "/bare")])),
                "without": (server, partial(load, server.plain_port, reads)),
            },
            options.rounds,
        )
    get, bare, without = found["get"], found["bare"], found["without"]
    return [
        Result(
            "authenticated GET of an organization ÷ bare route, requests/s",
            get.per_second / bare.per_second,
            "x",
            options.engine.targets["reading"],
            {"get/s": get.per_second, "bare/s": bare.per_second, "get µs": get.cpu_us, "bare µs": bare.cpu_us},
        ),
        Result(
            "the layers around every route, on ÷ off, server CPU per request",
            get.cpu_us / without.cpu_us,
            "x",
            Target(1.15, 1.08),
            {"on µs": get.cpu_us, "off µs": without.cpu_us},
        ),
    ]
