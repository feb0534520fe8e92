"""Cancelling a task at its n-th question to the server: before it is sent, while it is under way, once it is answered.

The driver's connection is replaced by one that counts what a task asks. A task is cancelled as ``asyncio`` does it,
from inside, so that no timing decides where it happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
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
    """Cancel the task at question number ``at`` (from 1). ``asked`` is what it got to ask, ``hit`` whether so many."""

    at: int
    moment: Moment
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


async def asked(query: str, answer: Awaitable[T]) -> T:
    """The answer, unless the task is to be cancelled here."""
    plan = _planned.get()
    task = asyncio.current_task()
    if plan is None or plan.hit or task is None or task is not plan.task:
        return await answer
    plan.asked.append(query)
    plan.hit = len(plan.asked) == plan.at
    if plan.hit and plan.moment is Moment.UNSENT:
        if asyncio.iscoroutine(answer):
            answer.close()
        task.cancel()
        await asyncio.sleep(0)
    if plan.hit and plan.moment is Moment.UNDER_WAY:
        task.cancel()  # takes effect when the driver first waits: it has written its message by then
    found = await answer
    if plan.hit and plan.moment is Moment.ANSWERED:
        task.cancel()
        await asyncio.sleep(0)
    return found


class InterruptedConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose questions count."""

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, super().execute(query, *args, **kwargs))

    async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, super().fetch(query, *args, **kwargs))

    async def fetchrow(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, super().fetchrow(query, *args, **kwargs))

    async def fetchval(self, query: str, *args: Any, **kwargs: Any) -> Any:
        return await asked(query, super().fetchval(query, *args, **kwargs))


def count_questions(patch: pytest.MonkeyPatch) -> None:
    """Make the storage's connections from now on interruptible; being connected counts as a question, too."""

    async def interruptible(*args: Any, **kwargs: Any) -> Any:
        return await asked("connect", _connect(*args, **kwargs, connection_class=InterruptedConnection))

    patch.setattr(asyncpg, "connect", interruptible)
