"""A deadline for every request, at the cost of one dictionary entry."""

from __future__ import annotations

import asyncio
import threading


class _Here(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    """The loop that this thread ran when it was last asked."""


_here = _Here()


def current_task() -> asyncio.Task[object]:
    """``asyncio.current_task()`` for the code of one, without a system call: CPython 3.11 asks for the process's id."""
    task = asyncio.current_task(_here.loop) if _here.loop is not None else None
    if task is None:
        _here.loop = asyncio.get_running_loop()
        task = asyncio.current_task(_here.loop)
        assert task is not None
    return task


class Deadlines:
    """Cancels tasks that take longer than ``seconds``.

    All have the same time, so the first that began is the first that is late: one timer serves every request, where
    ``asyncio.timeout`` would make and cancel one for each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, task: asyncio.Task[object]) -> None:
        """Start the task's time."""
        loop = task.get_loop()
        if loop is not self._loop:  # one that was there before may have ended with its timer
            self._loop, self._timer = loop, None
            self._due.clear()
            self._late.clear()
        due = loop.time() + self._seconds
        self._due[task] = due
        if self._timer is None:
            self._timer = loop.call_at(due, self._sweep, loop)

    def leave(self, task: asyncio.Task[object]) -> bool:
        """Stop the task's time: what it was for has come, or it is done. May be called again.

        True once if the time had run out: the task's cancellation was ours, and nobody else wants it cancelled.
        """
        if self._due.pop(task, None) is None and task in self._late:
            self._late.discard(task)
            return task.uncancel() == 0
        return False

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for task, due in list(self._due.items()):
            if due > now:
                self._timer = loop.call_at(due, self._sweep, loop)
                return
            del self._due[task]
            self._late.add(task)
            task.cancel()
