"""Opening the file: permissions, the settings of a connection, and the connections that read."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from orgstead.errors import ConfigurationError
from orgstead.storage.sqlite import failures, schema
from orgstead.storage.sqlite.location import Location
from orgstead.storage.sqlite.lock import WriterLock

OLDEST = (3, 37, 0)
"""The first SQLite with STRICT tables; RETURNING came before it."""

_READER_TIMEOUT_MS = 1000
_CACHED_STATEMENTS = 1024
CHECKPOINT_BYTES = 16 * 1024 * 1024
"""The log is folded into the file each so many bytes: pages that many commits touch are written there once."""

_PAGE = 4096

_WRITER_CACHE_KIB = 16 * 1024
_READER_CACHE_KIB = 64 * 1024
"""Filled as pages are read: the leaves of a few thousand active organizations among a million need most of it."""


def claim(location: Location) -> WriterLock:
    """Take the lock of the one writing process; make the folder (0700) and the file (0600) where they are missing.

    Raises ``DatabaseInUse``, or ``ConfigurationError`` for a place that cannot hold a database.
    """
    _check(location.path)
    if location.path.exists() and not WriterLock.file(location.path).exists():
        _look(location.path)
    try:
        if not location.path.parent.exists():
            location.path.parent.parent.mkdir(parents=True, exist_ok=True)
            location.path.parent.mkdir(mode=0o700, exist_ok=True)
        lock = WriterLock.acquire(location.path)
    except OSError as error:
        raise _not_writable(error.errno) from error
    try:
        _make(location.path)
    except BaseException:
        lock.release()
        raise
    return lock


def _look(path: Path) -> None:
    """Refuse a file of another program before anything of ours is beside or in it."""
    with closing(_open(path, "ro", _READER_TIMEOUT_MS)) as connection:
        schema.version_of(connection)


def _make(path: Path) -> None:
    # An existing file is never opened here: to close it would drop the locks that SQLite has on it in this process.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise _not_writable(errno.EACCES) from None
    except OSError as error:
        raise _not_writable(error.errno) from error


def require(location: Location) -> None:
    """Raise ``ConfigurationError`` unless there is a file that may be read."""
    _check(location.path)
    if not location.path.exists():
        raise _unusable(
            f"There is no database at {location.path}.",
            "create it with orgstead up or orgstead db upgrade, or correct the path",
        )
    if not os.access(location.path, os.R_OK, effective_ids=True):
        raise _unusable(
            "The database file may not be read.", "give the account that runs orgstead the right to read it"
        )


def _check(path: Path) -> None:
    if sqlite3.sqlite_version_info < OLDEST:
        raise _unusable(
            f"This Python was built with SQLite {sqlite3.sqlite_version}, which is too old.",
            f"use a Python with SQLite {'.'.join(map(str, OLDEST))} or newer",
        )
    if path.is_dir():
        raise _unusable("The path of the database is a folder.", "name a file inside the folder")


def open_writer(location: Location) -> sqlite3.Connection:
    """The one connection that writes. Raises ``ConfigurationError``."""
    connection = _open(location.path, "rw", location.busy_timeout_ms)
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise _unusable("The folder of the database cannot hold a write-ahead log.", "use a folder on a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is purged must not stay in the file
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // _PAGE}")
        connection.execute(f"PRAGMA cache_size = {-_WRITER_CACHE_KIB}")
        if location.max_pages is not None:
            connection.execute(f"PRAGMA max_page_count = {location.max_pages}")
    except sqlite3.Error as error:
        connection.close()
        raise _explained(error) from error
    except ConfigurationError:
        connection.close()
        raise
    return connection


def open_reader(location: Location, *, shared: bool) -> sqlite3.Connection:
    """A connection that cannot write. ``shared`` says that this process has the writer too."""
    connection = _open(location.path, "rw" if shared else "ro", min(location.busy_timeout_ms, _READER_TIMEOUT_MS))
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA cache_size = {-_READER_CACHE_KIB}")
    return connection


def _open(path: Path, mode: str, busy_timeout_ms: int) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    try:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=_CACHED_STATEMENTS
        )
    except sqlite3.Error as error:
        raise _explained(error) from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the first look at the file itself
    except sqlite3.Error as error:
        connection.close()
        raise _explained(error) from error
    return connection


def data_version(connection: sqlite3.Connection) -> int:
    """A number that has changed where another connection has committed since it was last asked for on this one."""
    ((version,),) = connection.execute("PRAGMA data_version").fetchall()
    return int(version)


def _explained(error: sqlite3.Error) -> BaseException:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _unusable("The file is not a database, or it is damaged.", "correct the path, or restore a backup")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH):
        return _unusable(
            "The database file cannot be opened.",
            "give the account that runs orgstead the right to read and write the file and its folder",
        )
    return failures.translated(error)


def _not_writable(number: int | None) -> ConfigurationError:
    return _unusable(
        f"The database file cannot be written: {os.strerror(number or 0)}.",
        "give the account that runs orgstead the right to write the file and its folder",
    )


def _unusable(detail: str, step: str) -> ConfigurationError:
    return ConfigurationError(detail, next=step)


class snapshot:  # noqa: N801  # used like a function
    """Let everything that is read inside the block be of one moment.

    A class, because a generator would take as long as the point read that is most often inside.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")


class Readers:
    """One reading connection for each thread that asks, so that a read never waits for another."""

    def __init__(self, location: Location, *, shared: bool) -> None:
        self._location = location
        self._shared = shared
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def connection(self) -> sqlite3.Connection:
        """The calling thread's connection."""
        try:
            return self._local.connection  # type: ignore[no-any-return]  # threading.local has no types
        except AttributeError:
            connection = open_reader(self._location, shared=self._shared)
        with self._lock:
            if self._closed:
                connection.close()
                raise failures.closed()
            self._all.append(connection)
        self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close every thread's connection. May be repeated."""
        with self._lock:
            self._closed = True
            connections, self._all = self._all, []
        for connection in connections:
            connection.close()
