"""The strict body reader: a body reaches a handler complete, small enough, in time, and as strict JSON, or not at all.

Frameworks accept bodies of any size, wait for ever for the rest of one, and turn hostile JSON into a 500. Here a body
is read and judged before the framework sees the request; the framework then reads it as usual.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from orgstead.api.deadlines import Deadlines, current_task
from orgstead.api.strict_json import decode
from orgstead.errors import BodyTooLarge, MalformedRequest, RequestTimeout, UnsupportedMediaType
from orgstead.model import MAX_JSON_DEPTH

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FIELDS: Final = "orgstead.fields"
"""In a request's scope: its headers by lower-case name, where none of them came more than once."""

WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Methods whose bodies mean nothing here (RFC 9110 §9.3). One that comes anyway is refused with 400, because a body
that one reader of a request takes and another ignores is how requests are smuggled."""

_PLAIN_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})


LARGE_MEMBERS = 100_000
"""Members and items that a request with records may have."""

_WITH_RECORDS = re.compile(r"/v1/organizations/[^/]+/(?:collections/[^/]+/records(?:/[^/]+)?|records(:batch))")
_AROUND_ONE, _AROUND_SOME = 1, 3
"""Levels of a body around a record's data, which may have MAX_JSON_DEPTH of its own: ``{"data": …}``, and
``{"operations": [{"data": …}]}``."""


class Disconnected(Exception):
    """The client went away while its body was being read; nobody waits for an answer."""


NO_VALUE: Final = object()
"""The ``value`` of an empty body."""


class WholeBody:
    """The ``receive`` of an application whose request's body is here: it gives it at once.

    ``value`` is what its JSON says, so that nobody need parse it again. It is not copied: who takes it may change it.
    """

    __slots__ = ("_given", "_receive", "body", "value")

    def __init__(self, body: bytes, value: object, receive: Receive) -> None:
        self.body = body
        self.value = value
        self._receive = receive
        self._given = False

    async def __call__(self) -> Message:
        if self._given:
            return await self._receive()
        self._given = True
        return {"type": "http.request", "body": self.body, "more_body": False}


@dataclass(frozen=True, slots=True)
class BodyOptions:
    """Limits of request bodies; times in seconds, sizes in bytes.

    ``large_bytes`` and LARGE_MEMBERS hold for requests that carry records, whatever ``max_bytes`` is for others.

    A body may pause for ``idle_seconds``, and has ``idle_seconds`` in all plus one second for each ``bytes_per_second``
    that arrived: one byte a second is cut as early as silence, a slow but honest line is not.
    """

    max_bytes: int = 1_048_576
    large_bytes: int = 1_048_576 + 65_536
    idle_seconds: float = 10.0
    bytes_per_second: int = 16_384


class BodyReader:
    """Reads and judges the bodies of requests; keeps nothing of one for the next."""

    def __init__(self, options: BodyOptions) -> None:
        self._max = options.max_bytes
        self._large = max(options.max_bytes, options.large_bytes)
        self._idle = options.idle_seconds
        self._rate = options.bytes_per_second
        self._waiting = Deadlines(options.idle_seconds)

    async def read(
        self,
        method: str,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        *,
        path: str = "",
        task: asyncio.Task[object] | None = None,
    ) -> Receive:
        """A ``receive`` that gives the whole body at once, for the application to use instead of its own.

        ``headers`` by lower-case name; ``task`` is the current one, from who knows it. An empty body passes whatever
        its type. Raises BodyTooLarge (at once when Content-Length says so, else as soon as the limit is passed; no more
        than that is ever held), UnsupportedMediaType, MalformedRequest, RequestTimeout, Disconnected.
        """
        length = headers.get(b"content-length")
        if method in WITHOUT_BODY and (length is None or length == b"0") and b"transfer-encoding" not in headers:
            return receive
        large = _WITH_RECORDS.fullmatch(path)
        limit = 0 if method in WITHOUT_BODY else self._large if large else self._max
        if length is not None:
            # Eighteen digits are more than any limit; int() of thousands would be work for nothing.
            if not length.isdigit():
                raise MalformedRequest("The Content-Length header is not a number.")
            if len(length) > 18 or int(length) > limit:
                raise self._too_large(limit)
            if length != b"0":
                _check_type(headers)
        body = await self._collect(receive, limit, task or current_task())
        if not body:
            return WholeBody(body, NO_VALUE, receive)
        _check_type(headers)
        if not large:
            return WholeBody(body, decode(body), receive)
        depth = MAX_JSON_DEPTH + (_AROUND_SOME if large[1] else _AROUND_ONE)
        return WholeBody(body, decode(body, max_members=LARGE_MEMBERS, max_depth=depth), receive)

    async def _collect(self, receive: Receive, limit: int, task: asyncio.Task[object]) -> bytes:
        loop = task.get_loop()
        started = loop.time()
        message = await self._first(receive, task)
        chunk = _content(message)
        if len(chunk) > limit:
            raise self._too_large(limit)
        if not message.get("more_body", False):
            return chunk
        chunks = [chunk]
        size = len(chunk)
        try:
            async with asyncio.timeout_at(started + self._idle) as timeout:
                while message.get("more_body", False):
                    allowance = started + self._idle + size / self._rate
                    timeout.reschedule(min(loop.time() + self._idle, allowance))
                    message = await receive()
                    chunk = _content(message)
                    size += len(chunk)
                    if size > limit:
                        raise self._too_large(limit)
                    chunks.append(chunk)
        except TimeoutError:
            raise _late() from None
        return b"".join(chunks)

    async def _first(self, receive: Receive, task: asyncio.Task[object]) -> Message:
        """What there is of the body, most often all of it: not worth a timer of its own."""
        self._waiting.enter(task)
        try:
            return await receive()
        except asyncio.CancelledError:
            if self._waiting.leave(task):
                raise _late() from None
            raise
        finally:
            self._waiting.leave(task)

    @staticmethod
    def _too_large(limit: int) -> BodyTooLarge | MalformedRequest:
        if limit == 0:
            return MalformedRequest("A request with this method has no body; leave it out.")
        return BodyTooLarge(f"The request body is larger than the {limit} bytes that this service accepts.")


def _content(message: Message) -> bytes:
    """The next part of a body. Raises ``Disconnected`` where there is none to come."""
    if message["type"] == "http.disconnect":
        raise Disconnected
    part: bytes = message.get("body", b"")
    return part


def _late() -> RequestTimeout:
    return RequestTimeout("The request's body did not arrive in time.")


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType
    content_type = headers.get(b"content-type", b"")
    if content_type not in _PLAIN_TYPES and not _is_json_in_utf8(content_type):
        raise UnsupportedMediaType


def _is_json_in_utf8(content_type: bytes) -> bool:
    """Media type and parameters by RFC 9110 §8.3.1; ``charset`` may only be utf-8, other parameters say nothing."""
    media_type, *parameters = (part.strip() for part in content_type.lower().split(b";"))
    charsets = [
        value.strip().strip(b'"')
        for name, _, value in (parameter.partition(b"=") for parameter in parameters)
        if name.strip() == b"charset"
    ]
    return media_type == b"application/json" and charsets in ([], [b"utf-8"])
