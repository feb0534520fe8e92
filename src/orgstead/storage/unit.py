"""What the transactions of all engines share: whose rows they may touch, and how they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from orgstead.errors import OutOfScope, StorageReadOnly, TransactionEnded
from orgstead.storage.port import Home, OrgScope, Scope, Space, Table, total_order

T = TypeVar("T")
P = ParamSpec("P")
U = TypeVar("U", bound="Unit")

MAX_KEYS = 1000
"""Keys that ``find_many`` may be asked for at once."""


class Unit:
    """One unit of work within a scope. ``org_id`` is that of the scope's organization, None for a ``SystemScope``.

    ``space`` is the scope where it is one. ``translated`` turns an engine's exception into one of ours.
    """

    __slots__ = ("ended", "failed", "org_id", "scope", "space", "writable")

    def __init__(self, scope: Scope, *, writable: bool) -> None:
        self.scope = scope
        self.space = scope if isinstance(scope, Space) else None
        self.org_id = scope.org_id if isinstance(scope, (OrgScope, Space)) else None
        self.writable = writable
        self.ended = False
        self.failed = False

    def translated(self, error: BaseException) -> BaseException:
        """The error of orgstead that stands for ``error``; what no engine raised is returned as it is."""
        raise NotImplementedError

    def begin_verb(self, *, writes: bool) -> None:
        """Raise ``TransactionEnded`` after the end, ``StorageReadOnly`` for a writing verb of a unit that reads."""
        if self.ended:
            raise TransactionEnded
        if writes and not self.writable:
            self.ended = self.failed = True
            raise StorageReadOnly("This transaction only reads; nothing was changed.")

    def fail(self, error: BaseException) -> None:
        """End the unit because of ``error`` (promise 3); raises as ``raise_if_other``."""
        self.ended = self.failed = True
        raise_if_other(self.translated(error), error)

    def end(self) -> bool:
        """Refuse all further verbs; True when one has failed, so that nothing may be committed."""
        self.ended = True
        return self.failed

    def admit(self, table: Table[Any]) -> None:
        """Raise ``OutOfScope`` for a table that this scope does not have (promise 4)."""
        if self.space is None:
            if table.home is not Home.DIRECTORY or (self.org_id is not None and table.scope is None):
                raise OutOfScope
        elif table.home is not Home.SPACE or table.scope is None:
            raise OutOfScope

    def admit_row(self, table: Table[Any], row: Any) -> None:
        """Raise ``OutOfScope`` for a row of another organization (promise 4)."""
        if self.org_id is not None and getattr(row, table.scope or "") != self.org_id:
            raise OutOfScope


def verb(
    *, writes: bool
) -> Callable[
    [Callable[Concatenate[U, P], Awaitable[T]]],
    Callable[Concatenate[U, P], Coroutine[Any, Any, T]],
]:
    """Make a verb of an async method: any error of it ends the unit (promise 3) and leaves as one of ours."""

    def decorate(
        method: Callable[Concatenate[U, P], Awaitable[T]],
    ) -> Callable[Concatenate[U, P], Coroutine[Any, Any, T]]:
        @wraps(method)
        async def guarded(self: U, /, *args: P.args, **kwargs: P.kwargs) -> T:
            self.begin_verb(writes=writes)
            try:
                return await method(self, *args, **kwargs)
            except BaseException as error:
                self.fail(error)
                raise

        return guarded

    return decorate


def raise_if_other(ours: BaseException, error: BaseException) -> None:
    """Raise the error of ours that stands for ``error``, unless it is ``error`` itself, which the caller raises then.

    A caller must not hold it in a variable: the error's traceback holds the caller's frame, so that both, with all that
    a request had, would wait for the garbage collector.
    """
    if ours is not error:
        raise ours from error


def identified_by(table: Table[Any], where: Mapping[str, Any]) -> bool:
    """Does ``where`` identify a row? False where it holds a None, which exempts a row from its constraint.

    Raises ``ValueError`` unless it names all columns of the key or of one unique constraint.
    """
    named = set(where)
    if named != set(table.key) and all(named != set(columns) for columns in (table.unique or {}).values()):
        raise ValueError(f"Name all columns of the key or of a unique constraint of {table.name}.")
    return None not in where.values()


def columns_named(table: Table[Any], unique: str | None) -> tuple[str, ...]:
    """The columns of the unique constraint of this name, of the key for None. Raises ``ValueError``."""
    if unique is None:
        return table.key
    try:
        return (table.unique or {})[unique]
    except KeyError:
        raise ValueError(f"{table.name} has no unique constraint {unique}.") from None


def bounded_by(table: Table[Any], order: Sequence[str], pinned: Collection[str | None]) -> tuple[str, bool]:
    """The column that ``until`` bounds, and whether it is descending. Raises ``ValueError`` where it is ``pinned``."""
    first = total_order(table, order)[0]
    column = first.lstrip("-")
    if column in pinned:
        raise ValueError(f"The column {column} of {table.name} has one value here, so the list cannot end at another.")
    return column, first.startswith("-")


def weighed_by(table: Table[Any], max_weight: int | None) -> str | None:
    """The column that ``max_weight`` bounds, None without a bound. Raises ``ValueError`` where rows have no weight."""
    if max_weight is None:
        return None
    if table.weight is None:
        raise ValueError(f"Rows of {table.name} have no weight.")
    return table.weight


def check_limit(limit: int) -> None:
    """Raise ``ValueError`` for a limit below zero."""
    if limit < 0:
        raise ValueError("A limit cannot be negative.")


def check_keys(keys: Sequence[Any]) -> None:
    """Raise ``ValueError`` for more keys than ``find_many`` takes."""
    if len(keys) > MAX_KEYS:
        raise ValueError(f"At most {MAX_KEYS} rows can be asked for at once.")
