"""A PostgreSQL server to measure on: that of the tests, with more memory, and with data that is kept between runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from bench.processes import CORES
from tests.servers import postgres
from tests.servers.postgres import LocalServer

_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
_OWNER, _ROLE = "bench_owner", "bench_app"


@contextmanager
def running(folder: Path) -> Iterator[Callable[[Path], Mapping[str, str]]]:
    """The server whose data is in ``folder``, on every core, wherever this process is pinned.

    Yields what makes the database of a place, where it is not there yet, and gives the settings that reach it. It
    listens on a socket in the file system, which is how an application beside its database connects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    try:
        server = postgres.server_in(folder, _SETTINGS)
    finally:
        os.sched_setaffinity(0, pinned)
    try:
        yield lambda place: asyncio.run(_database(server, place.name))
    finally:
        server.close()


async def _database(server: LocalServer, place: str) -> dict[str, str]:
    name = f"bench_{place.partition('.')[0]}"
    administrator = await asyncpg.connect(server.url)
    try:
        for role in (_OWNER, _ROLE):
            if not await administrator.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
                await administrator.execute(f"CREATE ROLE {role} LOGIN")
            await administrator.execute(f"ALTER ROLE {role} PASSWORD '{server.password}'")
        if not await administrator.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name):
            await administrator.execute(f'CREATE DATABASE "{name}" OWNER {_OWNER}')
    finally:
        await administrator.close()
    return {
        variable: f"postgresql://{role}:{server.password}@/{name}?host={server.folder}&port={server.port}"
        for variable, role in (("database_url", _ROLE), ("migration_url", _OWNER))
    }
