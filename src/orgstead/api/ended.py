"""Requests that have ended: what is known of them for the log and the metrics, which take many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

LONGEST_PATH: Final = 200
"""Characters of a path that are kept."""

_MOST_PENDING: Final = 1000


class Ended(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """One request. The fields are those of its line in the log, in that order.

    ``time`` is of UTC; ``path`` comes without the query, which may carry what must not be written down, and is cut at
    LONGEST_PATH; ``route`` is its template; ``client`` is an address, empty where none is known.
    """

    time: datetime
    level: Literal["info"] = "info"
    event: Literal["request"] = "request"
    request_id: str
    method: str
    path: str
    route: str
    status: int
    duration_ms: float
    client: str


class EndedRequests:
    """Collects requests and hands them to each of ``takers``, ``interval`` seconds after the first of them at most.

    One at a time would cost each more than what is done with it; too many at a time are no longer in the processor's
    cache. What was collected within the interval before the process is killed is lost; call ``flush`` when stopping.
    """

    def __init__(self, *takers: Callable[[Sequence[Ended]], object], interval: float = 0.005) -> None:
        self._takers = takers
        self._interval = interval
        self._pending: list[Ended] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ended: Ended) -> None:
        """Take one; call it in the event loop."""
        self._pending.append(ended)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.flush)
        elif len(self._pending) >= _MOST_PENDING:
            self.flush()  # the timer is late, or of a loop that has ended with it

    def flush(self) -> None:
        """Hand on what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        if pending:
            for take in self._takers:
                take(pending)
