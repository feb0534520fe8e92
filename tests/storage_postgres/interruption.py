"""Interrupting a task at its n-th question to the server: before it is sent, under way, or once it is answered.

The driver's connection is replaced by one that counts what a task asks. The task is cancelled as ``asyncio`` does it,
or the connection is lost, from inside, so that no timing decides where it happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, TypeVar

import asyncpg
import pytest

T = TypeVar("T")

_connect = asyncpg.connect


class Moment(Enum):
    """When a question is interrupted."""

    UNSENT = "unsent"
    UNDER_WAY = "under way"
    ANSWERED = "answered"


@dataclass
class Interruption:
    """Cancel the task at question number ``at`` (from 1), or end its connection there (``loses``).

    ``asked`` is what it got to ask, ``hit`` whether that was so many.
    """

    at: int
    moment: Moment
    loses: bool = False
    asked: list[str] = field(default_factory=list)
    hit: bool = False
    task: asyncio.Task[Any] | None = None

    @contextmanager
    def planned(self) -> Iterator[None]:
        """For the questions of the current task; nobody cancels what goes on in the background."""
        self.task = asyncio.current_task()
        token = _planned.set(self)
        try:
            yield
        finally:
            _planned.reset(token)


_planned: ContextVar[Interruption | None] = ContextVar("interruption", default=None)


async def asked(query: str, ask: Callable[[], Awaitable[T]], connection: Any = None) -> T:
    """The answer, unless the task is to be interrupted here."""
    plan = _planned.get()
    task = asyncio.current_task()
    if plan is None or plan.hit or task is None or task is not plan.task:
        return await ask()
    plan.asked.append(query)
    plan.hit = len(plan.asked) == plan.at
    if not plan.hit:
        return await ask()
    return await (_losing(plan, ask, connection) if plan.loses else _cancelling(plan, ask, task))


async def _cancelling(plan: Interruption, ask: Callable[[], Awaitable[T]], task: asyncio.Task[Any]) -> T:
    if plan.moment is Moment.UNSENT:
        task.cancel()
        await asyncio.sleep(0)
    if plan.moment is Moment.UNDER_WAY:
        task.cancel()  # takes effect when the driver first waits: it has written its message by then
    answer = await ask()
    if plan.moment is Moment.ANSWERED:
        task.cancel()
        await asyncio.sleep(0)
    return answer


async def _losing(plan: Interruption, ask: Callable[[], Awaitable[T]], connection: Any) -> T:
    if connection is None:
        raise ConnectionRefusedError
    if plan.moment is Moment.UNSENT:
        connection._transport.abort()
    if plan.moment is Moment.UNDER_WAY:
        asyncio.get_running_loop().call_soon(connection._transport.abort)
    answer = await ask()
    if plan.moment is Moment.ANSWERED:
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    return answer


class InterruptedConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose questions count."""

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, partial(super().execute, query, *args, **kwargs), self)

    async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, partial(super().fetch, query, *args, **kwargs), self)

    async def fetchrow(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, partial(super().fetchrow, query, *args, **kwargs), self)

    async def fetchval(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, partial(super().fetchval, query, *args, **kwargs), self)


def count_questions(patch: pytest.MonkeyPatch) -> None:
    """Make the storage's connections from now on interruptible; being connected counts as a question, too."""

    async def interruptible(*args: Any, **kwargs: Any) -> Any:
        connect = partial(_connect, *args, **kwargs, connection_class=InterruptedConnection)
        return await asked("connect", connect)

    patch.setattr(asyncpg, "connect", interruptible)
