"""One of several processes that serve the same port; ``processes`` starts it and tells it what to do.

It takes no part in the terminal's signals: the process that started it hears them and says what follows. Where that one
is gone, it stops by itself.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from orgstead import logs
from orgstead.api import management, server
from orgstead.api.metrics import RequestMetrics, as_plain, of_this_process
from orgstead.cli import channel, service
from orgstead.cli.attempts import RemoteThrottles
from orgstead.cli.channel import Channel
from orgstead.errors import OrgsteadError
from orgstead.settings import Settings


def packed(settings: Settings) -> str:
    """The settings with their secrets, for a process of ours and nobody else."""
    return json.dumps(settings.model_dump(), default=_plain)


def unpacked(text: str) -> Settings:
    """What ``packed`` was given."""
    return Settings.model_validate(json.loads(text))


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no part of a setting")


class Orders:
    """What the process that started this one asks of it: to begin, to stop, and how it does."""

    def __init__(self) -> None:
        self.begin: asyncio.Future[tuple[Settings, int, bool, bool]] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()
        self.forced = asyncio.Event()
        self.metrics = RequestMetrics()
        self.check: Callable[[], Any] | None = None
        self._registry = of_this_process()

    def handlers(self) -> dict[str, channel.Handler]:
        """What the channel is asked for."""
        return {
            "begin": self._begin,
            "stop": self._stop,
            "force": self._force,
            "check": self._check,
            "count": self._count,
        }

    async def _begin(self, settings: str, processes: int, worker: bool, color: bool) -> None:
        self.begin.set_result((unpacked(settings), processes, worker, color))

    async def _stop(self) -> None:
        self.stopped.set()

    async def _force(self) -> None:
        self.stopped.set()
        self.forced.set()

    async def _check(self) -> Any:
        return await self.check() if self.check else "service.starting"

    async def _count(self) -> Any:
        return [self.metrics.snapshot(), as_plain(self._registry)]


async def serve(listener: socket.socket, end: socket.socket) -> int:
    """Serve until told to stop, or until whoever told us to begin is gone; returns the exit code."""
    orders = Orders()
    parent = await Channel.open(end, orders.handlers())
    gone = asyncio.ensure_future(parent.closed.wait())
    begun: list[asyncio.Future[Any]] = [gone, orders.begin]
    await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
    try:
        if orders.begin.done():
            settings, processes, worker, color = orders.begin.result()
            logs.configure(format=settings.log.format, level=settings.log.level, color=color)
            await _serve(listener, parent, orders, settings, processes, worker)
    except OrgsteadError as error:
        parent.tell("failed", **channel.as_plain(error))
        return 1
    finally:
        gone.cancel()
        parent.tell("counted", requests=orders.metrics.snapshot(), own=[])
        await parent.close()
    return 0


async def _serve(
    listener: socket.socket, parent: Channel, orders: Orders, settings: Settings, processes: int, worker: bool
) -> None:
    async with service.prepared(settings, processes=processes) as app:
        app.throttles = RemoteThrottles(parent)
        orders.check = lambda: management.unready(app)
        options = service.server_options(settings)
        async with (
            service.serving(app, orders.metrics, with_worker=worker) as public,
            server.listening(public, listener, options) as listening,
        ):
            with server.stopped_by_signals(orders.stopped.set, orders.forced.set), server.settled():
                parent.tell("ready")
                obeying = asyncio.ensure_future(_obey(parent, orders, listening))
                await listening.ended()
                obeying.cancel()


async def _obey(parent: Channel, orders: Orders, listening: server.Server) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in (orders.stopped, parent.closed)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    listening.stop()
    await orders.forced.wait()
    listening.force()


def main() -> int:
    """``python -m orgstead.cli.process LISTENER CHANNEL``: the numbers of two inherited descriptors."""
    listener, end = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    return server.run(serve(listener, end))


if __name__ == "__main__":
    sys.exit(main())
