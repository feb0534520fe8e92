"""What PostgreSQL and its driver say, as the errors of orgstead. No text of the engine goes further than this file."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from types import MappingProxyType

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched

from orgstead.errors import (
    ConfigurationError,
    InvalidValue,
    OrgsteadError,
    Overloaded,
    SchemaOutdated,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageReadOnly,
)
from orgstead.storage import unreached
from orgstead.storage.postgres.statements import quoted

RETRY_AFTER = 1.0

_BUSY = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock timeout: nothing was done, and the next time may go better."""

_FULL_HOUSE = "53300"
"""Too many connections."""

_GONE = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "08000", "08001", "08003", "08004", "08006"})
"""The connection ended, or the server is starting, stopping or recovering."""

_STALE_PLAN = "0A000"
_MISSING = frozenset({"42P01", "3F000", "42883"})
"""No such table, schema, function."""

_READ_ONLY, _CANCELLED, _FORBIDDEN, _NO_DATABASE = "25006", "57014", "42501", "3D000"
_WRONG_PASSWORD, _PROTOCOL_VIOLATION = "28P01", "08P01"
_DUPLICATE = "23505"

_REFUSED = f"[Errno {errno.ECONNREFUSED}]"

_DAMAGED = "The database is damaged; restore it from a backup."
_SLOW = "The database took too long; nothing was changed."
_RIGHTS = "The database's role lacks a right that the service needs; nothing was changed."


