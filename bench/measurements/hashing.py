"""Creating an organization and logging in, against a route that only hashes: all the rest must not be felt."""

from __future__ import annotations

from functools import partial
from itertools import count, cycle

from bench.load import ask, closed_loop, request
from bench.options import Options
from bench.places import fresh
from bench.processes import served
from bench.results import Result, Target
from bench.rounds import in_turns

PASSWORD = "correct horse battery staple"
_CONNECTIONS = 4


def signing_up(number: int, mark: str) -> bytes:
    """The request that creates an organization together with the account of its owner."""
    owner = {"email": f"{mark}-{number}@bench.example.com", "password": PASSWORD}
    return request("POST", "/v1/organizations", body={"name": f"{mark} number {number}", "owner": owner})


def logging_in(number: int, mark: str) -> bytes:
    """The request that logs the owner in whom ``signing_up`` made."""
    body = {"email": f"{mark}-{number}@bench.example.com", "password": PASSWORD}
    return request("POST", "/v1/auth/login", body=body)


def run(options: Options) -> list[Result]:
    """Requests per second of the three, with as many at once as keep the hashing threads busy."""
    place = fresh(options, "hashing")
    numbers = count()
    with served(place) as server:
        for number in range(_CONNECTIONS):
            ask(server.port, signing_up(number, "member"), b"201")
        logins = cycle([logging_in(number, "member") for number in range(_CONNECTIONS)])
        load = partial(closed_loop, connections=_CONNECTIONS, seconds=max(2.0, options.seconds))
        found = in_turns(
            {
                "create": (
                    server,
                    partial(load, server.port, lambda: signing_up(next(numbers), "new"), status=b"201"),
                ),
                "login": (server, partial(load, server.port, logins.__next__)),
                "hash": (server, partial(load, server.plain_port, cycle([request("GET", "/hash")]).__next__)),
            },
            options.rounds,
        )
    hashed = found["hash"].per_second
    return [
        Result(
            f"{what} ÷ a route that only hashes, time per request",
            hashed / found[name].per_second,
            "x",
            Target(1.15, 1.08),
            {f"{name}/s": found[name].per_second, "hash/s": hashed},
        )
        for name, what in (("create", "creating an organization"), ("login", "logging in"))
    ]
