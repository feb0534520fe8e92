"""uvicorn's cycle of request and answer, with a cheaper way to write the head of a usual answer.

uvicorn judges every header of every answer anew. Most are constants, the same in all answers, so what was judged once
is remembered here as the line that is written.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, Final

from uvicorn._types import ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_NEW_EACH_TIME: Final = frozenset({b"etag", b"x-request-id"})
"""Headers that are hardly ever the same twice: remembering them would only push out others."""


class Cycle(RequestResponseCycle):
    """What differs is the head of an answer that says how long it is. Its headers are tuples, names in lower case."""

    def send(self, message: ASGISendEvent) -> Coroutine[Any, Any, None]:
        """ASGI's ``send``. Raises RuntimeError for what HTTP/1.1 does not allow in an answer."""
        if (
            self.response_started
            or message["type"] != "http.response.start"
            or self.flow.write_paused
            or self.disconnected
        ):
            return super().send(message)
        return self._begin(message)

    async def _begin(self, message: HTTPResponseStartEvent) -> None:
        length: bytes | None = None
        lines = [STATUS_LINE[message["status"]]]
        for name, value in (*self.default_headers, *message.get("headers", ())):
            if name == b"content-length":
                length = value
            elif name in (b"connection", b"transfer-encoding"):
                length = None
                break
            lines.append(_judged(name, value) if name in _NEW_EACH_TIME else _line(name, value))
        if length is None or not length.isdigit():
            # Framed in another way: nothing is written yet, and uvicorn knows them all.
            await super().send(message)
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = False
        self.expected_content_length = int(length)
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self.transport.write(b"".join(lines))


def _judged(name: bytes, value: bytes) -> bytes:
    """The header as it is written. Raises RuntimeError where it could be read as something else than one header."""
    if not _NAME.fullmatch(name) or _NOT_IN_VALUES.search(value):
        raise RuntimeError("An answer has a header that HTTP does not allow.")
    return b"%b: %b\r\n" % (name, value)


_line = lru_cache(maxsize=256)(_judged)
