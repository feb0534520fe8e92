"""Requests of fifty organizations over two connections, many of them by code that forgot whose it is.

The verbs carry the organization in every statement, so that they alone would hide a database which protects nothing.
Hence the *forgetful* units: they take the scope's own condition away (``org_id`` of the transaction), or run plain
statements on its connection, and row-level security alone must hold them. What no transaction was begun for must see
nothing at all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from orgstead.errors import AlreadyExists, NotFound, StorageError
from orgstead.storage import tables
from orgstead.storage.port import OrgScope, Scope, Storage, Table, Transaction
from orgstead.storage.postgres.engine import PostgresStorage
from orgstead.storage.postgres.transaction import PostgresTransaction
from tests.rows import MORNING, key_of
from tests.storage_postgres.interruption import Interruption, Moment
from tests.storage_postgres.tenants import (
    DEDICATED,
    DIRECTORY,
    SYSTEM,
    Tenant,
    anonymous_response,
    differences,
    found,
    strangers,
)

TENANTS = 50
CONNECTIONS = 2
URL_PARAMETERS = f"?pool={CONNECTIONS}&deadline_ms=60000&statement_timeout_ms=60000"
"""However slow the machine is, nobody is turned away for having waited."""

_CANCELLED = 0.08
"""The share of the requests that are cancelled."""

_LOOKED_AT = tuple(f'"orgstead"."{table.name}"' for table in tables.TABLES) + tuple(
    f'"org_{number:02d}"."{table.name}"' for number in range(DEDICATED) for table in tables.SPACE
)


_MET = " met "


def reached(problems: list[str]) -> list[str]:
    """Those of the problems that tell of rows seen or changed, not merely of errors."""
    return [problem for problem in problems if _MET not in problem]


class Oops(Exception):
    """Work that fails for a reason of its own."""


@dataclass
class Effect:
    """What a request does to its organization if it is done: rows that come or go, and raises of the counter."""

    rows: dict[tuple[str, str], bool] = field(default_factory=dict)
    raises: int = 0


Request = tuple[Effect, Awaitable[Any], tuple[type[BaseException], ...]]
"""What it does, the work, and the errors of which it must end with one unless it is cancelled."""


def forgetful(tx: Transaction) -> PostgresTransaction:
    """The transaction without its own idea of whose it is: no statement carries the organization any more."""
    verbs = cast(PostgresTransaction, tx)
    verbs.org_id = None
    return verbs


class Client:
    """One organization's requests, one after the other."""

    def __init__(self, storage: PostgresStorage, who: Tenant, others: list[Tenant], seed: int) -> None:
        self.storage = storage
        self.who = who
        self.others = [other for other in others if other is not who]
        self.chance = random.Random(f"{seed} {who.number}")
        self.problems: list[str] = []
        self.scope = OrgScope(who.org_id)

    async def request(self) -> None:
        """One request of any kind, cancelled somewhere or not; what it should not have seen or done is a problem."""
        effect, work, expected = self.chance.choice(KINDS)(self)
        plan = None
        if self.chance.random() < _CANCELLED:
            plan = Interruption(self.chance.randint(1, 6), self.chance.choice(list(Moment)))
        error = await self._outcome(work, plan)
        if error is None:
            if expected:
                self.problems.append(f"{self.who.name} was let do what it must not: {expected[0].__name__}")
            self._note(effect, certain=True)
        elif isinstance(error, asyncio.CancelledError):
            self._note(effect, certain=False)
        elif not isinstance(error, expected):
            self.problems.append(f"{self.who.name}{_MET}{error!r} of {error.__cause__!r}")

    @staticmethod
    async def _outcome(work: Awaitable[Any], plan: Interruption | None) -> BaseException | None:
        async def whole() -> None:
            if plan is None:
                await work
                return
            with plan.planned():
                await work

        (outcome,) = await asyncio.gather(asyncio.create_task(whole()), return_exceptions=True)
        return outcome

    def _note(self, effect: Effect, *, certain: bool) -> None:
        for key, there in effect.rows.items():
            known = self.who.rows.get(key, False)
            self.who.rows[key] = there if certain and known is not None else None
        self.who.attempts[0] += effect.raises if certain else 0
        self.who.attempts[1] += effect.raises

    def saw(self, rows: Iterable[Any], who: Tenant | None) -> None:
        self.problems += strangers(who, rows)

    # --- sound requests -------------------------------------------------------------------------------------------

    def writes(self) -> Request:
        event = self.who.row(tables.events)
        effect = Effect({("events", event.id): True}, raises=1)
        return effect, self.storage.run(self.scope, self._write, event), ()

    async def _write(self, tx: Transaction, event: Any) -> None:
        await tx.add(tables.events, event)
        await tx.adjust(tables.operations, *self._operation, deltas={"attempts": 1})

    @property
    def _operation(self) -> tuple[str, str]:
        return self.who.org_id, self.who.operation

    def writes_and_raises(self) -> Request:
        async def work(tx: Transaction, event: Any) -> None:
            await self._write(tx, event)
            raise Oops

        return Effect(), self.storage.run(self.scope, work, self.who.row(tables.events)), (Oops,)

    def writes_twice(self) -> Request:
        async def work(tx: Transaction, event: Any) -> None:
            await self._write(tx, event)
            await tx.add(tables.operations, self.who.row(tables.operations, id=self.who.operation))

        return Effect(), self.storage.run(self.scope, work, self.who.row(tables.events)), (AlreadyExists,)

    def takes_too_long(self) -> Request:
        async def work(tx: Transaction, event: Any) -> None:
            await self._write(tx, event)
            connection = forgetful(tx)._connection
            await connection.execute("SET LOCAL statement_timeout = 1")
            await connection.fetch("SELECT pg_sleep(5)")

        return Effect(), self.storage.run(self.scope, work, self.who.row(tables.events)), (StorageError,)

    def reads(self) -> Request:
        async def work(tx: Transaction) -> None:
            table = self.chance.choice(DIRECTORY)
            self.saw(await tx.page(table, limit=1000), self.who)
            stranger = self.chance.choice(self.others)
            if await tx.find(tables.placements, org_id=stranger.org_id) is not None:
                self.problems.append(f"{self.who.name} finds {stranger.name}")

        return Effect(), self.storage.read(self.scope, work), ()

    def asks_for_access(self) -> Request:
        async def work() -> None:
            seen = await self.storage.access(self.who.org_id, self.who.user, self.who.session)
            self.saw([seen.organization, seen.placement, seen.membership, seen.session], self.who)

        return Effect(), work(), ()

    def stores(self) -> Request:
        record = self.who.row(tables.records)
        space = self.who.space

        async def work(tx: Transaction) -> None:
            assert await tx.adjust(tables.slots, space.org_id, space.epoch, 0, deltas={"records": 1})
            await tx.add(tables.records, record)

        return Effect({("records", record.id): True}), self.storage.run(space, work), ()

    def answers(self) -> Request:
        response = self.who.row(tables.idempotent_responses)
        effect = Effect({("idempotent_responses", response.id): True})
        return effect, self.storage.run(self.scope, _add, tables.idempotent_responses, response), ()

    def answers_somebody(self) -> Request:
        response = anonymous_response()
        return Effect(), self.storage.run(SYSTEM, _add, tables.idempotent_responses, response), ()

    # --- forgetful ones -------------------------------------------------------------------------------------------

    def forgets_whose_rows_it_reads(self) -> Request:
        async def work(tx: Transaction) -> None:
            verbs = forgetful(tx)
            stranger = self.chance.choice(self.others)
            for table in self.chance.sample(DIRECTORY, 3):
                self.saw(await verbs.page(table, limit=1000), self.who)
                self.saw(await verbs.aggregate(table, group_by=(table.scope or "",)), self.who)
            keys = [(who.org_id,) for who in self.others]
            self.saw(await verbs.find_many(tables.audit_heads, keys), self.who)
            if await verbs.find(tables.memberships, org_id=stranger.org_id, user_id=stranger.user) is not None:
                self.problems.append(f"{self.who.name} finds the member of {stranger.name}")
            for table in (tables.slugs, tables.users, tables.sessions, tables.cells):
                self.saw(await verbs.page(table, limit=10), None)

        return Effect(), self.storage.read(self.scope, work), ()

    def forgets_whose_space_it_reads(self) -> Request:
        async def work(tx: Transaction) -> None:
            verbs = forgetful(tx)
            for table in tables.SPACE:
                self.saw(await verbs.page(table, limit=1000), self.who)

        return Effect(), self.storage.read(self.who.space, work), ()

    def reads_with_plain_statements(self) -> Request:
        target = self.chance.choice(_LOOKED_AT)

        async def work(tx: Transaction) -> None:
            rows = await forgetful(tx)._connection.fetch(f"SELECT * FROM {target}")
            self.saw(map(tuple, rows), self.who)

        scope: Scope = self.chance.choice((self.scope, self.who.space))
        return Effect(), self.storage.read(scope, work), ()

    def writes_with_plain_statements(self) -> Request:
        async def work(tx: Transaction) -> None:
            connection = forgetful(tx)._connection
            status = await connection.execute('UPDATE "orgstead"."operations" SET attempts = attempts + 1')
            rows = await connection.fetch('DELETE FROM "orgstead"."idempotent_responses" RETURNING *')
            self.saw(map(tuple, rows), self.who)
            if status != "UPDATE 1":
                self.problems.append(f"{self.who.name} changes the operations of others: {status}")

        gone = {key: False for key in self.who.rows if key[0] == "idempotent_responses"}
        return Effect(gone, raises=1), self.storage.run(self.scope, work), ()

    def writes_to_spaces_with_plain_statements(self) -> Request:
        target = self.chance.choice([target for target in _LOOKED_AT if "slots" in target])

        async def work(tx: Transaction) -> None:
            await forgetful(tx)._connection.execute(f"UPDATE {target} SET records = records + 1000000")
            raise Oops  # its own counters are not to be wrong

        async def kept(tx: Transaction) -> None:
            rows = await forgetful(tx)._connection.fetch(f"UPDATE {target} SET tracked = 1 RETURNING org_id")
            self.saw(map(tuple, rows), self.who)

        if self.chance.random() < 0.5:
            return Effect(), self.storage.run(self.who.space, work), (Oops,)
        return Effect(), self.storage.run(self.who.space, kept), ()

    def adds_a_row_of_another(self) -> Request:
        stranger = self.chance.choice(self.others)
        table = self.chance.choice([*DIRECTORY, tables.users, tables.sessions, tables.slugs])
        row = stranger.row(table)

        async def work(tx: Transaction) -> None:
            await forgetful(tx).add(table, row)

        expected = (StorageError, AlreadyExists)
        return Effect(), self.storage.run(self.scope, work), expected

    def gives_a_row_to_another(self) -> Request:
        stranger = self.chance.choice(self.others)

        async def work(tx: Transaction) -> None:
            statement = 'UPDATE "orgstead"."events" SET org_id = $1'
            await forgetful(tx)._connection.execute(statement, stranger.org_id)

        return Effect(), self.storage.run(self.scope, work), (StorageError,)

    def changes_a_row_of_another(self) -> Request:
        stranger = self.chance.choice(self.others)
        own = stranger.row(tables.memberships, user_id=stranger.user)
        verb = self.chance.choice(("replace", "remove", "lock"))

        async def work(tx: Transaction) -> None:
            given = (own,) if verb == "replace" else key_of(tables.memberships, own)
            await getattr(forgetful(tx), verb)(tables.memberships, *given)

        return Effect(), self.storage.run(self.scope, work), (NotFound,)

    def reaches_for_rows_of_another(self) -> Request:
        stranger = self.chance.choice(self.others)

        async def work(tx: Transaction) -> None:
            verbs = forgetful(tx)
            operation = (stranger.org_id, stranger.operation)
            lease: dict[str, Any] = {
                "due": MORNING + timedelta(days=9999),
                "until": MORNING,
                "owner": self.who.made_up("owner"),
            }
            adjusted = await verbs.adjust(tables.operations, *operation, deltas={"attempts": 1})
            taken = await verbs.take(tables.memberships, org_id=stranger.org_id, user_id=stranger.user)
            self.saw(await verbs.claim(tables.operations, {}, **lease, limit=1000), self.who)
            if adjusted or taken:
                self.problems.append(f"{self.who.name} reaches rows of {stranger.name}")

        return Effect(), self.storage.run(self.scope, work), ()

    # --- without a scope ------------------------------------------------------------------------------------------

    def reads_without_a_scope(self) -> Request:
        async def ask(connection: Any) -> None:
            for target in self.chance.sample(_LOOKED_AT, 4):
                self.saw(map(tuple, await connection.fetch(f"SELECT * FROM {target}")), None)

        return Effect(), self.storage._outside(ask), ()

    def writes_without_a_scope(self) -> Request:
        statement = (
            'INSERT INTO "orgstead"."events" (org_id, id, type, data, created_at)'
            " VALUES ($1, gen_random_uuid()::text, '', '{}', 0)"
        )
        org_id = self.chance.choice(("", self.chance.choice(self.others).org_id))
        return (
            Effect(),
            self.storage._outside(lambda connection: connection.execute(statement, org_id)),
            (StorageError,),
        )


