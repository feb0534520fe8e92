"""Open-loop load: requests are due at fixed times, whether or not earlier ones have been answered.

An answer's time counts from when its request was due, so a server that stalls is charged for every request that should
have been sent meanwhile (no coordinated omission).
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Collection, Sequence
from time import perf_counter

from bench.load import Client

_PATIENCE = 30.0


def latencies(port: int, requests: Sequence[bytes], *, per_second: float, seconds: float) -> list[float]:
    """Seconds from when each request was due to its answer, which must be 200."""
    return [taken for _, taken in answers(port, requests, (b"200",), per_second=per_second, seconds=seconds)]


def answers(
    port: int,
    requests: Sequence[bytes],
    expected: Collection[bytes],
    *,
    per_second: float,
    seconds: float,
    connections: int = 32,
) -> list[tuple[bytes, float]]:
    """The status of each answer, which must be one of ``expected``, and the seconds from when its request was due."""
    clients = [Client(port) for _ in range(connections)]
    idle = deque(clients)
    due_of: dict[Client, float] = {}
    taken: list[tuple[bytes, float]] = []
    total = int(per_second * seconds)
    began = perf_counter()
    sent = 0
    try:
        while len(taken) < total:
            now = perf_counter()
            if now > began + seconds + _PATIENCE:
                raise TimeoutError("The server did not answer.")
            while sent < total and idle and began + sent / per_second <= now:
                client = idle.popleft()
                due_of[client] = began + sent / per_second
                client.send(requests[sent % len(requests)])
                sent += 1
            wait = began + sent / per_second - perf_counter() if sent < total and idle else _PATIENCE
            # select() waits as exactly as the system can; epoll rounds to milliseconds.
            for client in select.select(list(due_of), [], [], max(0.0, wait))[0]:
                if client.receive(*expected):
                    taken.append((client.status, perf_counter() - due_of.pop(client)))
                    idle.append(client)
        return taken
    finally:
        for client in clients:
            client.socket.close()


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
