"""uvicorn's cycle of request and answer, with a cheaper way to write a usual answer.

uvicorn judges every header of every answer anew. Most are constants, the same in all answers, so what was judged once
is remembered here as the line that is written. And it writes head and body each for itself, which costs a second call
of the system, a second packet, and a reader that is woken twice.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any, Final, cast

from uvicorn._types import ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from orgstead.api.limits import Message
from orgstead.api.outgoing import EXTENSION, Outgoing

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_ALLOWED: Final = "An answer has a header that HTTP does not allow."

_NEW_EACH_TIME: Final = frozenset({b"content-length", b"etag"})
"""Headers that are hardly ever the same twice: remembering them would only push out others."""

_MOST_KNOWN: Final = 256


class _Lines(dict[tuple[bytes, bytes], bytes]):
    """Headers as they are written, by name and value. Raises ``RuntimeError`` for those that HTTP does not allow.

    What was judged once need not be judged again, until so many others have been.
    """

    def __missing__(self, header: tuple[bytes, bytes]) -> bytes:
        name, value = header
        if _NOT_IN_VALUES.search(value):
            raise RuntimeError(_NOT_ALLOWED)
        line = b"%b: %b\r\n" % header
        if name not in _NEW_EACH_TIME:
            if not _NAME.fullmatch(name):
                raise RuntimeError(_NOT_ALLOWED)
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[header] = line
        return line


_lines: Final = _Lines()

_COPIED: Final = 65_536
"""Bytes of the longest body that is copied behind its head; a longer one is worth a second write."""


class Cycle(RequestResponseCycle):
    """What differs is an answer that says how long it is: its head waits for the body and is written with it.

    Its headers are tuples, names in lower case. The request's ``Outgoing`` is told the status, and its lines are added.
    """

    head = b""
    """The head of an answer that has begun, as long as nothing of the body is there."""

    def send(self, message: ASGISendEvent) -> Coroutine[Any, Any, None]:
        """ASGI's ``send``. Raises RuntimeError for what HTTP/1.1 does not allow in an answer."""
        if self.head:
            return self._go_on(message)
        if self.response_started or message["type"] != "http.response.start":
            return super().send(message)
        return self._begin(cast("Message", message))

    async def _begin(self, message: Message) -> None:
        extensions: Any = self.scope["extensions"]
        outgoing: Outgoing = extensions[EXTENSION]
        headers = (*self.default_headers, *message.get("headers", ()))
        lines = [*map(_lines.__getitem__, headers)]  # judged, however the answer is framed
        outgoing.status = message["status"]
        by_name = dict(headers)
        length = by_name.get(b"content-length", b"")
        if (
            not length.isdigit()
            or b"connection" in by_name
            or b"transfer-encoding" in by_name
            or self.flow.write_paused
            or self.disconnected
        ):
            # Framed in another way, or not at all: nothing is written yet, and uvicorn is given all headers.
            complete = {**message, "headers": outgoing.headers(message.get("headers", ()))}
            await super().send(cast("HTTPResponseStartEvent", complete))
            return
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.head = b"".join((STATUS_LINE[message["status"]], *lines, outgoing.beside(by_name), end))
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = False
        self.expected_content_length = int(length)

    async def _go_on(self, message: ASGISendEvent) -> None:
        head, self.head = self.head, b""
        body = message.get("body", b"") if message["type"] == "http.response.body" else None
        if (
            body is None
            or len(body) != self.expected_content_length
            or len(body) > _COPIED
            or message.get("more_body")
            or self.scope["method"] == "HEAD"
            or self.flow.write_paused
            or self.disconnected
        ):
            if not self.disconnected:
                self.transport.write(head)
            await super().send(message)
            return
        self.transport.write(head + body)
        self.expected_content_length = 0
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
