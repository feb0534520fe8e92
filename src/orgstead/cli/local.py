"""Work on the database directly: what local commands have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import typer

from orgstead import logs
from orgstead.app import App
from orgstead.cli.config import configuration
from orgstead.cli.output import Options, Output
from orgstead.storage.port import SystemScope

T = TypeVar("T")
Item = TypeVar("Item")

SCOPE = SystemScope("command line")
PAGE = 200


@asynccontextmanager
async def opened(options: Options, *, writable: bool, rehearsing: bool = False) -> AsyncIterator[App]:
    """The App over the configured database. Without ``writable`` it may stand beside a running server."""
    settings = configuration(options).settings
    logs.configure(format=settings.log.format, level="warning", color=Output(options).color)
    app = await App.open(settings, writable=writable, make=False, rehearsing=rehearsing)
    try:
        await app.storage.check()
        yield app
    finally:
        await app.close()


def reading(ctx: typer.Context, work: Callable[[App, Output], Awaitable[T]]) -> T:
    """Run ``work`` on the database, which others may be writing to."""
    return asyncio.run(_within(ctx, work, writable=False))


def writing(ctx: typer.Context, work: Callable[[App, Output], Awaitable[T]], *, dry_run: bool = False) -> T:
    """Run ``work`` on the database, as its one writer where the engine has only one; in a dry run as a rehearsal."""
    return asyncio.run(_within(ctx, work, writable=True, rehearsing=dry_run))


async def _within(
    ctx: typer.Context, work: Callable[[App, Output], Awaitable[T]], *, writable: bool, rehearsing: bool = False
) -> T:
    async with opened(ctx.obj, writable=writable, rehearsing=rehearsing) as app:
        return await work(app, Output(ctx.obj))


async def everything(
    fetch: Callable[[Sequence[Any] | None, int], Awaitable[Sequence[Item]]],
    mark: Callable[[Item], Sequence[Any]],
    limit: int | None,
) -> AsyncIterator[Item]:
    """All items of a keyset list, page by page: ``fetch(after, limit)``, going on after the last one's ``mark``."""
    after: Sequence[Any] | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        items = await fetch(after, size)
        for item in items:
            yield item
        if len(items) < size:
            return
        after = mark(items[-1])
        left = None if left is None else left - size


async def as_rows(
    items: AsyncIterator[Item], shown: Callable[[Item], Mapping[str, Any]]
) -> AsyncIterator[Mapping[str, Any]]:
    async for item in items:
        yield shown(item)
