"""Reading, creating and querying records over HTTP, against the least that a route costs."""

from __future__ import annotations

from functools import partial
from random import Random

from bench.load import ask, repeated, request
from bench.options import Options
from bench.places import members
from bench.processes import served
from bench.record_places import COLLECTION, data_of, fresh, page_requests, path_of, rows
from bench.results import Result
from bench.rounds import in_turns

_ORGANIZATIONS = 256
_EACH = 100
_CONNECTIONS = 64
"""So many are writing at once that their transactions are committed together."""


def run(options: Options) -> list[Result]:
    """Requests of many organizations, each within its plan's rate and quota; durable, as the product is shipped."""
    place = fresh(options, "records", organizations=_ORGANIZATIONS, records=_EACH)
    random = Random(options.seed)
    owners = members(place)
    records = list(rows(_EACH))
    gets = [
        request("GET", f"{path_of(owner)}/records/{random.choice(records)['assignment']}", token=owner.token)
        for owner in owners
    ]
    indexed, plain = (
        [
            request("POST", f"{path_of(owner, name)}/records", token=owner.token, body={"data": data_of(row)})
            for owner, row in zip(owners, random.choices(records, k=len(owners)), strict=True)
        ]
        for name in (COLLECTION, "notes")
    )
    queries = [page_requests(owner, 1, random)[0] for owner in owners]
    bare = [request("GET", "/bare")]
    with served(place) as server:
        ask(server.port, gets[0])
        ask(server.port, queries[0])
        for wanted in (indexed[0], *plain):  # a collection without indexes comes into being with its first record
            ask(server.port, wanted, b"201")
        load = partial(repeated, connections=_CONNECTIONS, seconds=options.seconds)
        found = in_turns(
            {
                "get": (server, partial(load, server.port, gets)),
                "create": (server, partial(load, server.port, plain, status=b"201")),
                "create indexed": (server, partial(load, server.port, indexed, status=b"201")),
                "query": (server, partial(load, server.port, queries)),
                "bare": (server, partial(load, server.plain_port, bare)),
            },
            options.rounds,
        )
    least = found["bare"]
    return [
        Result(
            f"{what} ÷ bare route, requests/s",
            found[name].per_second / least.per_second,
            "x",
            options.engine.targets.get(f"records {name}"),
            {
                f"{name}/s": found[name].per_second,
                "bare/s": least.per_second,
                f"{name} µs": found[name].cpu_us,
                "bare µs": least.cpu_us,
            },
        )
        for name, what in (
            ("get", "authenticated GET of a record"),
            ("create", f"creating a record, {_CONNECTIONS} at once"),
            ("create indexed", f"creating a record in an indexed collection, {_CONNECTIONS} at once"),
            ("query", "first page of an indexed query, 50 records"),
        )
    ]
