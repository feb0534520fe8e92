"""What PostgreSQL and its driver say, as the errors of orgstead. No text of the engine goes further than this file."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import asyncpg

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
_DUPLICATE = "23505"

_DAMAGED = "The database is damaged; restore it from a backup."
_SLOW = "The database took too long; nothing was changed."
_RIGHTS = "The database's role lacks a right that the service needs; nothing was changed."


class Passing(Exception):
    """An attempt failed for a reason that may pass, and nothing of it was done. ``cause`` is the driver's error."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def state_of(error: BaseException) -> str:
    """The SQLSTATE (PostgreSQL's appendix A) of a server's error; empty for any other."""
    state: str | None = getattr(error, "sqlstate", None) if isinstance(error, asyncpg.PostgresError) else None
    return state or ""


def is_passing(error: BaseException) -> bool:
    """True when the same work may succeed if it is done again from the start."""
    state = state_of(error)
    if isinstance(error, (OSError, TimeoutError)):  # refused, reset, timed out
        return True
    return state in _BUSY or state in _GONE or state == _FULL_HOUSE or _is_stale_plan(error)


def _is_stale_plan(error: BaseException) -> bool:
    return isinstance(error, asyncpg.exceptions.InvalidCachedStatementError) and state_of(error) == _STALE_PLAN


def spoils_connection(error: BaseException) -> bool:
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
        **{state: lambda: outdated() for state in _MISSING},
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
    if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)):
        return StorageError(retry_after=RETRY_AFTER)
    return error


def at_start(error: BaseException) -> BaseException:
    """``translated`` for what is asked before the service starts: what only its operator can mend is said so."""
    cause = error.cause if isinstance(error, Passing) else error
    state = state_of(cause)
    if state.startswith("28"):
        return ConfigurationError(
            "The database does not let this role in: wrong name or password, or no rule in pg_hba.conf.",
            next="correct the role and password in the database URL",
        )
    if state == _NO_DATABASE:
        return ConfigurationError(
            "The server has no database of this name.", next="createdb --owner=OWNER DATABASE, then orgstead db upgrade"
        )
    if state == _FORBIDDEN:
        return ConfigurationError(
            "The database's role lacks a right that it needs.",
            next="set ORGSTEAD_MIGRATION_URL to the URL of the database's owner, then orgstead db upgrade",
        )
    if state == "08P01":
        return ConfigurationError(
            "What answers is not PostgreSQL itself but a pooler, which refuses a setting of the connection.",
            next="add ?pooler=transaction to the database URL",
        )
    if isinstance(cause, (asyncpg.exceptions.ClientConfigurationError, ValueError)):
        return ConfigurationError(
            "The driver does not accept the database URL.", next="compare it with docs/configuration.md"
        )
    return translated(error)


def outdated() -> OrgsteadError:
    return SchemaOutdated(next="orgstead db upgrade")


def closed() -> OrgsteadError:
    return StorageError("The database was closed; nothing was changed.")


def no_connection() -> OrgsteadError:
    return Overloaded("All connections to the database are in use.", retry_after=RETRY_AFTER)


def no_owner() -> OrgsteadError:
    return ConfigurationError(
        "Dedicated spaces are schemas, which only the database's owner may change; the service does not know it.",
        next="set ORGSTEAD_MIGRATION_URL to the URL of the database's owner",
    )