_OF_THE_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Passing(Exception):
    """An attempt failed for a reason that may pass, and nothing of it was done. ``cause`` is the driver's error."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def state_of(error: BaseException | None) -> str:
    """The SQLSTATE (PostgreSQL's appendix A) of a server's error; empty for any other."""
    state: str | None = getattr(error, "sqlstate", None) if isinstance(error, asyncpg.PostgresError) else None
    return state or ""


def is_passing(error: BaseException) -> bool:
    """True when the same work may succeed if it is done again from the start."""
    state = state_of(error)
    if isinstance(error, (OSError, TimeoutError, TargetServerAttributeNotMatched)):
        return True  # refused, reset, timed out; none of the servers is the primary at the moment
    return state in _BUSY or state in _GONE or state == _FULL_HOUSE or _is_stale_plan(error)


def _is_stale_plan(error: BaseException) -> bool:
    return isinstance(error, asyncpg.exceptions.InvalidCachedStatementError) and state_of(error) == _STALE_PLAN


def spoils_connection(error: BaseException | None) -> bool:
    """True when the connection should not be used again: the server behind it became one that only reads."""
    return state_of(error) == _READ_ONLY


def is_missing(error: BaseException) -> bool:
    """True when a statement names a table, schema or function that is not there."""
    return state_of(error) in _MISSING


def duplicate_of(error: BaseException) -> str | None:
    """The name of the key or unique constraint that was violated, else None."""
    if state_of(error) != _DUPLICATE:
        return None
    return getattr(error, "constraint_name", None) or ""


def leaves_outcome_open(error: BaseException, *, closed: bool) -> bool:
    """True when a failed COMMIT may have been done: the connection ended before the server said what became of it."""
    return closed or not state_of(error) or state_of(error) in _GONE


def outdated() -> OrgsteadError:
    return SchemaOutdated(next="orgstead db upgrade")


_BY_STATE = MappingProxyType[str, Callable[[], OrgsteadError]](
    {
        **{state: lambda: StorageBusy(retry_after=RETRY_AFTER) for state in _BUSY},
        _FULL_HOUSE: lambda: Overloaded("The database has no connection left.", retry_after=RETRY_AFTER),
        _READ_ONLY: StorageReadOnly,
        "53100": StorageFull,
        _CANCELLED: lambda: StorageError(_SLOW, retry_after=RETRY_AFTER),
        _FORBIDDEN: lambda: StorageError(_RIGHTS),
        "XX001": lambda: StorageError(_DAMAGED),
        "XX002": lambda: StorageError(_DAMAGED),
        **dict.fromkeys(_MISSING, outdated),
    }
)

_BY_CLASS = MappingProxyType[str, Callable[[], OrgsteadError]](
    {"22": InvalidValue, "23": InvalidValue, "54": InvalidValue}
)
"""Data exception, constraint violated, program limit exceeded (an index entry that is too long)."""


def translated(error: BaseException) -> BaseException:
    """The error of orgstead that stands for ``error``; what neither server nor driver raised is returned as it is."""
    if isinstance(error, Passing):
        return translated(error.cause)
    if isinstance(error, (UnicodeEncodeError, asyncpg.DataError)):
        return InvalidValue()
    state = state_of(error)
    if state:
        make = _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
        return make() if make else StorageError(retry_after=RETRY_AFTER)
    if isinstance(error, (OSError, TimeoutError, *_OF_THE_DRIVER)):
        return StorageError(retry_after=RETRY_AFTER)
    return error


def at_start(error: BaseException, setting: str, *, pooler: bool, tls: bool) -> OrgsteadError | None:
    """What is to be said of an error before the service starts, where only its operator can mend it; else None.

    ``setting`` is the name of the one that holds the URL, ``pooler`` and ``tls`` are what the URL asks for.
    """
    cause = error.cause if isinstance(error, Passing) else error
    state = state_of(cause)
    if state == _WRONG_PASSWORD:
        return ConfigurationError(
            f"The server does not accept the role or its password in {setting}.",
            next=f"correct them in {setting}, or, as a superuser: ALTER ROLE … PASSWORD '…'",
        )
    if state.startswith("28"):
        return ConfigurationError(
            f"The server does not let the role in {setting} in: it is unknown, may not log in, or has no rule in"
            " pg_hba.conf.",
            next=f"correct the role in {setting}, or, as a superuser: CREATE ROLE … LOGIN PASSWORD '…'",
        )
    if state == _NO_DATABASE:
        return ConfigurationError(
            f"The server has no database of the name in {setting}.",
            next="createdb --owner=OWNER DATABASE, then orgstead db upgrade",
        )
    if state == _FORBIDDEN:
        return ConfigurationError(
            f"The role in {setting} lacks a right that it needs.",
            next="set ORGSTEAD_MIGRATION_URL to the URL of the database's owner, then orgstead db upgrade",
        )
    if state == _PROTOCOL_VIOLATION and pooler:  # what PgBouncer says of all three
        return ConfigurationError(
            f"The pooler does not accept the role, its password or the database in {setting}.",
            next="compare them with the pooler's list of databases and users",
        )
    if state == _PROTOCOL_VIOLATION:
        return ConfigurationError(
            "What answers is not PostgreSQL itself but a pooler, which refuses a setting of the connection.",
            next=f"add ?pooler=transaction to the URL in {setting}",
        )
    if isinstance(cause, ssl.SSLError) or (
        isinstance(cause, asyncpg.exceptions.ClientConfigurationError) and "root certificate" in str(cause)
    ):
        return ConfigurationError(
            f"The server's certificate does not pass as {setting} asks: there is nothing to check it against, it is"
            " not trusted, or is for another name.",
            next=f"name the authority's certificate: ?sslmode=verify-full&sslrootcert=FILE in {setting}",
        )
    if type(cause) is ConnectionError and "SSL" in str(cause) and tls:
        return ConfigurationError(
            f"The server has no TLS, which {setting} asks for.", next="set ssl = on in postgresql.conf"
        )
    if isinstance(cause, (asyncpg.exceptions.ClientConfigurationError, ValueError)):
        return ConfigurationError(
            f"The driver does not accept the URL in {setting}.",
            next="see PostgreSQL's documentation of connection URIs for its parameters, and docs/operating.md",
        )
    return _unreached(cause)


def _unreached(cause: BaseException) -> OrgsteadError | None:
    match cause:
        case socket.gaierror():
            return unreached.unreached(unreached.UNKNOWN_HOST)
        case ConnectionRefusedError():
            return unreached.unreached(unreached.REFUSED)
        case OSError() if _REFUSED in str(cause):  # at each of its addresses
            return unreached.unreached(unreached.REFUSED)
        case TimeoutError():
            return unreached.unreached(unreached.SILENT)
        case ConnectionError() if "SSL" in str(cause):  # neither of the two answers that PostgreSQL has
            return unreached.unreached(unreached.FOREIGN)
        case ConnectionError() | asyncpg.ConnectionDoesNotExistError():
            return unreached.unreached(unreached.CUT)
    return None


def no_role(role: str) -> OrgsteadError:
    return ConfigurationError(
        f"The server has no role {role}, which ORGSTEAD_DATABASE_URL names.",
        next=f"as a superuser: CREATE ROLE {quoted(role)} LOGIN NOINHERIT PASSWORD '…'; then orgstead db upgrade",
    )


def closed() -> OrgsteadError:
    return StorageError("The database was closed; nothing was changed.")


def no_connection() -> OrgsteadError:
    return Overloaded("All connections to the database are in use.", retry_after=RETRY_AFTER)


def no_owner() -> OrgsteadError:
    return ConfigurationError(
        "Dedicated spaces are schemas, which only the database's owner may change; the service does not know it.",
        next="set ORGSTEAD_MIGRATION_URL to the URL of the database's owner",
    )
