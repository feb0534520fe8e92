"""One question for all who ask at the same moment: a round trip costs server and client many times what a row does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from orgstead.errors import Overloaded

K = TypeVar("K")
V = TypeVar("V")

Caller = tuple[str, str, str]
"""An organization, a person, and a credential: the key of the hot read."""

_AT_ONCE: Final = 2
"""Questions that may be under way. One more would make each of them smaller, so that they cost more; one less would let
those who come while it is on its way to a distant server wait for all of that way."""

_NO_PLACE: Final = "The database has not answered those who came before in time; try again."

_MOST: Final = 256
"""Keys in one question."""


class Gathering(Generic[K, V]):
    """Asks for the keys of one turn of the event loop together, and for those that come meanwhile after that.

    Nobody waits for others to come: a lone key is asked for at once. While enough questions are under way, keys wait
    for up to ``seconds``. ``ask`` gives the answers in the order of its keys. Bound to the loop that it is used in.
    """

    def __init__(self, ask: Callable[[Sequence[K]], Awaitable[Sequence[V]]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._next: list[tuple[K, asyncio.Future[V]]] | None = None
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[Sequence[V]]] = set()

    async def answer(self, key: K) -> V:
        """The answer to a question that is asked from now on. Raises what asking raises, and ``Overloaded``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V] = loop.create_future()
        waiting = self._next
        if waiting is None or len(waiting) >= _MOST:
            waiting = self._next = []
            task = loop.create_task(self._answers(waiting))
            self._tasks.add(task)
            task.add_done_callback(partial(self._tell, waiting))
        waiting.append((key, future))
        return await future

    async def _answers(self, waiting: list[tuple[K, asyncio.Future[V]]]) -> Sequence[V]:
        try:
            async with asyncio.timeout(self._seconds if self._places.locked() else None):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded(_NO_PLACE, retry_after=1.0) from None
        finally:
            if self._next is waiting:
                self._next = None  # whoever comes now may have seen what this question does not see
        try:
            waiting[:] = [(key, future) for key, future in waiting if not future.done()]  # the others have left
            return await self._ask([key for key, _ in waiting]) if waiting else []
        finally:
            self._places.release()

    def _tell(self, waiting: list[tuple[K, asyncio.Future[V]]], task: asyncio.Task[Sequence[V]]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        for place, (_, future) in enumerate(waiting):
            if future.done():
                continue
            if task.cancelled():  # the loop ends
                future.cancel()
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result()[place])
