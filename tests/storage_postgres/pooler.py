"""A real PgBouncer in transaction pooling mode between a storage and its server."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.engines import Database
from tests.servers import postgres

SERVER_CONNECTIONS = 2


def program() -> str:
    """The path of PgBouncer; skips the test where there is none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed")
    return found


@asynccontextmanager
async def pooled(database: Database) -> AsyncIterator[Database]:
    """The database by way of PgBouncer, whose URLs do not say so yet."""
    binary = program()
    folder = Path(tempfile.mkdtemp(prefix="orgstead-pooler-"))
    process, port = _started(binary, folder, database.url)
    try:
        await _answering(port, process)
        assert database.migration_url
        yield Database(*(_by_way_of(url, port) for url in (database.url, database.migration_url)))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _started(binary: str, folder: Path, url: str) -> tuple[subprocess.Popen[bytes], int]:
    server = urlsplit(url)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    run = postgres.run()
    (folder / "users").write_text("".join(f'"{role}" "{run.password}"\n' for role in (run.role, run.owner)))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.hostname} port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n"
        f"auth_file = {folder}/users\npool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n"
        f"max_client_conn = 200\nlogfile = {folder}/log\n"
    )
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    command = [binary, "--quiet", str(folder / "pgbouncer.ini")]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options), port


def _by_way_of(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"))


async def _answering(port: int, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(10):
        while True:
            assert process.poll() is None, "pgbouncer ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
