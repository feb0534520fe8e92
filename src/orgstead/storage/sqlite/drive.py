"""Running a unit of work in one go: on this engine no verb ever really waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from orgstead.errors import TransactionEnded
from orgstead.storage.port import Transaction
from orgstead.storage.sqlite.transaction import SqliteTransaction

T = TypeVar("T")

_ADVICE = (
    "Work awaits nothing but its transaction's verbs (promise 2 of the storage port): do what waits before or after the"
    " transaction."
)


class ForeignAwait(RuntimeError):
    """A unit of work awaited something else than its transaction: a mistake in the program."""

    def __init__(self) -> None:
        super().__init__(_ADVICE)


def drive(
    transaction: SqliteTransaction,
    work: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> T:
    """The result of ``work(transaction, *args, **kwargs)``; whatever it raises goes through.

    Raises ``ForeignAwait`` when the work suspends, and ``TransactionEnded`` when it hid an error that ended the
    transaction.
    """
    verbs: Transaction = transaction
    steps = work(verbs, *args, **kwargs).__await__()
    try:
        next(steps)
    except StopIteration as finished:
        result: T = finished.value
    except RuntimeError as error:
        if str(error) == "no running event loop":
            raise ForeignAwait from error
        raise
    else:
        _close(steps)
        raise ForeignAwait
    finally:
        failed = transaction.end()
    if failed:
        raise TransactionEnded
    return result


def _close(steps: Any) -> None:
    close = getattr(steps, "close", None)
    if close is not None:
        close()
