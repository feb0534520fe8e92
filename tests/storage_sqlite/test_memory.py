"""What the hot read found is kept: no statement is asked twice for it, and never is it older than a commit."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random, random

import pytest

from orgstead.errors import OutcomeUnknown
from orgstead.model import Role
from orgstead.storage.port import OrgScope, Transaction
from orgstead.storage.sqlite import access, changes, memory
from orgstead.storage.sqlite.changes import Changes
from orgstead.storage.sqlite.engine import SqliteStorage
from orgstead.storage.tables import memberships, organizations, sessions
from tests.contract.test_access import Caller
from tests.rows import sample
from tests.storage_sqlite.work import SYSTEM, FailingCommit, add, ids, stored, writer_of

pytestmark = pytest.mark.anyio


@contextmanager
def reads(storage: SqliteStorage) -> Iterator[list[str]]:
    """The SELECT statements that this thread's connection runs within the block."""
    found: list[str] = []
    connection = storage._readers.connection()

    def note(text: str) -> None:
        if text.startswith("SELECT"):
            found.append(text)

    connection.set_trace_callback(note)
    yield found
    connection.set_trace_callback(None)


async def entered(storage: SqliteStorage, count: int = 1) -> list[Caller]:
    """Callers who are there and known."""
    callers = [Caller() for _ in range(count)]
    for caller in callers:
        await storage.run(SYSTEM, caller.enter)
        assert await storage.access(*caller.key) == caller.access
    await asyncio.sleep(0)
    return callers


async def demoted(tx: Transaction, caller: Caller) -> None:
    await tx.replace(memberships, replace(caller.membership, role=Role.VIEWER))


async def role_of(storage: SqliteStorage, caller: Caller) -> Role:
    found = await storage.access(*caller.key)
    assert found.membership
    return found.membership.role


async def test_who_was_found_is_not_read_again(storage: SqliteStorage) -> None:
    callers = await entered(storage, 5)
    with reads(storage) as statements:
        for _ in range(3):
            for caller in callers:
                assert await storage.access(*caller.key) == caller.access
            await asyncio.sleep(0)
    assert statements == []


async def test_what_concerns_others_is_no_reason_to_read_again(storage: SqliteStorage) -> None:
    """Not the changes of another organization's rows, not new rows, nor any of a table that says nothing of callers."""
    caller, other = await entered(storage, 2)
    await storage.run(OrgScope(other.key[0]), demoted, other)
    await storage.run(SYSTEM, Caller().enter)
    await storage.run(SYSTEM, add, "evt_1")

    async def logged_in(tx: Transaction) -> None:
        await tx.add(sessions, sample(sessions, caller.key[0], user_id=caller.user.id))

    await storage.run(SYSTEM, logged_in)
    with reads(storage) as statements:
        assert await storage.access(*caller.key) == caller.access
        assert statements == []
        assert await role_of(storage, other) is Role.VIEWER
        assert len(statements) == 1


async def test_who_is_not_there_is_looked_for_each_time(storage: SqliteStorage) -> None:
    (caller,) = await entered(storage)
    with reads(storage) as statements:
        for _ in range(3):
            assert (await storage.access(caller.key[0], caller.key[1], "ses_none")).session is None
    assert len(statements) == 3


@pytest.mark.parametrize("before", ["nothing", "what changes nothing", "a change"])
@pytest.mark.parametrize("after", ["nothing", "what changes nothing", "a change"])
async def test_a_change_that_another_program_makes_is_seen(
    storage: SqliteStorage, path: Path, before: str, after: str
) -> None:
    """Nobody should, beside the lock; whoever does all the same must not leave a revoked session valid.

    It is taken for ours only after a change of ours that nobody has looked at, and until the next transaction.
    """
    (caller,) = await entered(storage)

    async def meanwhile(what: str) -> None:
        if what != "nothing":
            await storage.run(SYSTEM, *((add, f"evt_{random()}") if what == "a change" else (ids,)))

    await meanwhile(before)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memberships SET role = 'viewer' WHERE org_id = ?", (caller.key[0],))
    await meanwhile(after)
    if (before, after) != ("a change", "nothing"):
        assert await role_of(storage, caller) is Role.VIEWER
    await meanwhile("what changes nothing")
    assert await role_of(storage, caller) is Role.VIEWER


