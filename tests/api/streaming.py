"""A client of event streams that calls the application itself, and reads what it sends as it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from orgstead.api.limits import Application


class Told(NamedTuple):
    """One event as a client reads it; a comment has no ``type``."""

    id: str | None
    type: str | None
    data: Any


class Listener:
    """An open stream."""

    def __init__(self, status: int, headers: dict[str, str], parts: asyncio.Queue[bytes | None]) -> None:
        self.status, self.headers = status, headers
        self._parts = parts
        self._text = b""
        self.hang_up = asyncio.Event()

    async def next(self) -> Told | None:
        """The next event or comment, None at the end."""
        while b"\n\n" not in self._text:
            part = await asyncio.wait_for(self._parts.get(), 10)
            if part is None:
                return None
            self._text += part
        block, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        data = json.loads(fields["data"]) if "data" in fields else None
        return Told(fields.get("id"), fields.get("event"), data)

    async def event(self) -> Told:
        """The next one that is an event."""
        while (told := await self.next()) is not None:
            if told.type is not None:
                return told
        raise AssertionError("the stream has ended")

    async def body(self) -> bytes:
        """Everything up to the end."""
        while (part := await asyncio.wait_for(self._parts.get(), 10)) is not None:
            self._text += part
        return self._text


@asynccontextmanager
async def listening(
    app: Application, path: str, headers: Mapping[str, str], query: str = "", method: str = "GET"
) -> AsyncIterator[Listener]:
    """The answer to a request that asks for a stream, from when its headers are there; hung up at the end."""
    started: asyncio.Future[tuple[int, dict[str, str]]] = asyncio.get_running_loop().create_future()
    parts: asyncio.Queue[bytes | None] = asyncio.Queue()
    listener = Listener(0, {}, parts)
    requested = False

    async def receive() -> dict[str, Any]:
        nonlocal requested
        if not requested:
            requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await listener.hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            fields = {name.decode(): value.decode() for name, value in message["headers"]}
            assert len(fields) == len(message["headers"]), "a header came twice"
            started.set_result((message["status"], fields))
            return
        if message.get("body"):
            parts.put_nowait(message["body"])
        if not message.get("more_body", False):
            parts.put_nowait(None)

    sent = {"host": "test", "accept": "text/event-stream", **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("192.0.2.1", 50_000),
        "server": ("test", 80),
    }
    task = asyncio.ensure_future(app(scope, receive, send))
    try:
        listener.status, listener.headers = await asyncio.wait_for(started, 10)
        yield listener
    finally:
        listener.hang_up.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
