"""No use case relies on there being one writer: what a transaction changes, it holds.

A row that was only read may be another one by the time it is written, on engines where transactions run side by side.
So a transaction locks what it is going to write, or the organization that all writers of the row lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from orgstead import creation, identity, importing, members, organizations, purging, renaming, sessions, worker
from orgstead.app import App
from orgstead.audit import Actor
from orgstead.creation import NewOrganization
from orgstead.errors import NameTaken
from orgstead.importing import Line, Outcome, Result
from orgstead.model import Organization, OrganizationStatus, Role, User
from orgstead.renaming import NewName
from orgstead.storage import tables
from orgstead.storage.port import Scope, Storage, Table, Transaction
from tests import apps

pytestmark = pytest.mark.anyio

HELD_BY_ORGANIZATION = (tables.placements, tables.slugs, tables.memberships, tables.audit_entries)
"""Whoever changes a row of these tables holds its organization."""

COMPARED = (tables.operations, tables.users)
"""Here the version that is compared decides on purpose: a stale one means that somebody else took over."""


class WatchedTransaction:
    """A transaction that notes which rows it holds, and which it changed without."""

    def __init__(self, tx: Transaction, unheld: list[str]) -> None:
        self._tx = tx
        self._unheld = unheld
        self._held: set[tuple[str, tuple[Any, ...]]] = set()

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._tx, verb)

    async def add(self, table: Table[Any], row: Any) -> None:
        self._hold(table, row)
        await self._tx.add(table, row)

    async def lock(self, table: Table[Any], *key: Any) -> Any:
        row = await self._tx.lock(table, *key)
        self._hold(table, row)
        return row

    async def claim(self, table: Table[Any], *args: Any, **kwargs: Any) -> list[Any]:
        rows = await self._tx.claim(table, *args, **kwargs)
        for row in rows:
            self._hold(table, row)
        return rows

    async def replace(self, table: Table[Any], row: Any) -> Any:
        self._judge(table, _key(table, row), getattr(row, "org_id", None))
        return await self._tx.replace(table, row)

    async def replace_many(self, table: Table[Any], rows: Sequence[Any]) -> list[Any]:
        if not table.versioned:
            self._unheld.append(table.name)  # nothing would be compared
        return await self._tx.replace_many(table, rows)

    async def remove(self, table: Table[Any], *key: Any) -> None:
        self._judge(table, key, key[0])
        await self._tx.remove(table, *key)

    def _hold(self, table: Table[Any], row: Any) -> None:
        self._held.add((table.name, _key(table, row)))

    def _judge(self, table: Table[Any], key: tuple[Any, ...], org_id: str | None) -> None:
        held = (table.name, key) in self._held
        by_organization = table in HELD_BY_ORGANIZATION and ("organizations", (org_id,)) in self._held
        if not held and not by_organization and table not in COMPARED:
            self._unheld.append(table.name)


def _key(table: Table[Any], row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in table.key)


class LateTransaction:
    """A transaction that looked for a row of each of ``blind``'s tables before somebody else wrote it."""

    def __init__(self, tx: Transaction, blind: list[Table[Any]]) -> None:
        self._tx = tx
        self._blind = blind

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._tx, verb)

    async def find(self, table: Table[Any], **where: Any) -> Any:
        if table in self._blind:
            self._blind.remove(table)
            return None
        return await self._tx.find(table, **where)

    async def find_many(self, table: Table[Any], keys: Sequence[tuple[Any, ...]], **options: Any) -> list[Any]:
        if table in self._blind:
            self._blind.remove(table)
            return []
        return await self._tx.find_many(table, keys, **options)


