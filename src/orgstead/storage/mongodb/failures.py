"""What MongoDB and its driver say, as the errors of orgstead. No text of theirs goes further than this file."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidOperation,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteError,
)
from pymongo.errors import ConfigurationError as DriverConfigurationError

from orgstead.errors import (
    ConfigurationError,
    InvalidValue,
    OrgsteadError,
    SchemaOutdated,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageReadOnly,
)
from orgstead.storage import unreached

# Codes of the server (src/mongo/base/error_codes.yml).
BAD_VALUE = 2
UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
ILLEGAL_OPERATION = 20
LOCK_TIMEOUT = 24
NAMESPACE_NOT_FOUND = 26
NAMESPACE_EXISTS = 48
WRITE_CONFLICT = 112
SNAPSHOT_TOO_OLD = 239
SNAPSHOT_UNAVAILABLE = 246
NO_SUCH_TRANSACTION = 251
OUT_OF_DISK_SPACE = 14031
TOO_LARGE = frozenset({10334, 17280, 17419, 17420})
DUPLICATE_KEY = frozenset({11000, 11001, 12582})
CONTENTION = frozenset({LOCK_TIMEOUT, WRITE_CONFLICT, SNAPSHOT_UNAVAILABLE})
"""Somebody else was quicker: the unit may be run again at once."""

_UNREACHED = (
    (re.compile(r"\[Errno -\d+\]"), unreached.UNKNOWN_HOST),  # of getaddrinfo
    (re.compile(rf"\[Errno {errno.ECONNREFUSED}\]"), unreached.REFUSED),
    (re.compile(r"Message length|Got opcode|Unknown opcode"), unreached.FOREIGN),
    (re.compile(r"timed out"), unreached.SILENT),
    (re.compile(rf"[Cc]onnection (is )?(already )?closed|\[Errno {errno.ECONNRESET}\]"), unreached.CUT),
)
"""What the driver's text tells of why no server was found: it keeps the reason in no other way."""

_READ_ONLY_USER = "The database's user may not do this; nothing was changed."


def codes(error: BaseException) -> Iterator[int]:
    """The server's codes of an error, those inside of a bulk write included."""
    if isinstance(error, BulkWriteError):
        for inner in (error.details or {}).get("writeErrors", ()):
            yield int(inner.get("code", 0))
    elif isinstance(error, OperationFailure) and error.code is not None:
        yield error.code


def has_code(error: BaseException, *wanted: int) -> bool:
    return any(code in wanted for code in codes(error))


def is_transient(error: BaseException) -> bool:
    """True when the unit left no trace and may be run again: a conflict, a failover, a connection that was lost."""
    if not isinstance(error, PyMongoError):
        return False
    if error.has_error_label("TransientTransactionError") or has_code(
        error, *CONTENTION, NO_SUCH_TRANSACTION, SNAPSHOT_TOO_OLD
    ):
        return True
    return isinstance(error, ConnectionFailure)


def is_contention(error: BaseException) -> bool:
    """True when another unit was in the way, not the server's state."""
    return has_code(error, *CONTENTION)


def leaves_outcome_open(error: PyMongoError) -> bool:
    """True when a commit may have been carried out although it failed for us."""
    return error.has_error_label("UnknownTransactionCommitResult")


def duplicate(error: BaseException) -> tuple[tuple[str, ...], str] | None:
    """The paths of the index that a write ran into and the server's text about it; None for any other error."""
    details: Mapping[str, Any] = {}
    if isinstance(error, BulkWriteError):
        inner = (error.details or {}).get("writeErrors", ())
        details = inner[0] if inner else {}
    elif isinstance(error, OperationFailure):
        details = {"code": error.code, "errmsg": str(error), **(error.details or {})}
    if details.get("code") not in DUPLICATE_KEY:
        return None
    return tuple(details.get("keyPattern") or ()), str(details.get("errmsg", ""))


def translated(error: BaseException) -> BaseException:
    """The error of orgstead that stands for ``error``; anything that neither server nor driver raised is kept."""
    if isinstance(error, DocumentTooLarge) or has_code(error, *TOO_LARGE):
        return InvalidValue("A row is larger than the 16 MB that MongoDB stores as one document.")
    if isinstance(error, (OverflowError, UnicodeEncodeError, BSONError)):
        return InvalidValue()
    if not isinstance(error, PyMongoError):
        return error
    if isinstance(error, InvalidOperation):
        return closed() if "close" in str(error) else StorageError()
    if has_code(error, ILLEGAL_OPERATION):
        return standalone()
    if has_code(error, OUT_OF_DISK_SPACE):
        return StorageFull()
    if has_code(error, UNAUTHORIZED, AUTHENTICATION_FAILED):
        return StorageReadOnly(_READ_ONLY_USER)
    if has_code(error, *CONTENTION):
        return StorageBusy("Too many changed the same thing at once; nothing was changed.", retry_after=1.0)
    if has_code(error, SNAPSHOT_TOO_OLD):
        return StorageError(
            "Reading took longer than MongoDB keeps the moment that is read; nothing was changed.",
            next="raise minSnapshotHistoryWindowInSeconds on every node, see docs/operating.md",
        )
    if isinstance(error, (ExecutionTimeout, ServerSelectionTimeoutError)):
        return StorageError(retry_after=1.0)
    if isinstance(error, WriteError) and has_code(error, BAD_VALUE):
        return InvalidValue()
    return StorageError()


def at_start(error: PyMongoError) -> BaseException:
    """``translated``, for the commands that look whether this database can be used at all."""
    if has_code(error, AUTHENTICATION_FAILED):
        return ConfigurationError(
            "The database refused the user name or the password.", next="correct them in ORGSTEAD_DATABASE_URL"
        )
    if has_code(error, UNAUTHORIZED):
        return ConfigurationError(
            "The database's user may not read or write what orgstead needs.",
            next="grant it readWrite on the database and on the one of the same name with _data, see docs/operating.md",
        )
    if isinstance(error, ServerSelectionTimeoutError):
        for text, cause in _UNREACHED:
            if text.search(str(error)):
                return unreached.unreached(cause)
    return translated(error)


def unusable(error: Exception) -> BaseException:
    """Why no client could be made of a URL."""
    if isinstance(error, OSError):
        return ConfigurationError(
            "A file that the mongodb URL names cannot be read.",
            next="correct ORGSTEAD_DATABASE_URL, or the file's mode",
        )
    if isinstance(error, (InvalidURI, DriverConfigurationError, ValueError, TypeError, UserWarning)):
        return ConfigurationError(
            "The mongodb URL or one of its parameters is not valid.", next="correct ORGSTEAD_DATABASE_URL"
        )
    return translated(error)


def standalone() -> OrgsteadError:
    return ConfigurationError(
        "The MongoDB server is a standalone, which has no transactions; orgstead needs a replica set, and one member is"
        " enough.",
        next="start mongod with --replSet rs0, run rs.initiate() once in mongosh, and add ?replicaSet=rs0 to the URL",
    )


def secondary() -> OrgsteadError:
    return StorageReadOnly(
        "The server is no primary and accepts no writes; nothing was changed.",
        next="name the replica set in ORGSTEAD_DATABASE_URL (?replicaSet=…) and leave directConnection out",
    )


def outdated() -> OrgsteadError:
    return SchemaOutdated(next="orgstead db upgrade")


def closed() -> OrgsteadError:
    return StorageError("The database was closed; nothing was changed.")
