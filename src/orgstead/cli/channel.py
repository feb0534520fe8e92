"""How the processes of one service talk: lines of JSON over a socket pair that nobody else has."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from orgstead.errors import InternalError, OrgsteadError, Unavailable, catalogue

LONGEST_LINE = 1 << 24
"""Bytes; the longest are snapshots of metrics."""

Handler = Callable[..., Awaitable[Any]]


class ChannelClosed(Unavailable):
    """The process at the other end is gone."""


class Channel:
    """One end. Each end asks (and gets an answer) or tells (and gets none); ``handlers`` do what is asked of us.

    A handler's result is JSON; an error of ours that it raises is raised at the other end.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Mapping[str, Handler]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self.closed = asyncio.Event()
        """Set when the other end is gone."""
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def open(cls, end: socket.socket, handlers: Mapping[str, Handler]) -> Self:
        """Talk over one end of a socket pair, which the channel owns from now on."""
        end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=LONGEST_LINE)
        return cls(reader, writer, handlers)

    async def ask(self, what: str, **args: Any) -> Any:
        """The other end's answer. Raises what its handler raised, and ``ChannelClosed``."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"do": what, "with": args, "number": number})
            return await answer
        finally:
            del self._asked[number]

    def tell(self, what: str, **args: Any) -> None:
        """Have the other end do something; nobody hears of an end that is gone."""
        if not self.closed.is_set():
            self._send({"do": what, "with": args})

    async def close(self) -> None:
        """Let the other end see that we are gone, once it has read what was told."""
        self._writer.close()
        await asyncio.gather(self._reading, *self._working, return_exceptions=True)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.closed.is_set():
            raise ChannelClosed
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except ConnectionError:
            return  # the process at the other end was killed while we wrote to it
        finally:
            self._end()

    def _take(self, message: dict[str, Any]) -> None:
        if "do" in message:
            work = asyncio.get_running_loop().create_task(self._work(message))
            self._working.add(work)
            work.add_done_callback(self._working.discard)
        elif (answer := self._asked.get(message["number"])) is not None and not answer.done():
            if "error" in message:
                answer.set_exception(as_error(message["error"]))
            else:
                answer.set_result(message["answer"])

    async def _work(self, message: dict[str, Any]) -> None:
        try:
            answer = {"answer": await self._handlers[message["do"]](**message["with"])}
        except OrgsteadError as error:
            answer = {"error": as_plain(error)}
        if "number" in message and not self.closed.is_set():
            self._send({**answer, "number": message["number"]})

    def _end(self) -> None:
        self.closed.set()
        self._writer.close()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ChannelClosed())


def as_plain(error: OrgsteadError) -> dict[str, Any]:
    """What the other end needs to raise the error."""
    return {"code": error.code, "detail": error.detail, "next": error.next, "retry_after": error.retry_after}


def as_error(plain: Mapping[str, Any]) -> OrgsteadError:
    """The error that ``as_plain`` was given, of the same class."""
    kinds = {kind.code: kind for kind in catalogue()}
    kind = kinds.get(plain["code"], InternalError)
    error = kind.__new__(kind)
    OrgsteadError.__init__(error, plain["detail"], next=plain["next"], retry_after=plain["retry_after"])
    return error
