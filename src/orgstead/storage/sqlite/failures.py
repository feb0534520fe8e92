"""What SQLite says, as the errors of orgstead. No text of the engine goes further than this file."""

from __future__ import annotations

import sqlite3

from orgstead.errors import (
    InvalidValue,
    OrgsteadError,
    SchemaOutdated,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageReadOnly,
)

_PRIMARY = 0xFF
"""An extended result code keeps its primary code in the low byte (sqlite.org/rescode.html)."""

_DAMAGED = "The database file is damaged or is not a database; restore it from a backup."


def translated(error: BaseException) -> BaseException:
    """The error of orgstead that stands for ``error``; anything that SQLite did not raise is returned as it is."""
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return InvalidValue()
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return StorageError()
    primary = code & _PRIMARY
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull()
    if primary == sqlite3.SQLITE_READONLY:
        return StorageReadOnly()
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageBusy(retry_after=1.0)
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(_DAMAGED)
    if primary in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG):
        return InvalidValue()
    if is_missing_table(error):
        return outdated()
    return StorageError()


def is_missing_table(error: BaseException) -> bool:
    """True when a statement names a table that is not there. SQLite has no code of its own for this, only a text."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such table: ")


def is_duplicate(error: sqlite3.IntegrityError) -> bool:
    """True when a primary key or unique constraint was violated."""
    return error.sqlite_errorcode in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)


def leaves_outcome_open(error: Exception) -> bool:
    """True when a failed COMMIT may still be found after a crash: its frames were written, but not surely to disk."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & _PRIMARY == sqlite3.SQLITE_IOERR


def outdated() -> OrgsteadError:
    return SchemaOutdated(next="orgstead db upgrade")


def gone() -> OrgsteadError:
    return StorageError(
        "The database file was removed or replaced while the service runs; nothing was changed. "
        "Put it back, or restart the service to go on with what is there now."
    )


def not_writable() -> OrgsteadError:
    return StorageReadOnly(
        "The database file, its -wal or its -shm beside it can only be read; nothing was changed.",
        next="give the account that runs orgstead the right to write all three and their folder, and mount it writable",
    )


def closed() -> OrgsteadError:
    return StorageError("The database was closed; nothing was changed.")
