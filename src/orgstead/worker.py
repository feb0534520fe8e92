"""Background loops: resume operations that were left behind, purge what is due, forget what has expired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from orgstead import answers, feed, idempotency, purging, resuming, sessions
from orgstead.errors import OrgsteadError
from orgstead.storage.port import SystemScope

if TYPE_CHECKING:
    from orgstead.app import App

log = structlog.get_logger("orgstead.worker")

SCOPE = SystemScope("worker")
OPERATIONS_KEPT = timedelta(days=30)
BATCH = 200

Job = Callable[["App"], Awaitable[int]]


async def expire(app: App) -> int:
    """Remove expired idempotency rows, sessions and finished operations: one batch of each."""
    at = app.clock()
    removed = await app.storage.run(SCOPE, idempotency.forget_expired, at, BATCH)
    removed += await app.storage.run(SCOPE, resuming.forget_old, at - OPERATIONS_KEPT, BATCH)
    return removed + await app.storage.run(SCOPE, sessions.forget_expired, at, BATCH)


JOBS: tuple[tuple[str, Job, float], ...] = (
    ("resume operations", resuming.resume_due, 1.0),
    ("purge closed organizations", purging.purge_due, 60.0),
    ("expire", expire, 60.0),
    ("expire record events", feed.forget_expired, 3600.0),
    ("expire answers in spaces", answers.forget_expired, 3600.0),
)
"""What is done, and how many seconds after the last time there was nothing left to do."""


async def run(app: App, stop: asyncio.Event) -> None:
    """Go on with what dead processes left, then do every job again and again until ``stop`` is set.

    What fails is logged and tried again.
    """
    await _done(app, "adopt operations", resuming.adopt_left_behind)
    async with asyncio.TaskGroup() as group:
        for name, job, pause in JOBS:
            group.create_task(_repeat(app, name, job, pause, stop))


async def _repeat(app: App, name: str, job: Job, pause: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        if not await _done(app, name, job):
            await _sleep(stop, pause)


async def _done(app: App, name: str, job: Job) -> int:
    """What the job returns, or 0 when it fails: no failure, not even a fault of ours, ends the worker."""
    try:
        return await job(app)
    except OrgsteadError as error:
        log.warning("worker.job_failed", job=name, code=error.code, detail=error.detail)
    except Exception:
        log.exception("worker.job_failed", job=name)
    return 0


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
