"""One set of throttles for all processes of a service: counted in the process that started the others.

Counted in each process, the limits would multiply by the number of processes, and which one a guess meets would be
chance. A question to the first process costs a fraction of the hash that follows it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Literal

from orgstead.cli.channel import Channel, Handler
from orgstead.errors import Unavailable
from orgstead.throttles import Attempt, Throttles

Outcome = Literal["right", "wrong", "void"]


class RemoteThrottles:
    """What a serving process has in place of ``Throttles``: the same promises, kept at the other end of the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._places = itertools.count()

    @asynccontextmanager
    async def attempt(self, account: str, address: str | None) -> AsyncIterator[Attempt]:
        """As ``Throttles.attempt``."""
        place = next(self._places)
        attempt, outcome = Attempt(), "void"
        try:
            await self._channel.ask("reserve", place=place, account=account, address=address)
            outcome = "wrong"
            yield attempt
        except Unavailable:
            outcome = "void"
            raise
        finally:
            self._channel.tell("settle", place=place, outcome="right" if attempt.right else outcome)


class Places:
    """The places that one process holds in the counters. Those it held when it died count as wrong."""

    def __init__(self, throttles: Throttles) -> None:
        self._throttles = throttles
        self._waiting: dict[int, asyncio.Task[Any]] = {}
        self._held: dict[int, tuple[AbstractAsyncContextManager[Attempt], Attempt]] = {}

    def handlers(self) -> dict[str, Handler]:
        """What the channel to that process is asked for."""
        return {"reserve": self._reserve, "settle": self._settle}

    async def release(self) -> None:
        """The process is gone."""
        for place in (*self._waiting, *self._held):
            await self._settle(place, "wrong")

    async def _reserve(self, place: int, account: str, address: str | None) -> None:
        reserving = self._throttles.attempt(account, address)
        task = asyncio.current_task()
        assert task is not None
        self._waiting[place] = task
        try:
            attempt = await reserving.__aenter__()
        finally:
            del self._waiting[place]
        self._held[place] = reserving, attempt

    async def _settle(self, place: int, outcome: Outcome) -> None:
        if place in self._waiting:
            self._waiting[place].cancel()
        elif place in self._held:
            reserved, attempt = self._held.pop(place)
            if outcome == "right":
                attempt.succeeded()
            error = Unavailable() if outcome == "void" else None
            with suppress(Unavailable):
                await reserved.__aexit__(type(error) if error else None, error, None)