class WrappedStorage:
    """A storage whose writing transactions are wrapped."""

    def __init__(self, storage: Storage, wrap: Callable[[Transaction], Any]) -> None:
        self._storage = storage
        self._wrap = wrap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def run(self, scope: Scope, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        async def wrapped(tx: Transaction) -> Any:
            return await work(self._wrap(tx), *args, **kwargs)

        return await self._storage.run(scope, wrapped)


def late(app: App, *blind: Table[Any]) -> list[Table[Any]]:
    """From now on the App looks once in each of these tables before others write; returns those it has not yet."""
    left = list(blind)
    app.storage = WrappedStorage(app.storage, lambda tx: LateTransaction(tx, left))
    return left


async def signed_up(app: App, name: str) -> tuple[Organization, User]:
    account = await identity.account_for_signup(app, "ada@example.com", "a long walk home", address=None)
    new = NewOrganization(name=name, plan="enterprise", owner=account.user, owner_is_new=account.is_new)
    return (await creation.create(app, new, Actor(account.user.id))).organization, account.user


async def test_whatever_is_changed_is_held(app: App, clock: apps.Clock) -> None:
    unheld: list[str] = []
    app.storage = WrappedStorage(app.storage, lambda tx: WatchedTransaction(tx, unheld))
    acme, ada = await signed_up(app, "Acme")
    actor, org_id = Actor(ada.id), acme.id
    granted = await sessions.login(app, "ada@example.com", "a long walk home")
    granted = await sessions.refresh(app, granted.refresh_token)
    await identity.change_account(
        app, ada.id, granted.session_id, org_id, actor=actor, email="ada@example.org", password="another walk"
    )
    await renaming.rename(app, org_id, NewName(name="Acme Labs"), actor)
    await renaming.rename(app, org_id, NewName(name="Acme"), actor)
    bob = apps.person(app)
    await app.storage.run(apps.SCOPE, _joined, org_id, bob, app)
    await app.storage.run(apps.SCOPE, members.change_role, org_id, bob.id, Role.OWNER, actor, app.clock())
    await app.storage.run(apps.SCOPE, members.remove, org_id, bob.id, actor, app.clock())
    grace, by, at = timedelta(days=30), organizations.OWNER, app.clock()
    await app.storage.run(apps.SCOPE, organizations.update, org_id, name="ACME", actor=actor, at=at)
    await app.storage.run(apps.SCOPE, organizations.suspend, org_id, by, actor=actor, at=at)
    await app.storage.run(apps.SCOPE, organizations.reactivate, org_id, by, actor=actor, at=at)
    await app.storage.run(apps.SCOPE, organizations.close, org_id, grace, actor=actor, at=at)
    await app.storage.run(apps.SCOPE, organizations.restore, org_id, actor=actor, at=at)
    await sessions.logout(app, granted.session_id, actor=actor)
    await app.storage.run(apps.SCOPE, organizations.close, org_id, grace, actor=actor, at=at)
    await purging.purge(app, org_id, actor)
    clock.pass_(timedelta(days=31))
    await worker.expire(app)
    again, _ = await signed_up(app, "Acme")  # takes over the quarantined slug
    assert again.status is OrganizationStatus.ACTIVE
    assert unheld == []


async def _joined(tx: Transaction, org_id: str, person: User, app: App) -> None:
    await tx.add(tables.users, person)
    await members.add(tx, app.settings, org_id, person.id, Role.MEMBER, apps.TESTER, app.clock())


# --- lost races -------------------------------------------------------------------------------------------------------


async def test_a_name_that_somebody_else_just_took_is_taken(app: App) -> None:
    await apps.created(app, "Acme")
    left = late(app, tables.slugs)
    with pytest.raises(NameTaken):
        await apps.created(app, "Acme")
    assert not left


async def test_a_cell_that_somebody_else_just_counted_in_is_counted_in(app: App) -> None:
    await apps.created(app, "Acme", plan="enterprise")
    left = late(app, tables.cells)
    await apps.created(app, "Globex", plan="enterprise")
    assert not left
    assert [cell.dedicated for cell in await apps.rows(app, tables.cells)] == [2]


async def test_a_quarantined_slug_that_somebody_else_just_took_over_is_taken(app: App, clock: apps.Clock) -> None:
    await apps.purged(app, (await apps.created(app, "Acme")).organization.id)
    (before,) = await apps.rows(app, tables.slugs)
    clock.pass_(timedelta(days=31))
    await apps.created(app, "Acme")

    class Late(LateTransaction):
        async def find(self, table: Table[Any], **where: Any) -> Any:
            return before if table is tables.slugs else await super().find(table, **where)

    app.storage = WrappedStorage(app.storage, lambda tx: Late(tx, []))
    with pytest.raises(NameTaken):
        await apps.created(app, "Acme")


@pytest.mark.parametrize(
    "table", [tables.slugs, tables.users, tables.organizations, tables.cells], ids=lambda t: t.name
)
async def test_an_import_that_others_overtake_loses_no_line(app: App, table: Table[Any]) -> None:
    fields = {"name": "Acme", "plan": "enterprise", "owner_email": "ada@example.com"}
    await _imported(app, {**fields, "external_id": "x-1"})
    left = late(app, table)
    again = "x-1" if table is tables.organizations else "x-2"
    outcome = await _imported(app, {**fields, "external_id": again})
    assert not left
    assert outcome.result is (Result.EXISTS if again == "x-1" else Result.RENAMED)


async def _imported(app: App, fields: dict[str, str]) -> Outcome:
    lines = [Line(2, fields)]
    ((outcome,),) = [batch async for batch in importing.import_organizations(app, lines, apps.TESTER)]
    return outcome
