"""A proxy between a storage and its server that counts round trips and cuts the connection when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

READY = b"Z"
"""ReadyForQuery: with it each answer of the server ends (PostgreSQL's documentation, "Message Formats")."""

_CANCEL_REQUEST = (80877102).to_bytes(4)


def is_cancel_request(message: bytes) -> bool:
    """Does a connection begin with this to ask for the end of another one's statement?"""
    return message[4:8] == _CANCEL_REQUEST


@dataclass
class Proxy:
    """``round_trips`` counts the server's answers. ``before`` and ``after`` are asked about each message of a client.

    Where ``before`` says so the connection is cut without the message; where ``after`` says so it is cut once the
    server has answered it, and the answer is lost. While it is ``deaf`` what clients send goes nowhere. What the server
    answers is kept back until it ``tells``.
    """

    port: int
    round_trips: int = 0
    before: Callable[[bytes], bool] = field(default=lambda message: False)
    after: Callable[[bytes], bool] = field(default=lambda message: False)
    cuts: int = 0
    deaf: bool = False
    tells: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, url: str) -> str:
        """``url``, by way of the proxy."""
        parts = urlsplit(url)
        credentials = parts.netloc.rpartition("@")[0]
        place = f"{credentials}@127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=place, query="&".join(filter(None, [parts.query, "sslmode=disable"]))))


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the server that ``url`` names."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    host, port = parts.hostname, parts.port
    connections: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _served(proxy, reader, writer, await asyncio.open_connection(host, port))
        writer.close()
        connections.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    proxy.tells.set()
    try:
        yield proxy
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _served(
    proxy: Proxy,
    client: asyncio.StreamReader,
    to_client: asyncio.StreamWriter,
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    from_server, to_server = server
    cut = asyncio.Event()

    async def questions() -> None:
        size = await client.readexactly(4)  # the first message of a connection has no type
        first = size + await client.readexactly(int.from_bytes(size) - 4)
        if proxy.before(first):
            proxy.cuts += 1
            return
        if not proxy.deaf:
            to_server.write(first)
        while True:
            head = await client.readexactly(5)
            message = head + await client.readexactly(int.from_bytes(head[1:]) - 4)
            if proxy.deaf:
                continue
            if proxy.before(message):
                proxy.cuts += 1
                return
            if proxy.after(message):
                cut.set()
            to_server.write(message)
            await to_server.drain()

    async def answers() -> None:
        while True:
            head = await from_server.readexactly(5)
            message = head + await from_server.readexactly(int.from_bytes(head[1:]) - 4)
            await proxy.tells.wait()
            if head[:1] == READY:
                proxy.round_trips += 1
                if cut.is_set():
                    proxy.cuts += 1
                    return
            if not cut.is_set():
                to_client.write(message)
                await to_client.drain()

    tasks = [asyncio.create_task(questions()), asyncio.create_task(answers())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        to_server.transport.abort()
        to_client.transport.abort()
