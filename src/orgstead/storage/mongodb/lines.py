"""Waiting in line for a document that many want, instead of all running into each other again and again."""

from __future__ import annotations

from asyncio import Lock
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Lines:
    """One line for each thing that units of this process have run into, for as long as anybody stands in it.

    Two transactions that write one document conflict at once; the loser has to run again. Losers that come one after
    the other win in their turn; losers that come all together lose again, and some of them for ever.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, tuple[Lock, int]] = {}

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place that stands in no line yet, and in none after the block."""
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    async def enter(self, thing: Hashable) -> None:
        """Wait until everyone who came earlier for ``thing`` has left its line."""
        lock, inside = self._lines.get(thing) or (Lock(), 0)
        self._lines[thing] = lock, inside + 1
        try:
            await lock.acquire()
        except BaseException:
            self._forget(thing)
            raise

    def leave(self, thing: Hashable) -> None:
        """Let the next one come."""
        self._lines[thing][0].release()
        self._forget(thing)

    def _forget(self, thing: Hashable) -> None:
        lock, inside = self._lines.pop(thing)
        if inside > 1:
            self._lines[thing] = lock, inside - 1


class Place:
    """Where one unit stands: in one line at a time, so that no two wait for each other."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._held: list[Hashable] = []

    async def take(self, thing: Hashable) -> None:
        """Be first in the line of ``thing``; whoever is already, stays."""
        if thing in self._held:
            return
        self.leave()
        await self._lines.enter(thing)
        self._held.append(thing)

    def leave(self) -> None:
        """Stand in no line."""
        while self._held:
            self._lines.leave(self._held.pop())
