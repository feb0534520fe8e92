"""One line for each request, as JSON, written in batches: a write for every line would cost more than the line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

_LONGEST_PATH = 200
_MOST_PENDING = 1000
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class AccessLog:
    """Collects lines and hands them to ``write`` as bytes that end with a newline, after ``interval`` seconds at most.

    JSON escapes control characters, so that nothing in a path can forge a line. What was collected within the interval
    before the process is killed is lost; call ``flush`` when stopping.
    """

    def __init__(self, write: Callable[[bytes], object], *, interval: float = 0.05) -> None:
        self._write = write
        self._interval = interval
        self._pending: list[dict[str, object]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self, *, request_id: str, method: str, path: str, route: str, status: int, duration: float, client: str
    ) -> None:
        """Take the line of a request that ends now and took ``duration`` seconds; call it in the event loop.

        ``path`` without its query, which may carry what must not be logged.
        """
        line: dict[str, object] = {
            "time": datetime.now(UTC),
            "level": "info",
            "event": "request",
            "request_id": request_id,
            "method": method,
            "path": path[:_LONGEST_PATH],
            "route": route,
            "status": status,
            "duration_ms": int(duration * 1e6) / 1000,
            "client": client,
        }
        self._pending.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.flush)
        elif len(self._pending) >= _MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._pending = self._pending, []
        if lines:
            self._write(b"".join(map(_formatted, lines)))


def _formatted(line: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(line, option=_OPTIONS)
    except TypeError:
        # Some servers decode a path into text that has no UTF-8; one such line must not cost the others.
        return orjson.dumps({**line, "path": ascii(line["path"])}, option=_OPTIONS)
