"""A MongoDB server for the tests: one for each test process, started when the first test wants it.

The first of these that can be had:

1. ``ORGSTEAD_TEST_MONGODB_URI``: a replica set or sharded cluster. Only databases with this run's random prefix are
   touched.
2. ``mongod`` on PATH, as a replica set of one node.
3. SecantusDB, a server that speaks MongoDB's protocol over WiredTiger, in a process of its own. It takes snapshot reads
   outside of transactions without keeping to them, so that its URL says ``snapshotReads=false``.

Tests that only a real server can prove carry the mark ``real_mongodb`` (see ``conftest.py``).
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from tests.servers.unavailable import EngineUnavailable

URI = "ORGSTEAD_TEST_MONGODB_URI"
START_SECONDS = 30

STAND_IN = "snapshotReads=false&timeoutMS=20000"
"""What the URL of the stand-in says: on a busy machine a thousand writes take it longer than a command usually has."""

_PREFIX = f"t{secrets.token_hex(4)}"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. ``uri`` names no database. ``real`` says that it is MongoDB itself, ``ours`` that it was
    started for this process and is removed with all that it holds."""

    uri: str
    real: bool
    ours: bool

    def url(self, database: str) -> str:
        """The URL that opens a database of this name."""
        parts = urlsplit(self.uri)
        query = parts.query if self.real else STAND_IN
        return urlunsplit(parts._replace(path=f"/{database}", query=query))


@cache
def server() -> Server:
    """The server of this process. Raises ``EngineUnavailable``."""
    if uri := os.environ.get(URI):
        _wait_for(uri)
        return Server(uri, real=True, ours=False)
    if shutil.which("mongod"):
        return Server(_kept(mongod()), real=True, ours=True)
    return Server(_kept(secantusdb()), real=False, ours=True)


def create_database() -> str:
    """The URL of an empty database, which the first write to it makes."""
    return server().url(f"{_PREFIX}_{next(_numbers)}")


async def drop_database(url: str) -> None:
    """Remove what was written to the database and to the one of its spaces, where it would stay otherwise.

    A server of our own goes with its folder. The stand-in drops a database key by key, which takes up to minutes.
    """
    if server().ours:
        return
    async with _client() as client:
        for name in _names(url):
            await client.drop_database(name)


async def empty(url: str) -> None:
    """Remove every document and every dedicated space of a database; its collections and their indexes stay."""
    async with _client() as client:
        for database in map(client.get_database, _names(url)):
            for collection in await database.list_collection_names():
                if collection.startswith("org_"):
                    await database.drop_collection(collection)
                elif collection != "schema_migrations":
                    await database[collection].delete_many({})


def _client() -> pymongo.AsyncMongoClient[dict[str, object]]:
    return pymongo.AsyncMongoClient(server().uri)


def _names(url: str) -> tuple[str, str]:
    """The database of the directory, and that of the spaces."""
    name = urlsplit(url).path.removeprefix("/")
    return name, f"{name}_data"


# --- starting -------------------------------------------------------------------------------------------------------


@contextmanager
def secantusdb(*options: str) -> Iterator[str]:
    """The URI of a new SecantusDB, until the end of the block."""
    program = Path(sys.executable).with_name("secantusd-py")
    if not program.exists():
        raise EngineUnavailable(f"set {URI}, install mongod, or install secantusdb from requirements-dev.lock")
    with tempfile.TemporaryDirectory(prefix="orgstead-mongodb-", ignore_cleanup_errors=True) as folder:
        port = _free_port()
        command = [str(program), "--port", str(port), "--storage-path", str(Path(folder, "data")), "--sync-on-commit"]
        with _running([*command, "--enable-test-commands", *options], Path(folder, "log"), port) as host:
            yield f"mongodb://{host}/"


@contextmanager
def mongod() -> Iterator[str]:
    """The URI of a new ``mongod`` that is a replica set of one node, until the end of the block."""
    folder = tempfile.TemporaryDirectory(prefix="orgstead-mongodb-", ignore_cleanup_errors=True)
    with folder as path, member(Path(path), "rs0") as host:
        initiate("rs0", [host])
        yield f"mongodb://{host}/?replicaSet=rs0"


@contextmanager
def member(folder: Path, replica_set: str) -> Iterator[str]:
    """``host:port`` of a ``mongod`` with its data in ``folder``, for ``initiate``."""
    port = _free_port()
    data = folder / f"data-{port}"
    data.mkdir()
    command = ["mongod", "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(data), "--replSet", replica_set]
    with _running([*command, "--setParameter", "enableTestCommands=1"], folder / f"log-{port}", port) as host:
        yield host


def initiate(replica_set: str, hosts: list[str]) -> None:
    """Make a replica set of members that are running, and wait for its primary."""
    members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(hosts[0], directConnection=True)
    with client:
        client.admin.command("replSetInitiate", {"_id": replica_set, "members": members})
    _wait_for(f"mongodb://{','.join(hosts)}/?replicaSet={replica_set}")


@contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[str]:
    """``host:port`` of a server process that answers; it is stopped by its pid at the end of the block."""
    # A test process that is killed cannot stop its server: the kernel does, where there is a tool that asks it to.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with log.open("wb") as output:
        process = subprocess.Popen([*guard, *command], stdout=output, stderr=subprocess.STDOUT)
    try:
        _answers(command[0], process, port, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(program: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise EngineUnavailable(f"{Path(program).name} did not start: {last[0]}")


def _wait_for(uri: str) -> None:
    """Wait until the server is one that takes writes."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=1000)
            with client:
                if client.admin.command("hello").get("isWritablePrimary"):
                    return
        except (OperationFailure, PyMongoError) as error:
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"MongoDB does not answer: {type(error).__name__}") from None
        time.sleep(0.1)


def _kept(running: AbstractContextManager[str]) -> str:
    """Enter a context that lasts as long as this process."""
    stack = ExitStack()
    uri = stack.enter_context(running)
    atexit.register(stack.close)
    return uri


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
