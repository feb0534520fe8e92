"""What a second process adds, where several may serve one database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter, sleep

from bench.engines import variables_of
from bench.load import ask, repeated, request
from bench.options import Options
from bench.places import filled, members
from bench.processes import CORES, Server, free_port, spawned
from bench.results import Result, Target
from bench.rounds import in_turns

_CONNECTIONS = 128
"""As many as give each number of processes its best: of fewer, two are not kept busy; more add nothing to either."""

_PATIENCE = 30.0


def run(options: Options) -> list[Result]:
    """``GET /v1/organizations/{id}`` from ``orgstead serve`` with two processes and with one, on every core."""
    place = filled(options, 1000)
    owners = Random(options.seed).sample(members(place), 256)
    reads = [request("GET", f"/v1/organizations/{owner.org_id}", token=owner.token) for owner in owners]
    with ExitStack() as stack:
        servers = {count: stack.enter_context(_serving(place, count, reads[0])) for count in (1, 2)}
        load = partial(repeated, connections=_CONNECTIONS, seconds=options.seconds)
        found = in_turns(
            {str(count): (server, partial(load, server.port, reads)) for count, server in servers.items()},
            options.rounds,
        )
    one, two = found["1"].per_second, found["2"].per_second
    return [
        Result(
            "authenticated GET with 2 processes ÷ with 1, requests/s",
            two / one,
            "x",
            Target(1.4, 1.7, at_least=True),
            {"2 processes/s": two, "1 process/s": one},
        )
    ]


@contextmanager
def _serving(place: Path, count: int, read: bytes) -> Iterator[Server]:
    """The product with so many processes, once it answers."""
    port = free_port()
    arguments = ["serve", "--workers", str(count), "--port", str(port), "--management-port", str(free_port())]
    variables = {
        **variables_of(place),
        "ORGSTEAD_DATA_FOLDER": str(place),
        "ORGSTEAD_PUBLIC_URL": "http://localhost",
        "ORGSTEAD_LOG__LEVEL": "warning",
    }
    with spawned(["-m", "orgstead", *arguments], cores=CORES, cwd=place, variables=variables) as process:
        began = perf_counter()
        while not _answers(port, read):
            if process.poll() is not None or perf_counter() - began > _PATIENCE:
                raise RuntimeError("The service did not start.")
            sleep(0.05)
        yield Server(process.pid, port, port)


def _answers(port: int, read: bytes) -> bool:
    try:
        ask(port, read)
    except OSError:
        return False
    return True
