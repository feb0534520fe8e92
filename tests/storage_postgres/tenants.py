"""Fifty organizations whose every row names them, and what each may find of itself in the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orgstead.model import IdempotentResponse, PlacementKind, SlotState
from orgstead.storage import tables
from orgstead.storage.port import Home, Space, Storage, SystemScope, Table, Transaction
from tests.rows import SCOPED_TABLES, columns_of, sample, token

SYSTEM = SystemScope("isolation suite")
DEDICATED = 3
"""So many of the organizations have a schema of their own."""

DIRECTORY = tuple(table for table in SCOPED_TABLES if table.home is Home.DIRECTORY)
COMING_AND_GOING: tuple[Table[Any], ...] = (tables.events, tables.idempotent_responses, tables.records)
"""In every other table an organization has one row for good."""

_CANARY = re.compile(r"canary-(\w+?)\b")
_NOBODY = "nobody"


@dataclass
class Tenant:
    """One organization, and what was acknowledged to it.

    ``rows`` says of each (table, id) that comes and goes whether it is there: None where nobody could tell.
    ``attempts`` is how often at least, and at most, the counter of its operation was raised.
    """

    number: int
    name: str = ""
    operation: str = ""
    user: str = ""
    session: str = ""
    rows: dict[tuple[str, str], bool | None] = field(default_factory=dict)
    attempts: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        self.name = f"{self.number:02d}"
        self.operation, self.user, self.session = (self.made_up(prefix) for prefix in ("op", "usr", "ses"))

    @property
    def org_id(self) -> str:
        return f"org_canary-{self.name}"

    @property
    def canary(self) -> str:
        return f"canary-{self.name}"

    @property
    def space(self) -> Space:
        if self.number < DEDICATED:
            return Space(self.org_id, PlacementKind.DEDICATED, f"org_{self.name}", 1)
        return Space(self.org_id, PlacementKind.POOLED, None, 1)

    def made_up(self, prefix: str) -> str:
        """A new id that names the organization."""
        return f"{token(prefix)} {self.canary}"

    def row(self, table: Table[Any], **given: Any) -> Any:
        """A new row of the organization, which names it in every text."""
        texts: dict[str, Any] = {
            column: self.made_up(column)
            for column in columns_of(table, str)
            if column not in (table.scope, "org_id") and column not in given
        }
        json: dict[str, Any] = {c: {"of": self.canary} for c in ("data", "details") if c in table.columns}
        return sample(table, self.org_id, **(texts | json | given))

    def first_rows(self) -> Iterator[tuple[Table[Any], Any]]:
        """The row that the organization has in each table of the directory for good."""
        for table in DIRECTORY:
            given: dict[str, Any] = {}
            if table is tables.operations:
                given = {"id": self.operation, "attempts": 0}
            elif table is tables.memberships:
                given = {"user_id": self.user}
            elif table in (tables.idempotent_responses, tables.events):
                given = {"id": self.made_up("first")}
                self.rows[table.name, given["id"]] = True
            yield table, self.row(table, **given)
        yield tables.users, self.row(tables.users, id=self.user)
        yield tables.sessions, self.row(tables.sessions, id=self.session)

    def first_rows_of_its_space(self) -> Iterator[tuple[Table[Any], Any]]:
        """The row that the organization has in each table of its space for good, where a space does not begin with one.

        Records come and go. A table that is declared tomorrow is among these without a line here.
        """
        for table in tables.SPACE:
            if table not in (tables.slots, tables.records):
                yield table, self.row(table)


def strangers(who: Tenant | None, rows: Iterable[Any]) -> Iterator[str]:
    """The rows that name anyone but ``who``. Without anybody there is nothing that may be seen."""
    own = {who.name} if who else set()
    for row in rows:
        text = repr(row)
        named = set(_CANARY.findall(text))
        if named != own:
            yield f"{who.name if who else 'nobody'} sees {sorted(named) or text[:80]}"


def anonymous_response() -> IdempotentResponse:
    """What somebody without an organization was answered: its organization is the empty text."""
    return sample(tables.idempotent_responses, "", body=f"canary-{_NOBODY}")


async def found(storage: Storage, tenants: list[Tenant]) -> dict[Table[Any], list[Any]]:
    """Every row that there is, with the right to see all of them; spaces among them."""
    seen = {table: await storage.scan(SYSTEM, _all, table) for table in DIRECTORY}
    for table in tables.SPACE:
        seen[table] = [row for who in tenants for row in await storage.scan(who.space, _all, table)]
    return seen


async def _all(tx: Transaction, table: Table[Any]) -> list[Any]:
    return await tx.page(table, limit=100_000)


def differences(tenants: list[Tenant], seen: dict[Table[Any], list[Any]]) -> Iterator[str]:
    """In what the database does not agree with what was acknowledged: rows too many, rows lost, rows of two owners."""
    of = {who.org_id: who for who in tenants}
    for table, rows in seen.items():
        for row in rows:
            org_id = getattr(row, table.scope or "")
            if org_id:
                yield from (f"in the end {problem} in {table.name}" for problem in strangers(of[org_id], [row]))
        per_tenant = Counter(getattr(row, table.scope or "") for row in rows)
        if table not in COMING_AND_GOING and any(per_tenant[org_id] != 1 for org_id in of):
            yield f"{table.name} has {sorted(set(per_tenant.values()))} rows an organization, not one"
    for who in tenants:
        yield from _of_one(who, seen)


def _of_one(who: Tenant, seen: dict[Table[Any], list[Any]]) -> Iterator[str]:
    for table in COMING_AND_GOING:
        there = {row.id for row in seen[table] if getattr(row, table.scope or "") == who.org_id}
        told = {key: state for (name, key), state in who.rows.items() if name == table.name}
        if lost := [key for key, state in told.items() if state is True and key not in there]:
            yield f"{who.name} lost {len(lost)} of its {table.name}"
        if undead := [key for key in there if told.get(key, False) is False]:
            yield f"{who.name} has {len(undead)} {table.name} that it never had, or no longer"
    (operation,) = [row for row in seen[tables.operations] if row.id == who.operation] or [None]
    least, most = who.attempts
    if operation is None or not least <= operation.attempts <= most:
        yield f"the counter of {who.name} is {operation and operation.attempts}, not {least} to {most}"
    records = [row for row in seen[tables.records] if row.org_id == who.org_id]
    if [(slot.records, slot.state) for slot in seen[tables.slots] if slot.org_id == who.org_id] != [
        (len(records), SlotState.OPEN)
    ]:
        yield f"the slot of {who.name} does not count its records"
