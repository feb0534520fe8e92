"""Storages whose commands are heard, clients past them, and failpoints of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from orgstead import kit
from orgstead.model import PlacementKind
from orgstead.storage.mongodb import client, location
from orgstead.storage.mongodb.engine import MongoStorage
from orgstead.storage.port import Space, SystemScope
from tests.rows import org_id

SYSTEM = SystemScope("tests of the engine")


class Commands(CommandListener):
    """The names of the commands that were sent, and the commands themselves."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sent: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)
        self.sent.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing to remember."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing to remember."""

    def forget(self) -> None:
        self.names.clear()
        self.sent.clear()


def with_snapshot_reads(url: str) -> str:
    """The URL of the same database, read as MongoDB itself is."""
    return urlunsplit(urlsplit(url)._replace(query=""))


@asynccontextmanager
async def opened(url: str, commands: Commands | None = None) -> AsyncIterator[MongoStorage]:
    """The storage at ``url``, heard by ``commands``."""
    place = location.parse(url)
    server = client.connect(place, listeners=[commands] if commands else [])
    storage = MongoStorage(place.url, kit.now, server, writable=True)
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def server_of(url: str) -> AsyncIterator[client.Server]:
    """A client of the tests' own, and both databases."""
    server = client.connect(location.parse(url))
    try:
        yield server
    finally:
        await server.client.close()


@asynccontextmanager
async def failing(url: str, command: str, times: int, **how: Any) -> AsyncIterator[None]:
    """The server's ``failCommand``: so many of the next commands of this name fail in this way."""
    async with server_of(url) as server:
        data = {"failCommands": [command], **how}
        await server.client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data})
        try:
            yield
        finally:
            await server.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def dedicated(name: str = "org_acme") -> Space:
    return Space(org_id(), PlacementKind.DEDICATED, name, 1)


def pooled() -> Space:
    return Space(org_id(), PlacementKind.POOLED, None, 1)