async def _add(tx: Transaction, table: Table[Any], row: Any) -> None:
    await tx.add(table, row)


async def _add_all(tx: Transaction, rows: list[tuple[Table[Any], Any]]) -> None:
    for table, row in rows:
        await tx.add(table, row)


KINDS: tuple[Callable[[Client], Request], ...] = (
    Client.writes,
    Client.writes,
    Client.writes_and_raises,
    Client.writes_twice,
    Client.takes_too_long,
    Client.reads,
    Client.asks_for_access,
    Client.stores,
    Client.stores,
    Client.answers,
    Client.answers_somebody,
    Client.forgets_whose_rows_it_reads,
    Client.forgets_whose_space_it_reads,
    Client.reads_with_plain_statements,
    Client.writes_with_plain_statements,
    Client.writes_to_spaces_with_plain_statements,
    Client.adds_a_row_of_another,
    Client.gives_a_row_to_another,
    Client.changes_a_row_of_another,
    Client.reaches_for_rows_of_another,
    Client.reads_without_a_scope,
    Client.writes_without_a_scope,
)
"""Half of them are forgetful."""


async def populated(storage: Storage) -> list[Tenant]:
    """The organizations with their first rows and spaces, in a database that has none."""
    tenants = [Tenant(number) for number in range(TENANTS)]
    rows: dict[Table[Any], list[Any]] = {tables.idempotent_responses: [anonymous_response()]}
    for who in tenants:
        for table, row in who.first_rows():
            rows.setdefault(table, []).append(row)
    await storage.create_spaces([who.space for who in tenants])

    async def fill(tx: Transaction) -> None:
        for table, given in rows.items():
            await tx.add_many(table, given)

    await storage.run(SYSTEM, fill)
    for who in tenants:
        await storage.run(who.space, _add_all, list(who.first_rows_of_its_space()))
    return tenants


async def violations(storage: Storage, tenants: list[Tenant], *, requests: int, seed: int) -> list[str]:
    """What was seen or done beyond an organization while all of them worked at once; it ends with the first of it."""
    assert isinstance(storage, PostgresStorage)
    clients = [Client(storage, who, tenants, seed) for who in tenants]
    left = requests

    async def work(client: Client) -> None:
        nonlocal left
        while left > 0 and not any(each.problems for each in clients):
            left -= 1
            await client.request()

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(work(client))
    problems = list(dict.fromkeys(problem for client in clients for problem in client.problems))
    return problems or list(differences(tenants, await found(storage, tenants)))
