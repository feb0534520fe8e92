"""A deadline for every request, at the cost of one dictionary entry."""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol


class _Here(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    """The loop that this thread ran when it was last asked."""


_here = _Here()


def current_task() -> asyncio.Task[object]:
    """``asyncio.current_task()`` for the code of one, without a system call: CPython 3.11 asks for the process's id."""
    loop = _here.loop
    task = asyncio.current_task(loop) if loop is not None else None
    if task is None:
        _here.loop = asyncio.get_running_loop()
        task = asyncio.current_task(_here.loop)
        assert task is not None
    return task


class HasBegun(Protocol):
    """What a task makes; ``status`` is 0 until it begins."""

    status: int


class Deadlines:
    """Cancels tasks that after ``seconds`` have neither ended nor begun what they make.

    All have the same time, so the first that began is the first that is late: one timer serves every request, where
    ``asyncio.timeout`` would make and cancel one for each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], tuple[float, HasBegun | None]] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, task: asyncio.Task[object], made: HasBegun | None = None) -> None:
        """Start the task's time. Without ``made`` it runs until the task leaves."""
        loop = task.get_loop()
        if loop is not self._loop:  # one that was there before may have ended with its timer
            self._loop, self._timer = loop, None
            self._due.clear()
            self._late.clear()
        due = loop.time() + self._seconds
        self._due[task] = due, made
        if self._timer is None:
            self._timer = loop.call_at(due, self._sweep, loop)

    def leave(self, task: asyncio.Task[object]) -> bool:
        """Stop the task's time: it is done. May be called again.

        True once if the time had run out: the task's cancellation was ours, and nobody else wants it cancelled.
        """
        if self._due.pop(task, None) is None and task in self._late:
            self._late.discard(task)
            return task.uncancel() == 0
        return False

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for task, (due, made) in list(self._due.items()):
            if due > now:
                self._timer = loop.call_at(due, self._sweep, loop)
                return
            del self._due[task]
            if made is None or not made.status:
                self._late.add(task)
                task.cancel()
