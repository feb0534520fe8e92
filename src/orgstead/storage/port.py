"""The storage port: what every engine promises, in one file.

Tables are declared (``tables.py``), verbs are few, engines are several. The suite in ``tests/contract/`` holds every
engine to these promises, and its tests name them:

 1. Work runs whole or not at all: ``run`` commits when the work returns and rolls back when it raises.
 2. Work may run more than once (conflicts are retried until a deadline), so its only effect is through its transaction.
 3. Any error of a verb ends the transaction: later calls raise ``TransactionEnded`` and nothing is committed, even if
    the error was caught.
 4. Under ``OrgScope`` and ``Space`` rows of other organizations do not exist: reads give nothing, ``replace`` and
    ``remove`` raise ``NotFound``, ``add`` raises ``OutOfScope``, tables without a scope column are refused.
 5. Values come back as they went in: times to the millisecond in UTC, text by code point, 64-bit integers, finite
    floats, JSON with any legal key. What could not come back so is refused with ``InvalidValue``.
 6. ``find`` returns None, ``get`` raises ``NotFound``; ``AlreadyExists`` carries our name of the constraint.
 7. Lists are read by keyset only.
 8. A lost connection before commit is "nothing happened"; a commit whose outcome is unknown raises ``OutcomeUnknown``.
 9. ``create_space``, ``rename_space``, ``close_space``, ``open_space`` and ``drop_space`` may be repeated after
    a crash.
10. ``digest`` is equal for equal rows on every engine and placement.
11. ``migrate`` may be repeated and raced; an unknown schema is refused with the command that fixes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from orgstead.findings import Finding
from orgstead.model import Access, PlacementKind

Row = TypeVar("Row")
T = TypeVar("T")
P = ParamSpec("P")

DEDICATED_AT_ONCE = 20
"""How many dedicated spaces ``create_spaces`` makes at once. A server holds a lock on each of their tables and indexes
until they are all made, some fifty for each, and its table of locks is shared by everyone."""


# --- what is stored -------------------------------------------------------------------------------------------------


class Home(Enum):
    """Where a table lives: once in the directory, or once in every space."""

    DIRECTORY = "directory"
    SPACE = "space"


@dataclass(frozen=True, eq=False)
class Table(Generic[Row]):
    """A declared table: everything an engine needs to make, guard and query it.

    ``model`` is a frozen dataclass; its fields are the columns. ``key`` is the primary key. ``scope`` names the column
    that holds the organization's id; None means that only a ``SystemScope`` may touch the table. ``unique`` maps our
    name of a constraint to its columns; a None among the values exempts the row. ``indexes`` serve ``page``. ``lease``
    names the columns (until, owner) of a table whose rows are claimed as work. ``large`` hints at rows beyond 1 KiB.
    ``weight`` names the column that says how many bytes a row is, by which reading many of them can be bounded.
    The key's own constraint is called ``"<table>.key"``.
    """

    name: str
    model: type[Row]
    key: tuple[str, ...]
    scope: str | None
    home: Home = Home.DIRECTORY
    unique: Mapping[str, tuple[str, ...]] | None = None
    indexes: tuple[tuple[str, ...], ...] = ()
    lease: tuple[str, str] | None = None
    large: bool = False
    weight: str | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The model's field names, in their order of declaration."""
        return tuple(f.name for f in fields(self.model))  # type: ignore[arg-type]  # Row is a dataclass

    @property
    def key_constraint(self) -> str:
        return f"{self.name}.key"

    @cached_property
    def versioned(self) -> bool:
        """True when rows carry ``version``, so that ``replace`` is a compare-and-swap."""
        return "version" in self.columns


# --- on whose behalf ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OrgScope:
    """The directory's rows of one organization and nothing else."""

    org_id: str