async def test_a_commit_of_ours_is_never_taken_for_that_of_another(storage: SqliteStorage) -> None:
    """Readers see a commit before the writer has come to count it, also where it takes several turns of theirs."""
    (caller,) = await entered(storage)
    noticed, connection = Changes(), storage._readers.connection()
    kept = memory.Memory(noticed)
    kept.look(connection, 0)
    assert kept.access(connection, caller.key) == caller.access

    async def looked(commits: int) -> int:
        with reads(storage) as statements:
            kept.look(connection, commits)
            kept.access(connection, caller.key)
        return len(statements)

    noticed.commit(1)
    assert await looked(0) == 0  # begun, not there yet
    await storage.run(SYSTEM, add, "evt_1")
    assert await looked(0) == 0  # there, not counted yet
    assert await looked(1) == 0
    await storage.run(SYSTEM, add, "evt_2")
    assert await looked(1) == 1  # that one was not begun here
    noticed.note(caller.key[0])
    noticed.commit(2)
    assert await looked(1) == 1  # begun, and not known to be there: what is found now may still be what was
    assert await looked(2) == 1
    assert await looked(2) == 0


@pytest.mark.parametrize("committed", [True, False])
async def test_what_may_have_been_committed_is_read_again(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """A failure of the disk leaves open whether there was a commit."""
    (caller,) = await entered(storage)
    writer = writer_of(storage)
    monkeypatch.setattr(writer, "connection", FailingCommit(writer.connection, committed=committed))
    with pytest.raises(OutcomeUnknown):
        await storage.run(SYSTEM, demoted, caller)
    assert await role_of(storage, caller) is (Role.VIEWER if committed else Role.OWNER)


async def test_organizations_with_much_to_remember_are_read_each_time(storage: SqliteStorage) -> None:
    """Each of their callers would take as much memory, and nobody limits how many there are."""
    caller = Caller()
    caller.organization = replace(caller.organization, metadata={"a": [[]] * 300})
    caller.rows["organization"] = (organizations, caller.organization)
    await storage.run(SYSTEM, caller.enter)
    with reads(storage) as statements:
        for _ in range(3):
            assert await storage.access(*caller.key) == caller.access
    assert len(statements) == 3


async def test_memory_is_bounded(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """More callers, and more organizations with changes, than are remembered: all are told the truth."""
    monkeypatch.setattr(memory, "_MOST_KEPT", 4)
    monkeypatch.setattr(changes, "_MOST_REMEMBERED", 3)
    callers = await entered(storage, 10)
    kept = storage._turns._local.turn.memory._kept
    assert len(kept._new) + len(kept._old) <= 8
    for caller in callers:
        await storage.access(*callers[0].key)
        await storage.run(OrgScope(caller.key[0]), demoted, caller)
        assert len(writer_of(storage).changes._latest) <= 3
        for one in (caller, callers[0]):
            assert await role_of(storage, one) is Role.VIEWER


async def test_nobody_is_told_what_a_commit_has_changed(storage: SqliteStorage) -> None:
    """Writers and readers of the same callers in several threads: no answer is older than a commit before it."""
    callers = await entered(storage, 6)
    told = {caller.key[0]: 0 for caller in callers}
    wrong: list[str] = []
    done = asyncio.Event()

    async def write(seed: int) -> None:
        random = Random(seed)
        for _ in range(60):
            caller = random.choice(callers)

            async def bump(tx: Transaction, org_id: str = caller.key[0]) -> int:
                organization = await tx.lock(organizations, org_id)
                return (await tx.replace(organizations, organization)).version

            version = await storage.run(SYSTEM if random.random() < 0.5 else OrgScope(caller.key[0]), bump)
            told[caller.key[0]] = max(told[caller.key[0]], version)

    async def read() -> None:
        while not done.is_set():
            for caller in callers:
                least = told[caller.key[0]]
                found = await storage.access(*caller.key)
                if found.organization is None or found.organization.version < least:
                    wrong.append(f"{found.organization} is older than {least}")
            await stored(storage)
            await asyncio.sleep(0)

    def elsewhere() -> None:
        asyncio.run(read())

    async def writing() -> None:
        try:
            await asyncio.gather(*(write(seed) for seed in range(4)))
        finally:
            done.set()

    await asyncio.gather(writing(), read(), *(asyncio.to_thread(elsewhere) for _ in range(2)))
    assert wrong == []
    assert sum(told.values()) >= 60


def test_every_table_that_is_read_is_known() -> None:
    read = {name for text in (access._WITH_SESSION, access._WITH_API_KEY) for name in re.findall(r"JOIN (\w+)", text)}
    assert read == {table.name for table in access.ABOUT_CALLERS}
    assert all(table.lease is None for table in access.ABOUT_CALLERS), "claiming their rows would have to be noted"
    assert all(table.key[0] == (table.scope or "id") for table in access.ABOUT_CALLERS), "rows are noted by it"
