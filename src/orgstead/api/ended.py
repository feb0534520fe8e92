"""What is known of a request that has ended: for its line in the log, and for the metrics."""

from __future__ import annotations

from typing import NamedTuple


class Ended(NamedTuple):
    """``moment`` in nanoseconds since 1970, ``duration`` in seconds. ``path`` comes without the query, which may carry
    what must not be written down; ``route`` is its template; ``client`` is an address, empty where none is known."""

    moment: int
    request_id: str
    method: str
    path: str
    route: str
    status: int
    duration: float
    client: str