@dataclass(frozen=True, slots=True)
class SystemScope:
    """Every row of the directory. ``reason`` is a constant text, never empty; it is logged and counted."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError("a system scope needs a reason")


@dataclass(frozen=True, slots=True)
class Space:
    """One organization's data in a cell, under the placement's ``epoch``.

    ``name`` is the physical name when dedicated, None when pooled. As the scope of ``run`` it opens the tables with
    ``home=Home.SPACE`` of that organization and no others.
    """

    org_id: str
    kind: PlacementKind
    name: str | None
    epoch: int


Scope = OrgScope | SystemScope | Space


# --- the verbs ------------------------------------------------------------------------------------------------------


class Transaction(Protocol):
    """The verbs of one unit of work. See the promises above for what they share.

    ``where`` maps columns to the value they must equal. Keys are positional, in the order of ``table.key``.
    """

    async def add(self, table: Table[Row], row: Row) -> None:
        """Insert. Raises ``AlreadyExists``, ``OutOfScope``, ``InvalidValue``."""

    async def add_many(self, table: Table[Row], rows: Sequence[Row]) -> None:
        """``add`` for any number of rows of one table, in as few round trips as the engine can. Raises as ``add``."""

    async def add_all(self, rows: Sequence[tuple[Table[Any], Sequence[Any]]]) -> None:
        """``add_many`` for several tables, each named once, in as few round trips as the engine can. Raises as ``add``.

        Which of several errors is raised is not promised, as the rows may be added in any order.
        """

    async def get(self, table: Table[Row], *key: Any) -> Row:
        """The row of this key. Raises ``NotFound``."""

    async def find(self, table: Table[Row], **where: Any) -> Row | None:
        """The row of this key or unique constraint, or None. ``where`` must name all columns of one of them."""

    async def find_many(
        self,
        table: Table[Row],
        keys: Sequence[tuple[Any, ...]],
        *,
        unique: str | None = None,
        max_weight: int | None = None,
    ) -> list[Row]:
        """The rows of these keys that exist, in no promised order, in one round trip; at most 1,000 keys.

        ``unique`` names the unique constraint whose values ``keys`` are; None stands for the table's key. Others may be
        left out once those that were read weigh ``max_weight`` (``Table.weight``) or more.
        """

    async def replace(self, table: Table[Row], row: Row) -> Row:
        """Write all columns of an existing row and return it as stored.

        Where the table is versioned, ``row.version`` must be the stored one (else ``StaleRow``) and the stored row
        gets the next. Raises ``NotFound``, ``StaleRow``, ``AlreadyExists``.
        """

    async def replace_many(self, table: Table[Row], rows: Sequence[Row]) -> list[Row]:
        """``replace`` for any number of different rows, in as few round trips as the engine can; as stored, in order.

        Raises as ``replace`` where it would for one of them.
        """

    async def remove(self, table: Table[Row], *key: Any) -> None:
        """Delete. Raises ``NotFound``."""

    async def remove_many(self, table: Table[Row], keys: Sequence[tuple[Any, ...]]) -> None:
        """``remove`` for any number of different keys, in as few round trips as the engine can.

        Raises ``NotFound`` where one of them is not there.
        """

    async def lock(self, table: Table[Row], *key: Any) -> Row:
        """``get``, and wait for or conflict with everyone else who locks or replaces the row."""

    async def take(self, table: Table[Row], **where: Any) -> Row | None:
        """Remove the row of this key or unique constraint and return it. At most one caller ever gets it."""

    async def claim(
        self,
        table: Table[Row],
        where: Mapping[str, Any],
        *,
        due: datetime,
        until: datetime,
        owner: str,
        limit: int,
    ) -> list[Row]:
        """Lease up to ``limit`` rows whose lease ended at or before ``due``: no two owners hold the same row.

        The rows come back as stored: with the new lease and, where versioned, the next version.
        """

    async def adjust(
        self,
        table: Table[Row],
        *key: Any,
        deltas: Mapping[str, int],
        where: Mapping[str, Any] | None = None,
        at_most: Mapping[str, int] | None = None,
    ) -> bool:
        """Add ``deltas`` to integer columns if the row exists, equals ``where`` and no result exceeds ``at_most``.

        One conditional write. Returns whether it was done; no match is not an error.
        """

    async def page(
        self,
        table: Table[Row],
        where: Mapping[str, Any] | None = None,
        *,
        order: Sequence[str] = (),
        after: Sequence[Any] | None = None,
        until: Any = None,
        limit: int,
        max_weight: int | None = None,
    ) -> list[Row]:
        """Up to ``limit`` rows equal to ``where`` in ``order``, beginning after the row of the order values ``after``.

        The list ends before the first row whose value in the first column of ``order`` is ``until`` or beyond it, and
        with the row by which its rows weigh ``max_weight`` (``Table.weight``) or more.

        ``order`` names columns, ``-`` first for descending; the key's columns are appended where missing (in the
        direction of the last named one), so the order is total. ``after`` holds one value for each column of that
        total order (``total_order``); None sorts first. ``until`` is one value, for ``order[0]`` or, without an order,
        for the first column of the key; None is no bound. A column that ``where`` or the scope fixes cannot be bounded:
        ``ValueError``.
        """

    async def aggregate(
        self,
        table: Table[Row],
        where: Mapping[str, Any] | None = None,
        *,
        group_by: Sequence[str] = (),
        sums: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """``count`` and the sums of integer columns, for each group: ``{"plan": "free", "count": 3, "bytes": 9}``."""


async def count_rows(tx: Transaction, table: Table[Any], where: Mapping[str, Any] | None = None) -> int:
    """How many rows there are: ``aggregate`` without groups, which always gives one."""
    (counted,) = await tx.aggregate(table, where)
    return int(counted["count"])


def total_order(table: Table[Any], order: Sequence[str]) -> tuple[str, ...]:
    """``order`` with the missing key columns appended: what ``page`` sorts by and ``after`` must match."""
    named = {column.lstrip("-") for column in order}
    sign = "-" if order and order[-1].startswith("-") else ""
    return (*order, *(sign + column for column in table.key if column not in named))


@dataclass(frozen=True, slots=True)
class Digest:
    """``count`` rows and the order-free hash (hex) of their canonical form."""

    count: int
    hash: str


@dataclass(frozen=True, slots=True)
class FoundSpace:
    """A space that is physically there. ``epochs`` are those its slots are kept under; ``org_id`` is None if empty."""

    org_id: str | None
    kind: PlacementKind
    name: str | None
    epochs: tuple[int, ...]


class Storage(Protocol):
    """One database server: the directory, a cell, or (as the first cell always is) both."""

    url: str
    """Where it is, without credentials."""

    async def migrate(self) -> int:
        """Bring the schema to this version's; returns its number. Promise 11."""

    async def pending(self) -> list[tuple[int, str]]:
        """The versions that ``migrate`` would apply, oldest first, and what each is about; changes nothing.

        Raises ``ConfigurationError`` where ``migrate`` would refuse the database.
        """

    async def check(self) -> None:
        """Raise ``SchemaOutdated``, ``SchemaTooNew`` or another ``ConfigurationError`` if it cannot be served.

        Opened for writing it must also take writes, which is found out without one: ``StorageReadOnly`` if it does not.
        """

    async def close(self) -> None:
        """Finish what was accepted and let go of the database."""

    async def run(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``work(tx, *args, **kwargs)`` as one transaction and return its result once it is durable.

        Work awaits nothing but its transaction's verbs.
        """

    async def read(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like ``run`` on one consistent snapshot, for work that only reads.

        A writing verb raises ``StorageReadOnly``.
        """

    async def scan(
        self,
        scope: Scope,
        work: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like ``read``, for work that reads many rows: it may take long and must not hold up point reads."""

    async def access(self, org_id: str, user_id: str, credential_id: str) -> Access:
        """The one hot read: everything a request must know about its caller, in one round trip, never cached.

        The credential is a session, or an API key where its id is one's (``API_KEY_ID``).
        """

    async def create_space(self, space: Space, *, slots: int = 1) -> None:
        """Make the space's tables (dedicated) and its open slots. Promise 9."""

    async def create_spaces(self, spaces: Sequence[Space]) -> None:
        """``create_space`` for many, of one slot each: all of them, or none where it raises.

        At most ``DEDICATED_AT_ONCE`` of them are dedicated.
        """

    async def rename_space(self, space: Space, name: str) -> None:
        """Give a dedicated space another physical name.

        Source there and target not: done. Target there and source not: it was done. Both or neither:
        ``SpaceMismatch``. Promise 9.
        """

    async def close_space(self, space: Space) -> None:
        """Close every slot of ``space.epoch``: then no writer of that epoch is left and none can come. Promise 9."""

    async def open_space(self, space: Space) -> None:
        """Open the slots of ``space.epoch``: reopen them, or carry the counters over from the closed slots of an
        earlier epoch and remove those. Promise 9."""

    async def drop_space(self, space: Space, *, batch: int = 1000) -> dict[str, int] | None:
        """Remove the space, in batches where it is pooled: rows removed by table, None once nothing was left.

        Call until it returns None. Promise 9.
        """

    async def spaces(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, FoundSpace]]:
        """The spaces that are physically there, in the order of an opaque mark; go on ``after`` the last one's.

        There are no more where there is none; a page may be shorter than ``limit``.
        """

    async def digest(self, scope: Scope, table: Table[Any]) -> Digest:
        """Promise 10, over the rows of ``table`` within ``scope``."""

    async def stats(self) -> dict[str, int | float | str]:
        """Facts for ``doctor`` and metrics: ``schema_version``, ``bytes``, ``dedicated_spaces``, ``server`` …"""

    async def examine(self, *, processes: int) -> list[Finding]:
        """What an operator should know about the server: version, rights, isolation, durability, clock, connections,
        placements. Looks, and changes nothing; the schema may be any, or none. ``processes`` is how many will have the
        database open."""

    async def backup(self, target: str) -> None:
        """Write a consistent copy of the whole database to a new file. Raises ``FileExists``, and
        ``ConfigurationError`` where it cannot be written or the server has a tool for it."""
