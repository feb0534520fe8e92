"""Event streams (server-sent events, WHATWG HTML §9.2): answers that go on until somebody ends them.

A stream looks for events when this process has made some, and every second for those of others. Before each look it
asks the store whether its caller is still who they were, so that nothing is sent to anybody after their access was
revoked, and the stream then ends. Between looks it holds no transaction, no connection and no event, only a place
among the streams of the process, which are bounded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orgstead.api.http_protocol import ON_STOP
from orgstead.arrivals import Arrivals
from orgstead.errors import OrgsteadError, Overloaded, RateLimited

_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": (
        (b"content-type", b"text/event-stream"),
        # Proxies that gather answers before they pass them on would hold events back (nginx).
        (b"x-accel-buffering", b"no"),
    ),
}
_RETRY = b"retry: 2000\n\n"
_HEARTBEAT = b": still here\n\n"


class Streams:
    """The streams of one process: how many there may be, and how often they look.

    ``total`` of all, ``each`` of one organization. Seconds: ``look`` between looks where nobody wakes the stream,
    ``heartbeat`` after which something is sent where nothing happens, ``send`` that a client may take to accept it,
    ``pause`` at least between two looks, however much happens.
    """

    def __init__(
        self,
        *,
        total: int,
        each: int,
        look: float = 1.0,
        heartbeat: float = 15.0,
        send: float = 30.0,
        pause: float = 0.05,
    ) -> None:
        self._total = total
        self._each = each
        self.look = look
        self.heartbeat = heartbeat
        self.send = send
        self.pause = pause
        self._open: Counter[str] = Counter()

    @contextmanager
    def place(self, org_id: str) -> Iterator[None]:
        """A place for one stream. Raises ``RateLimited`` or ``Overloaded`` where there is none."""
        if self._open[org_id] >= self._each:
            detail = f"The organization has {self._each} event streams open, as many as it may; close one."
            raise RateLimited(detail, retry_after=10)
        if self._open.total() >= self._total:
            raise Overloaded("There are as many event streams as this process holds open.", retry_after=10)
        self._open[org_id] += 1
        try:
            yield
        finally:
            self._open[org_id] -= 1
            if not self._open[org_id]:
                del self._open[org_id]


class Message(Protocol):
    """One event of a stream."""

    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def data(self) -> Mapping[str, object]: ...


Look = Callable[[], Awaitable[Sequence[Message]]]
"""Gives the events since the last look. Raises what ends the stream."""


class EventStream(Response):
    """An answer that sends what ``look`` finds, until it raises, the client leaves or the server stops."""

    def __init__(self, streams: Streams, arrivals: Arrivals, org_id: str, look: Look) -> None:
        self.background = None
        self._streams = streams
        self._arrivals = arrivals
        self._org_id = org_id
        self._look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. Raises before the answer begins what an answer can be refused with."""
        with self._streams.place(self._org_id), self._arrivals.awaited(self._org_id) as wake:
            ended = asyncio.Event()

            def end() -> None:
                ended.set()
                wake.set()

            gone = asyncio.ensure_future(_disconnected(receive))
            gone.add_done_callback(lambda _: end())
            scope["state"][ON_STOP] = end
            try:
                await send(_START)
                async for chunk in self._chunks(wake, ended):
                    async with asyncio.timeout(self._streams.send):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                # Nobody reads what is sent: the server ends the connection.
                return
            finally:
                gone.cancel()

    async def _chunks(self, wake: asyncio.Event, ended: asyncio.Event) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        yield _RETRY
        sent = loop.time()
        while not ended.is_set():
            wake.clear()
            looked = loop.time()
            try:
                found = await self._look()
            except OrgsteadError as error:
                yield _lines(b"event: end", b"data: " + orjson.dumps({"code": error.code}))
                return
            if found:
                yield b"".join(map(_message, found))
                sent = loop.time()
                continue
            if loop.time() - sent >= self._streams.heartbeat:
                yield _HEARTBEAT
                sent = loop.time()
            if not ended.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), self._streams.look)
                # While much is written, one look finds what several would have.
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), max(0.0, looked + self._streams.pause - loop.time()))


def _message(message: Message) -> bytes:
    head = f"id: {message.id}\nevent: {message.type}".encode("ascii")
    return _lines(head, b"data: " + orjson.dumps(message.data))


def _lines(*lines: bytes) -> bytes:
    return b"\n".join(lines) + b"\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
