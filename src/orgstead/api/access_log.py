"""One line for each request, as JSON, written in batches: a write for every line would cost more than the line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from orgstead.api.ended import Ended

_LONGEST_PATH = 200
_MOST_PENDING = 1000


class AccessLog:
    """Collects lines and hands them to ``write`` as bytes that end with a newline, after ``interval`` seconds at most.

    JSON escapes control characters, so that nothing in a path can forge a line. What was collected within the interval
    before the process is killed is lost; call ``flush`` when stopping.
    """

    def __init__(self, write: Callable[[bytes], object], *, interval: float = 0.05) -> None:
        self._write = write
        self._interval = interval
        self._pending: list[Ended] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ended: Ended) -> None:
        """Take a request that has ended; call it in the event loop.

        Its id is one of ``request_id_of``, whose characters JSON has as they are.
        """
        self._pending.append(ended)
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
            self._write("".join(map(_formatted, lines)).encode())


def _formatted(ended: Ended) -> str:
    """The line as JSON. Put together here, because most of it repeats and need not be looked at again each time."""
    moment, request_id, method, path, route, status, duration, client = ended
    begin, middle = _repeated(method, route, status)
    return (
        f"{_second(moment // 1_000_000_000)}{moment // 1000 % 1_000_000:06d}"
        f'Z","level":"info","event":"request","request_id":"{request_id}'
        f"{begin}{_quoted(path[:_LONGEST_PATH])}{middle}{duration * 1000:.3f}{_end(client)}"
    )


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return '{"time":"' + datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


@lru_cache(maxsize=1024)
def _repeated(method: str, route: str, status: int) -> tuple[str, str]:
    """What is before the path, and before the duration."""
    return f'","method":{_quoted(method)},"path":', f',"route":{_quoted(route)},"status":{status},"duration_ms":'


@lru_cache(maxsize=1024)
def _end(client: str) -> str:
    return f',"client":{_quoted(client)}}}\n'


def _quoted(text: str) -> str:
    """``text`` as a JSON string."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    try:
        return orjson.dumps(text).decode()
    except TypeError:
        # Some servers decode a path into text that has no UTF-8.
        return orjson.dumps(ascii(text)).decode()
